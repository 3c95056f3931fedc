"""Datasets made of pictures whose bytes depend on no library, for tests of fingerprints and layouts."""

import struct
from pathlib import Path

BOX = "0 0.5 0.5 0.2 0.2\n"
BOX_1 = "1 0.4 0.4 0.2 0.2\n"
POLYGON = "0 0.1 0.1 0.9 0.1 0.5 0.9\n"


def bitmap(shade: int = 0, size: tuple[int, int] = (16, 12)) -> bytes:
    """Return an uncompressed 24-bit BMP of one colour."""
    width, height = size
    row = (bytes((shade % 256, shade // 256 % 256, 7)) * width).ljust((3 * width + 3) // 4 * 4, b"\0")
    head = struct.pack("<IIIHH", 40, width, height, 1, 24) + bytes(24)
    return b"BM" + struct.pack("<IHHI", 54 + len(row) * height, 0, 0, 54) + head + row * height


def put(path: Path, content: bytes | str = b"") -> Path:
    """Write a file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def pair(root: Path, image: str, shade: int, label: str | None = BOX, labels: str | None = None) -> None:
    """Write a picture and its label, beside it or at `labels`."""
    put(root / image, bitmap(shade))
    if label is not None:
        put(root / (labels or image.rpartition(".")[0] + ".txt"), label)


def flat(root: Path, count: int = 20, label: str = BOX) -> Path:
    """Write pictures with their labels beside them."""
    for index in range(count):
        pair(root, f"{index:03}.bmp", index, label)
    return root


def with_yaml(
    root: Path, text: str = "train: images/train\nval: images/val\nnames: [thing]\n", label: str = BOX
) -> Path:
    """Write images/ and labels/ with train and val in them, and a data.yaml."""
    for split, first in (("train", 0), ("val", 100)):
        for index in range(4):
            pair(root, f"images/{split}/{index}.bmp", first + index, label, f"labels/{split}/{index}.txt")
    put(root / "data.yaml", text)
    return root


def class_folders(
    root: Path, parts: tuple[str, ...] = ("",), names: tuple[str, ...] = ("dog", "cat"), count: int = 15
) -> Path:
    """Write one folder a class, below each of `parts`."""
    shade = 0
    for part in parts:
        for name in names:
            for index in range(count):
                put(root / part / name / f"{index}.bmp", bitmap(shade))
                shade += 1
    return root
