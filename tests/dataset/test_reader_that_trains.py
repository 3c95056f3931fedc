"""What check says of a picture or a label is what Ultralytics says when it trains on it."""

import io
import struct
import zlib

import pytest
from PIL import Image
from resources import needs

from gpu_offload.dataset.image import ImageError, check_image
from gpu_offload.dataset.label import check_label

pytestmark = [pytest.mark.training, needs("ultralytics")]


def drawn(mode="RGB", size=(40, 30)):
    image = Image.new("RGB", size)
    image.putdata([(x * 5 % 256, y * 7 % 256, (x * y) % 256) for y in range(size[1]) for x in range(size[0])])
    return image.convert(mode)


def encoded(kind, mode="RGB", **options):
    buffer = io.BytesIO()
    (options.pop("image", None) or drawn(mode)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(colours=2, depth=8, rows=30, between=b"", data=None, interlaced=0):
    header = struct.pack(">IIBBBBB", 40, 30, depth, colours, 0, 0, interlaced)
    body = zlib.compress((b"\0" + b"\x20" * 120) * rows) if data is None else data
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + between + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def bmp(bits=24, header=40, rows=30, height=30, size=None, compression=0):
    stride = (40 * bits + 31) // 32 * 4
    if header == 12:
        info = struct.pack("<IHHHH", 12, 40, height, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", header, 40, height, 1, bits, compression, 0, 0, 0, 0, 0) + bytes(
            header - 40
        )
    body = b"\x33" * (stride * rows)
    start = 14 + len(info)
    return (
        b"BM" + struct.pack("<IHHI", start + len(body) if size is None else size, 0, 0, start) + info + body
    )


JPEG = encoded("JPEG")
TABLES = JPEG.index(b"\xff\xdb")
FRAME = b"\xff\xc0\x00\x11\x08"


def before_tables(junk):
    return JPEG[:TABLES] + junk + JPEG[TABLES:]


PICTURES = {
    "plain.jpg": JPEG,
    "grey.jpg": encoded("JPEG", "L"),
    "cmyk.jpg": encoded("JPEG", "CMYK"),
    "progressive.jpg": encoded("JPEG", progressive=True),
    "zeros behind.jpg": JPEG + bytes(40),
    "text behind.jpg": JPEG + b"SEFT motion",
    "cut.jpg": JPEG[: len(JPEG) // 2],
    "without end.jpg": JPEG[:-2],
    "fill.jpg": before_tables(b"\xff" * 9),
    "junk.jpg": before_tables(b"\0\0"),
    "much junk.jpg": before_tables(b"\x11" * 500),
    "stuffed.jpg": before_tables(b"\xff\0"),
    "12 bits.jpg": JPEG.replace(FRAME, FRAME[:-1] + b"\x0c"),
    "lossless.jpg": JPEG.replace(FRAME, b"\xff\xc3" + FRAME[2:]),
    "without tables.jpg": JPEG.replace(b"\xff\xdb", b"\xff\xec"),
    "without frame.jpg": JPEG.replace(FRAME, b"\xff\xec" + FRAME[2:]),
    "png inside.jpg": encoded("PNG"),
    "webp inside.jpg": encoded("WEBP"),
    "ppm inside.jpg": encoded("PPM"),
    "empty.jpg": b"",
    "page.jpg": b"<!DOCTYPE html>",
    "pair.mpo": encoded("MPO", save_all=True, append_images=[drawn()]),
    "plain.png": png(),
    "grey.png": encoded("PNG", "L"),
    "palette.png": encoded("PNG", "P"),
    "one bit.png": encoded("PNG", "1"),
    "alpha.png": encoded("PNG", "RGBA"),
    "grey alpha.png": encoded("PNG", "LA"),
    "16 bits.png": png(depth=16, data=zlib.compress((b"\0" + b"\x20" * 240) * 30)),
    "behind.png": png() + b"\n",
    "without end.png": png()[:-12],
    "text with a bad sum.png": png(between=chunk(b"tEXt", b"a\0b")[:-4] + bytes(4)),
    "unknown chunk.png": png(between=chunk(b"abCD", b"x")),
    "unknown critical chunk.png": png(between=chunk(b"ABCD", b"x")),
    "few rows.png": png(rows=20),
    "no rows.png": png(data=b""),
    "junk rows.png": png(data=b"hello" * 30),
    "wrong depth.png": png(depth=5),
    "palette missing.png": png(colours=3, data=zlib.compress((b"\0" + b"\1" * 40) * 30)),
    "gif inside.png": encoded("GIF"),
    "tga inside.png": encoded("TGA"),
    "plain.webp": encoded("WEBP"),
    "lossless.webp": encoded("WEBP", lossless=True),
    "moving.webp": encoded("WEBP", save_all=True, append_images=[drawn("L").convert("RGB")]),
    "cut.webp": encoded("WEBP")[:-20],
    "behind.webp": encoded("WEBP") + b"xx",
    "wrong length.webp": encoded("WEBP")[:4] + struct.pack("<I", 60) + encoded("WEBP")[8:],
    "plain.bmp": bmp(),
    "grey.bmp": encoded("BMP", "L"),
    "32 bits.bmp": bmp(bits=32),
    "os2.bmp": bmp(header=12),
    "upside down.bmp": bmp(height=-30),
    "v5.bmp": bmp(header=124),
    "size 0.bmp": bmp(size=0),
    "size larger.bmp": bmp(size=10**7),
    "cut.bmp": bmp(rows=29),
    "5 bits.bmp": bmp(bits=5),
    "plain.tif": encoded("TIFF"),
    "grey.tif": encoded("TIFF", "L"),
    "alpha.tiff": encoded("TIFF", "RGBA"),
    "cmyk.tif": encoded("TIFF", "CMYK"),
    "lzw.tif": encoded("TIFF", compression="tiff_lzw"),
    "deflate.tif": encoded("TIFF", compression="tiff_adobe_deflate"),
    "fax.tif": encoded("TIFF", "1", compression="group4"),
    "16 bits.tif": encoded("TIFF", image=drawn("L").convert("I").convert("I;16")),
    "int.tif": encoded("TIFF", "I"),
    "float.tif": encoded("TIFF", "F"),
    "lzma.tif": encoded("TIFF", compression="lzma"),
    "zstd.tif": encoded("TIFF", compression="zstd"),
    "pages.tif": encoded("TIFF", save_all=True, append_images=[drawn()]),
    "cut.tif": encoded("TIFF")[:900],
    "plain.jp2": encoded("JPEG2000"),
    "plain.avif": encoded("AVIF"),
    "tiny.png": encoded("PNG", image=drawn(size=(9, 40))),
    "thin.png": encoded("PNG", image=drawn(size=(10, 300))),
}


def trains_on(path):
    from ultralytics.data.utils import check_image as verify
    from ultralytics.utils.patches import imread

    try:
        verify(str(path))
    except Exception:  # noqa: BLE001 - whatever it raises, the picture is dropped
        return False
    return imread(str(path)) is not None


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("YOLO_OFFLINE", "1")
    monkeypatch.setenv("YOLO_AUTOINSTALL", "false")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_passes_if_and_only_if_it_is_trained_on(tmp_path, name):
    data = PICTURES[name]
    try:
        check_image(lambda offset, length: data[offset : offset + length], len(data))
        passed = True
    except ImageError:
        passed = False
    path = tmp_path / name
    path.write_bytes(data)
    assert passed == trains_on(path)


LABELS = {
    "box": "0 0.5 0.5 0.2 0.2",
    "two": "0 0.5 0.5 0.2 0.2\n1 0.4 0.4 0.1 0.1",
    "nothing": "",
    "blank lines": "\n\n0 0.5 0.5 0.2 0.2\n\n",
    "tabs": "0\t0.5\t0.5\t0.2\t0.2",
    "windows": "0 0.5 0.5 0.2 0.2\r\n1 0.4 0.4 0.1 0.1\r\n",
    "mark": "\ufeff0 0.5 0.5 0.2 0.2",
    "float class": "0.0 0.5 0.5 0.2 0.2",
    "broken class": "0.5 0.5 0.5 0.2 0.2",
    "negative class": "-1 0.5 0.5 0.2 0.2",
    "high class": "2 0.5 0.5 0.2 0.2",
    "four columns": "0 0.5 0.5 0.2",
    "six columns": "0 0.5 0.5 0.2 0.2 0.9",
    "word": "car 0.5 0.5 0.2 0.2",
    "comma": "0,0.5,0.5,0.2,0.2",
    "comment": "# x\n0 0.5 0.5 0.2 0.2",
    "pixels": "0 320 240 64 48",
    "a little out": "0 0.5 0.5 1.005 0.2",
    "out": "0 0.5 0.5 1.02 0.2",
    "below zero": "0 -0.2 0.5 0.2 0.2",
    "negative width": "0 0.5 0.5 -0.2 0.2",
    "exponent": "0 5e-1 0.5 2e-1 0.2",
    "nan": "0 nan 0.5 0.2 0.2",
    "triangle": "0 0.1 0.1 0.9 0.1 0.5 0.9",
    "odd polygon": "0 0.1 0.1 0.9 0.1 0.5 0.9 0.3",
    "polygon out": "0 0.1 0.1 1.9 0.1 0.5 0.9",
    "mixed": "0 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.9 0.1 0.5 0.9",
    "twice": "0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LABELS)
def test_a_label_passes_if_and_only_if_its_image_is_trained_on(tmp_path, name):
    from ultralytics.data.utils import verify_image_label

    data = LABELS[name].encode()
    facts, findings = check_label("a.txt", data)
    passed = facts.max_class < 2 and not any(finding.severity == "error" for finding in findings)
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "a.txt").write_bytes(data)
    verified = verify_image_label(
        (str(tmp_path / "a.jpg"), str(tmp_path / "a.txt"), "", False, 2, 0, 0, False)
    )
    assert passed == (verified[0] is not None)
