"""One image file: its format, its size in pixels, and whether the reader that trains will take it.

JPEG, PNG, BMP and WebP are walked through by their own structure, which finds a cut-off file without decoding a
picture; every other format is decoded by Pillow. The verdict is that of Ultralytics 8.4, which reads an image with
Pillow first and OpenCV then. The bytes are those that were just hashed, so what was checked is what was
fingerprinted.
"""

import io
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gpu_offload.dataset.image_structure import WALKERS, DamagedImageError, Read, UnsupportedError, walk_png
from gpu_offload.dataset.lfs import LFS_POINTER, LFS_REMEDY
from gpu_offload.errors import OffloadError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES: Final = frozenset(
    {"avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"}
)
"""Ultralytics' IMG_FORMATS."""

MAX_BYTES: Final = 256 << 20
MAX_PIXELS: Final = 100_000_000
"""Decoded, this is 300 MB: more is an attack or a mistake, and no training image."""
MIN_SIDE: Final = 10
"""Pixels; Ultralytics refuses an image with a shorter side."""

MAX_DECODED: Final = {"JPEG2000": 16_000_000, "AVIF": 40_000_000, "HEIF": 40_000_000}
"""Pixels of formats whose decoders take up to 19 bytes for each."""
_MAX_DECODED: Final = 64_000_000
"""Pixels of other formats that are decoded here, such as TIFF."""

_LARGE: Final = 10_000_000
"""Pixels from which on images are decoded one at a time, so that threads do not fill the memory."""
_LARGE_FILE: Final = 4 << 20
"""Bytes of a file from which on that holds, too."""
_DECODING: Final = threading.RLock()

_DENSE: Final = 100
"""Pixels a byte from which on a picture counts as dense: photographs have up to ten, drawings some dozens."""
_DENSE_PIXELS: Final = 1_000_000_000
"""Pixels of all dense pictures of a dataset together, some seconds of work."""
_WORK: Final = {"JPEG2000": 4}
"""How many times the work of a PNG's pixel decoding takes."""

_SAMPLE_FORMAT: Final = 339
_COMPRESSION: Final = 259
_READ_COMPRESSIONS: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946})
"""Compressions of TIFF that are read: none, CCITT, LZW, JPEG, Deflate, PackBits; OpenCV's libtiff has no Zstandard, LZMA or WebP."""

