"""One image file: its format, its size in pixels, and whether it is whole.

JPEG, PNG, BMP and WebP are walked through by their own structure, which finds a cut-off file without decoding a
pixel (a PNG's checksums included); every other format is decoded by Pillow. The bytes are those that were just
hashed, so what was checked is what was fingerprinted.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpu_offload.dataset.lfs import LFS_POINTER, LFS_REMEDY
from gpu_offload.errors import OffloadError

SUFFIXES: Final = frozenset(
    {"avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"}
)
"""Ultralytics' IMG_FORMATS."""

MAX_BYTES: Final = 256 << 20
MAX_PIXELS: Final = 100_000_000
"""Decoded, this is 300 MB: more is an attack or a mistake, and no training image."""
MIN_SIDE: Final = 10
"""Pixels; Ultralytics refuses an image with a shorter side."""

Read = Callable[[int, int], bytes]
"""`read(offset, length)` of one file; shorter at its end."""

_NATURAL: Final = {
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


def suffix(name: str) -> str:
    """Return a file name's extension in lower case, without its dot."""
    _, dot, end = name.rpartition(".")
    return end.lower() if dot else ""


def natural(facts: ImageFacts, name: str) -> bool:
    """Whether the content is what the name's extension promises."""
    return suffix(name) in _NATURAL.get(facts.format, set())


def read_size(file: Path) -> tuple[int, int] | None:
    """Return width and height as an image's header gives them; None where it does not."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.size
    except Exception:  # noqa: BLE001 - decoders of hostile bytes raise whatever they like
        return None


def check_image(read: Read, size: int) -> ImageFacts:
    """Find format and dimensions and see that the file is complete.

    Args:
        read: Gives `length` bytes from `offset`.
        size: The file's length in bytes.

    Raises:
        ImageError: If it is empty, cut off, damaged, of no supported format, too small or too large.
    """
    if size == 0:
        raise ImageError("truncated-image", "the image is empty; restore or remove it")
    if size > MAX_BYTES:
        message = f"{size / 2**20:.0f} MiB is too large for a training image (limit {MAX_BYTES >> 20} MiB); shrink it"
        raise ImageError("huge-file", message)
    head = read(0, 64)
    if head.startswith(LFS_POINTER):
        raise ImageError("lfs-pointer", f"is a pointer of Git LFS, not the image; {LFS_REMEDY}")
    if head.startswith(b"\xff\xd8\xff"):
        facts = _jpeg(read, size)
    elif head.startswith(b"\x89PNG\r\n\x1a\n"):
        facts = _png(read, size)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        facts = _webp(read, size)
    elif head[:2] == b"BM" and len(head) > 26:
        facts = _bmp(head, size)
    else:
        return _by_pillow(read, size)
    _check_dimensions(facts.width, facts.height)
    return facts


def _check_dimensions(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        message = (
            f"{width} x {height} pixels are more than {MAX_PIXELS // 10**6} megapixels; shrink the image"
        )
        raise ImageError("huge-image", message)
    if min(width, height) < MIN_SIDE:
        message = f"{width} x {height} pixels; Ultralytics needs at least {MIN_SIDE} on each side"
        raise ImageError("tiny-image", message)


def _check_format(name: str) -> None:
    if name not in _NATURAL:
        message = f"the content is {name}, which Ultralytics does not read; convert it to JPEG or PNG"
        raise ImageError("unsupported-image", message)


def _truncated() -> ImageError:
    return ImageError("truncated-image", "the image is cut off or damaged; restore or remove it")


def _jpeg(read: Read, size: int) -> ImageFacts:
    """Walk the segments (ITU-T T.81, annex B) to the scan, then look for the end-of-image marker behind it."""
    offset, dimensions = 2, (0, 0)
    while True:
        segment = read(offset, 9)
        if len(segment) < 4 or segment[0] != 0xFF:
            raise _truncated()
        marker = segment[1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if len(segment) < 9:
                raise _truncated()
            dimensions = int.from_bytes(segment[7:9], "big"), int.from_bytes(segment[5:7], "big")
        offset += 2 if marker == 0x01 or 0xD0 <= marker <= 0xD8 else 2 + int.from_bytes(segment[2:4], "big")
        if marker == 0xDA:
            break
    # Inside a scan 0xFF is followed by 0x00 or a restart marker, so these two bytes are the marker and nothing else.
    end = size
    while end > offset:
        start = max(offset, end - (1 << 16))
        if b"\xff\xd9" in read(start, end - start + 1):
            return ImageFacts("JPEG", *dimensions)
        end = start
    raise _truncated()


def _png(read: Read, size: int) -> ImageFacts:
    """Walk the chunks (PNG specification, 5.3) and check each one's CRC up to IEND."""
    offset, width, height = 8, 0, 0
    while offset + 12 <= size:
        header = read(offset, 8)
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        if offset + 12 + length > size:
            raise _truncated()
        crc, position, left = zlib.crc32(kind), offset + 8, length
        while left:
            piece = read(position, min(left, 1 << 20))
            if not piece:
                raise _truncated()
            if position == offset + 8 and kind == b"IHDR":
                width, height = int.from_bytes(piece[:4], "big"), int.from_bytes(piece[4:8], "big")
            crc, position, left = zlib.crc32(piece, crc), position + len(piece), left - len(piece)
        if crc != int.from_bytes(read(position, 4), "big"):
            raise _truncated()
        if kind == b"IEND":
            return ImageFacts("PNG", width, height)
        offset = position + 4
    raise _truncated()


def _webp(read: Read, size: int) -> ImageFacts:
    """Read a WebP's container (RFC 9649): the length it promises, and the first chunk's dimensions."""
    head = read(0, 30)
    if len(head) < 30 or 8 + int.from_bytes(head[4:8], "little") > size:
        raise _truncated()
    if head[12:16] == b"VP8 ":
        width, height = (int.from_bytes(head[i : i + 2], "little") & 0x3FFF for i in (26, 28))
    elif head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (24, 27))
    return ImageFacts("WEBP", width, height)


def _bmp(head: bytes, size: int) -> ImageFacts:
    declared = int.from_bytes(head[2:6], "little")
    if declared > size:
        raise _truncated()
    width, height = int.from_bytes(head[18:22], "little"), int.from_bytes(head[22:26], "little", signed=True)
    return ImageFacts("BMP", width, abs(height))


def _by_pillow(read: Read, size: int) -> ImageFacts:
    """Decode with Pillow. Dimensions are checked before the pixels are touched."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(read(0, size))) as image:
            name, (width, height) = str(image.format), image.size
            _check_format(name)
            _check_dimensions(width, height)
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
    except Exception as fault:  # decoders of hostile bytes raise whatever they like
        raise _truncated() from fault
    return ImageFacts(name, width, height)
