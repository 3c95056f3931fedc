"""Walks through JPEG, PNG, WebP and BMP files by their structure.

Each walker returns format, width and height, or None where only a decoder can judge the file. What is refused is what
Pillow's verification or OpenCV's decoder refuses; what they pass over (bytes behind the end, junk between markers, a
BMP's wrong file size) is passed over here.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from typing import Final

Read = Callable[[int, int], bytes]
"""`read(offset, length)` of one file; shorter at its end."""

Walked = tuple[str, int, int]

_PIECE: Final = 1 << 20
_MAX_SEGMENTS: Final = 10_000
"""Before a JPEG's scan; real files have some dozens."""
_MAX_CHUNKS: Final = 100_000
"""Chunks of a PNG or WebP; the largest real files have some ten thousand."""

_MARKER: Final = re.compile(rb"\xff([\x01-\xfe])")
# SOF0 to SOF2, SOF9 and SOF10: baseline, extended and progressive, by Huffman or arithmetic codes.
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_OTHER_FRAMES: Final = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF})

_CRITICAL: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bit depths by PNG's colour types (PNG specification, table 12)."""
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7: Final = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
"""Column, row, and the distances of columns and rows, of each pass of an interlaced PNG."""
_MAX_PIXELS: Final = 1 << 27
"""Above this, a file is refused for its dimensions, and its content need not be looked at."""


class DamagedImageError(Exception):
    """The file is cut off or damaged."""

    def __init__(self, what: str = "is cut off or damaged") -> None:
        super().__init__(what)


class UnsupportedError(Exception):
    """The file is of a form that is not read in training."""


def walk_jpeg(read: Read, size: int) -> Walked:
    """Walk the segments (ITU-T T.81, annex B) to the scan, then look for the end-of-image marker behind it."""
    offset, dimensions, has_tables = 2, None, False
    for _ in range(_MAX_SEGMENTS):
        offset, marker = _next_marker(read, offset, size)
        segment = read(offset, 9)
        if marker in _OTHER_FRAMES:
            raise UnsupportedError("is a lossless or hierarchical JPEG, which is not read in training")
        if marker in _FRAMES:
            dimensions = _frame(segment)
        has_tables = has_tables or marker == 0xDB
        # TEM, RST0 to RST7 and SOI stand alone; every other marker has a length behind it.
        if not (marker == 0x01 or 0xD0 <= marker <= 0xD8):
            length = int.from_bytes(segment[:2], "big")
            if len(segment) < 2 or length < 2:
                raise DamagedImageError
            offset += length
        if marker == 0xDA:  # start of scan: compressed data follow, which only a decoder can walk through
            break
    if dimensions is None or not has_tables or not _has_end(read, offset, size):
        raise DamagedImageError
    return ("JPEG", *dimensions)


def _next_marker(read: Read, offset: int, size: int) -> tuple[int, int]:
    """Return where the content of the next marker begins, and the marker; junk and fill bytes are passed over."""
    length = 64
    while offset < size:
        piece = read(offset, length)
        match = _MARKER.search(piece)
        if match is not None:
            return offset + match.end(), piece[match.start() + 1]
        if len(piece) < length:
            break
        offset += len(piece) - 1  # a marker may begin with the last byte
        length = _PIECE
    raise DamagedImageError


def _frame(segment: bytes) -> tuple[int, int]:
    if len(segment) < 8:
        raise DamagedImageError
    if segment[2] != 8:
        raise UnsupportedError(f"has {segment[2]} bits a sample, and training reads 8")
    if segment[7] not in (1, 3, 4):
        raise UnsupportedError(f"has {segment[7]} colour components, and training reads 1, 3 or 4")
    return int.from_bytes(segment[5:7], "big"), int.from_bytes(segment[3:5], "big")


def _has_end(read: Read, offset: int, size: int) -> bool:
    """Whether the end marker is behind the scan's start.

    Inside a scan 0xFF is followed by 0x00 or a restart marker, so these two bytes are the marker and nothing else.
    """
    end = size
    while end > offset:
        start = max(offset, end - (1 << 16))
        if b"\xff\xd9" in read(start, end - start + 1):
            return True
        end = start
    return False


def walk_png(read: Read, size: int) -> Walked:
    """Walk the chunks (PNG specification, 5.3), check each one's CRC up to IEND, and inflate the picture's data."""
    header = read(8, 25)
    if header[4:8] != b"IHDR" or len(header) < 25:
        raise DamagedImageError
    picture = _Png(header[8:21])
    offset = 8
    for _ in range(_MAX_CHUNKS):
        header = read(offset, 8)
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        if len(header) < 8 or offset + 12 + length > size:
            raise DamagedImageError
        # A capital as first letter marks a chunk that no decoder may skip (PNG specification, 5.4).
        if kind[0] & 0x20 == 0 and kind not in _CRITICAL:
            raise UnsupportedError(f"holds the chunk {kind!r}, which is not read in training")
        position, end = offset + 8, offset + 8 + length
        crc = zlib.crc32(kind)
        while position < end:
            piece = read(position, min(end - position, _PIECE))
            if not piece:
                raise DamagedImageError
            picture.take(kind, piece)
            crc, position = zlib.crc32(piece, crc), position + len(piece)
        if crc != int.from_bytes(read(end, 4), "big"):
            raise DamagedImageError
        if kind == b"IEND":
            picture.finish()
            return "PNG", picture.width, picture.height
        offset = end + 4
    raise DamagedImageError("has more chunks than any picture")


