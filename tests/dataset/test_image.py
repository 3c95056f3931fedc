"""What counts as a whole image."""

import io
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from gpu_offload.dataset.image import MAX_PIXELS, ImageError, ImageFacts, check_image


def check(data):
    return check_image(lambda offset, length: data[offset : offset + length], len(data))


def encoded(kind, size=(40, 30), **options):
    image = Image.new("RGB", size, (10, 200, 30))
    ImageDraw.Draw(image).ellipse((3, 3, 25, 25), fill=(255, 0, 0))
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


FORMATS = ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "JPEG2000", "AVIF"]


@pytest.mark.parametrize("kind", FORMATS)
def test_format_and_dimensions_are_found_without_the_name(kind):
    assert check(encoded(kind)) == ImageFacts(kind, 40, 30)


@pytest.mark.parametrize("kind", [*FORMATS, "progressive", "lossless"])
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_an_image_that_is_cut_off_is_refused(kind, keep):
    options = {"progressive": {"progressive": True}, "lossless": {"lossless": True}}.get(kind, {})
    data = encoded({"progressive": "JPEG", "lossless": "WEBP"}.get(kind, kind), **options)
    assert check(data).width == 40
    with pytest.raises(ImageError) as caught:
        check(data[: int(len(data) * keep)])
    assert caught.value.code in {"truncated-image", "unreadable-image"}


def test_an_image_padded_with_zeros_to_its_length_is_refused():
    data = encoded("JPEG", (200, 200))
    with pytest.raises(ImageError, match="cut off"):
        check(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def test_a_thumbnail_inside_does_not_hide_a_cut():
    thumbnail = encoded("JPEG", (16, 16))
    data = encoded("JPEG", (200, 200), exif=b"Exif\0\0" + thumbnail)
    assert check(data) == ImageFacts("JPEG", 200, 200)
    with pytest.raises(ImageError, match="cut off"):
        check(data[:-100])


def test_bytes_behind_the_end_of_a_jpeg_are_tolerated():
    assert check(encoded("JPEG") + bytes(100_000)) == ImageFacts("JPEG", 40, 30)


def test_one_flipped_bit_in_a_png_is_noticed():
    data = bytearray(encoded("PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageError):
        check(bytes(data))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "truncated-image"),
        (b"hello, this is no image at all", "unreadable-image"),
        (encoded("GIF"), "unsupported-image"),
        (encoded("PNG", (9, 40)), "tiny-image"),
    ],
)
def test_what_is_no_training_image_is_refused(data, code):
    with pytest.raises(ImageError) as caught:
        check(data)
    assert caught.value.code == code


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(kind):
    image = Image.new("1" if kind != "JPEG" else "L", (12_000, MAX_PIXELS // 12_000 + 10))
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"compression": "group4"} if kind == "TIFF" else {}))
    with pytest.raises(ImageError) as caught:
        check(buffer.getvalue())
    assert caught.value.code == "huge-image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@given(st.data())
def test_damage_anywhere_is_an_image_error_or_nothing_but_no_crash(kind, data):
    body = bytearray(encoded(kind, (20, 16)))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ImageError):
        assert check(bytes(body)).width >= 10