NATURAL: Final = {
    "JPEG": {"jpg", "jpeg", "mpo"},
    "MPO": {"jpg", "jpeg", "mpo"},
    "PNG": {"png"},
    "BMP": {"bmp"},
    "WEBP": {"webp"},
    "TIFF": {"tif", "tiff", "dng"},
    "JPEG2000": {"jp2"},
    "AVIF": {"avif"},
    "HEIF": {"heic", "heif"},
}


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Format by content (Pillow's name for it), width and height in pixels as stored (before EXIF orientation)."""

    format: str
    width: int
    height: int


class ImageError(OffloadError):
    """The file is no image that can be trained on. `code` is a finding's code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Density:
    """What may still be unpacked of pictures that are much smaller than their pixels, for one dataset.

    A file of 100 kB can stand for 100 megapixels. One of them is a blank picture, a thousand are minutes of work.
    """

    def __init__(self, pixels: int = _DENSE_PIXELS) -> None:
        self._left = pixels
        self._lock = threading.Lock()

    def is_dense(self, facts: ImageFacts, size: int) -> bool:
        """Whether a picture has so many pixels for its bytes."""
        return _work(facts) > _DENSE * size

    def take(self, facts: ImageFacts, size: int) -> None:
        """Count a picture. Raises ImageError where no more may be unpacked."""
        if self.is_dense(facts, size):
            with self._lock:
                self._left -= _work(facts)
            if self._left < 0:
                message = (
                    f"{facts.width} x {facts.height} pixels in {size} bytes: the dataset has too many pictures that "
                    "are nearly empty; remove them, or save them smaller"
                )
                raise ImageError("huge-image", message)


def _work(facts: ImageFacts) -> int:
    return facts.width * facts.height * _WORK.get(facts.format, 1)


def suffix(name: str) -> str:
    """Return a file name's extension in lower case, without its dot."""
    _, dot, end = name.rpartition(".")
    return end.lower() if dot else ""


def natural(facts: ImageFacts, name: str) -> bool:
    """Whether the content is what the name's extension promises."""
    return suffix(name) in NATURAL.get(facts.format, set())


def read_size(file: Path) -> tuple[int, int] | None:
    """Return width and height as an image's header gives them; None where it does not."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.size
    except Exception:  # noqa: BLE001 - decoders of hostile bytes raise any exception
        return None


def check_image(read: Read, size: int, density: Density | None = None) -> ImageFacts:
    """Find format and dimensions and see that the file is complete.

    Args:
        read: Gives `length` bytes from `offset`.
        size: The file's length in bytes.
        density: Counts what is unpacked of all pictures of a dataset; None counts this one alone.

    Raises:
        ImageError: If it is empty, cut off, damaged, of no supported format, too small or too large.
    """
    if size == 0:
        raise ImageError("truncated-image", "the image is empty; restore or remove it")
    if size > MAX_BYTES:
        message = f"{size / 2**20:.0f} MiB is too large for a training image (limit {MAX_BYTES >> 20} MiB); shrink it"
        raise ImageError("huge-file", message)
    density = density or Density()
    head = read(0, 64)
    if head.startswith(LFS_POINTER):
        raise ImageError("lfs-pointer", f"is a pointer of Git LFS, not the image; {LFS_REMEDY}")
    walker = next((walk for magic, walk in WALKERS.items() if head.startswith(magic)), None)
    if walker is None or (head[:4] == b"RIFF" and head[8:12] != b"WEBP"):
        return _by_pillow(read, size, density)
    # A PNG is the only one of these whose pixels are unpacked, to see that no row is missing.
    if walker is walk_png:
        width, height = (int.from_bytes(head[at : at + 4], "big") for at in (16, 20))
        if width * height <= MAX_PIXELS:  # a larger one is not inflated
            density.take(ImageFacts("PNG", width, height), size)
    try:
        walked = walker(read, size)
    except DamagedImageError as fault:
        raise ImageError("truncated-image", f"the image {fault}; restore or remove it") from None
    except UnsupportedError as fault:
        raise ImageError("unsupported-image", f"the image {fault}; convert it to JPEG or PNG") from None
    if walked is None:  # a rare form, which only a decoder can judge
        return _by_pillow(read, size, density)
    facts = ImageFacts(*walked)
    _check_dimensions(facts.width, facts.height)
    return facts


def _check_dimensions(width: int, height: int, limit: int = MAX_PIXELS) -> None:
    if width * height > limit:
        message = f"{width} x {height} pixels are more than {limit // 10**6} megapixels"
        message += (
            "; shrink the image" if limit == MAX_PIXELS else ", the limit of its format; save it as PNG"
        )
        raise ImageError("huge-image", message)
    if min(width, height) < MIN_SIDE:
        message = f"{width} x {height} pixels; Ultralytics needs at least {MIN_SIDE} on each side"
        raise ImageError("tiny-image", message)


def _by_pillow(read: Read, size: int, density: Density) -> ImageFacts:
    """Decode with Pillow. Dimensions are checked before the pixels are touched."""
    with _DECODING if size > _LARGE_FILE else nullcontext():
        return _decode(read, size, density)


def _decode(read: Read, size: int, density: Density) -> ImageFacts:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(read(0, size))) as image:
            name, (width, height) = str(image.format), image.size
            if name not in NATURAL:
                message = f"the content is {name}, which Ultralytics does not read; convert it to JPEG or PNG"
                raise ImageError("unsupported-image", message)  # noqa: TRY301 - passed on below
            _check_dimensions(width, height, MAX_DECODED.get(name, _MAX_DECODED))
            _check_pixels(image)
            density.take(ImageFacts(name, width, height), size)
            with _DECODING if width * height > _LARGE else nullcontext():
                image.load()
    except (UnidentifiedImageError, ModuleNotFoundError):
        # The latter where Ultralytics was imported: it patches Image.open to want a plugin for what Pillow cannot
        # identify.
        message = "is no image that can be read here; convert it to JPEG or PNG, or remove it"
        raise ImageError("unreadable-image", message) from None
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        message = f"more than {MAX_PIXELS // 10**6} megapixels; shrink the image"
        raise ImageError("huge-image", message) from None
    except Exception as fault:  # decoders of hostile bytes raise any exception
        message = "the image is cut off or damaged; restore or remove it"
        raise ImageError("truncated-image", message) from fault
    return ImageFacts(name, width, height)


def _check_pixels(image: "Image.Image") -> None:
    """Refuse kinds of pixels that Pillow reads and OpenCV does not."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    samples = tags.get(_SAMPLE_FORMAT, (1,))
    if image.mode in {"F", "I"} or any(sample != 1 for sample in samples):
        message = "the pixels are no whole numbers of 8 or 16 bits without sign; convert the image to 8 bits"
        raise ImageError("unsupported-image", message)
    if tags.get(_COMPRESSION, 1) not in _READ_COMPRESSIONS:
        message = (
            f"the compression {tags[_COMPRESSION]} is not read in training; save the image with LZW or none"
        )
        raise ImageError("unsupported-image", message)
    if image.format == "JPEG2000" and image.mode not in {"1", "L", "LA", "RGB", "RGBA", "I;16"}:
        message = f"the colours are {image.mode}, which is not read in training; convert the image to RGB"
        raise ImageError("unsupported-image", message)