class _Png:
    """The picture of a PNG file, as far as it was inflated."""

    def __init__(self, header: bytes) -> None:
        self.width, self.height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
        depth, self._colours, interlaced = header[8], header[9], header[12]
        if depth not in _DEPTHS.get(self._colours, ()) or interlaced > 1:
            raise DamagedImageError
        self._has_palette = False
        self._missing = 0
        if 0 < self.width * self.height <= _MAX_PIXELS:
            bits = depth * _SAMPLES[self._colours]
            passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
            self._missing = sum(
                _bytes_of(
                    (self.width - column + across - 1) // across, (self.height - row + down - 1) // down, bits
                )
                for column, row, across, down in passes
            )
        self._inflater = zlib.decompressobj()

    def take(self, kind: bytes, piece: bytes) -> None:
        """Note a palette; inflate a piece of the data, as far as rows are missing."""
        self._has_palette = self._has_palette or kind == b"PLTE"
        if kind != b"IDAT":
            return
        try:
            while piece and self._missing > 0:
                self._missing -= len(self._inflater.decompress(piece, _PIECE))
                piece = self._inflater.unconsumed_tail
        except zlib.error:
            raise DamagedImageError from None

    def finish(self) -> None:
        """See that no row is missing, and no palette."""
        if self._missing > 0 or (self._colours == 3 and not self._has_palette):
            raise DamagedImageError


def _bytes_of(width: int, height: int, bits: int) -> int:
    """Return the bytes of so many rows, each with a filter byte before it."""
    return height * (1 + (width * bits + 7) // 8) if width > 0 and height > 0 else 0


def walk_webp(read: Read, size: int) -> Walked:
    """Walk a WebP's chunks (RFC 9649): each must be within the length that the file promises."""
    head = read(0, 30)
    end = 8 + int.from_bytes(head[4:8], "little")
    if len(head) < 30 or end > size:
        raise DamagedImageError
    offset, has_picture = 12, False
    for _ in range(_MAX_CHUNKS):
        if offset + 8 > end:
            break
        header = read(offset, 8)
        length = int.from_bytes(header[4:8], "little")
        if offset + 8 + length > end:
            raise DamagedImageError
        has_picture = has_picture or header[:4] in (b"VP8 ", b"VP8L", b"ANMF")
        offset += 8 + length + length % 2  # chunks are padded to even lengths
    if not has_picture:
        raise DamagedImageError
    if head[12:16] == b"VP8 ":
        width, height = (int.from_bytes(head[i : i + 2], "little") & 0x3FFF for i in (26, 28))
    elif head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (24, 27))
    return "WEBP", width, height


def walk_bmp(read: Read, size: int) -> Walked | None:
    """Read a BMP's header, of Windows or OS/2, and see that all rows of pixels are there."""
    head = read(0, 54)
    if len(head) < 26:
        raise DamagedImageError
    start, kind = int.from_bytes(head[10:14], "little"), int.from_bytes(head[14:18], "little")
    if kind == 12:  # BITMAPCOREHEADER of OS/2: sides of 16 bits, and no compression
        width, height = int.from_bytes(head[18:20], "little"), int.from_bytes(head[20:22], "little")
        bits, compression = int.from_bytes(head[24:26], "little"), 0
    elif len(head) < 54:
        raise DamagedImageError
    else:
        width, height = (int.from_bytes(head[i : i + 4], "little", signed=True) for i in (18, 22))
        bits, compression = int.from_bytes(head[28:30], "little"), int.from_bytes(head[30:34], "little")
    if bits not in (1, 4, 8, 16, 24, 32):
        raise UnsupportedError(f"has {bits} bits a pixel, which is not read in training")
    if compression not in (0, 3):
        return None  # run lengths, or a JPEG or PNG inside
    # Rows are padded to four bytes; a negative height means that the first row is the top one.
    if width <= 0 or start + (width * bits + 31) // 32 * 4 * abs(height) > size:
        raise DamagedImageError
    return "BMP", width, abs(height)


WALKERS: Final[Mapping[bytes, Callable[[Read, int], Walked | None]]] = {
    b"\xff\xd8\xff": walk_jpeg,
    b"\x89PNG\r\n\x1a\n": walk_png,
    b"RIFF": walk_webp,
    b"BM": walk_bmp,
}
"""The walk of each format, by the bytes that its files begin with."""
