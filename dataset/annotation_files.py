"""Distinguishes annotation files of other formats from other files with the same extension."""

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

_HEAD: Final = 1 << 16
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""What begins a text of PowerShell, in which each letter has a zero byte. The readers then say what to do."""
_BOX_COLUMN: Final = re.compile(rb"(?<![a-z])(x_?min|bbox|bounding_?box)(?![a-z])", re.IGNORECASE)
_NEAR: Final = 32 << 20
"""Bytes in which the words of a format occur, but for the one that may follow all objects of a COCO file."""


class AnnotationFormat(StrEnum):
    """Formats of annotations, by the names that people know them under."""

    COCO = "COCO JSON"
    VOC = "Pascal VOC XML"
    NDJSON = "Ultralytics NDJSON"
    LABELME = "LabelMe JSON"
    CREATE_ML = "CreateML JSON"
    CVAT = "CVAT XML"
    SUPERVISELY = "Supervisely JSON"
    BDD = "BDD100K JSON"
    VIA = "VGG Image Annotator JSON"
    LABEL_STUDIO = "Label Studio JSON"
    HUB = "Hugging Face JSON Lines"
    CSV = "CSV"
    """A table of boxes, as TensorFlow's tools and Open Images have it."""


_WORDS: Final = {
    AnnotationFormat.COCO: {b'"images"', b'"annotations"', b'"categories"'},
    AnnotationFormat.LABELME: {b'"shapes"', b'"imagePath"'},
    AnnotationFormat.VIA: {b'"shape_attributes"'},
    AnnotationFormat.SUPERVISELY: {b'"objects"', b'"geometryType"', b'"exterior"'},
    AnnotationFormat.BDD: {b'"labels"', b'"box2d"', b'"category"'},
    AnnotationFormat.LABEL_STUDIO: {b'"original_width"', b'"original_height"', b'"rotation"'},
    AnnotationFormat.CREATE_ML: {b'"annotations"', b'"coordinates"', b'"label"'},
}
"""What the JSON of each format holds; the first one that fits counts."""


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """A file that holds annotations; its path is relative to the dataset's root."""

    name: str
    format: AnnotationFormat


def annotation_files(root: Path, names: Iterable[str]) -> tuple[list[AnnotationFile], list[str]]:
    """Sort JSON, NDJSON and XML files into annotations and others, by what they hold."""
    found, others = [], []
    for name in names:
        kind = _format(root / name, name.rpartition(".")[2].lower())
        if kind is None:
            others.append(name)
        else:
            found.append(AnnotationFile(name, kind))
    return found, others


def _format(file: Path, suffix: str) -> AnnotationFormat | None:
    try:
        if suffix in {"ndjson", "jsonl"}:
            first = _start(file).partition(b"\n")[0]
            if b'"type"' in first and b'"dataset"' in first:
                return AnnotationFormat.NDJSON
            return AnnotationFormat.HUB if b'"file_name"' in first and b'"objects"' in first else None
        if suffix == "csv":
            return AnnotationFormat.CSV if _BOX_COLUMN.search(_start(file).partition(b"\n")[0]) else None
        if suffix == "xml":
            head = _start(file)
            if b"<annotations" in head and b"<image" in head:
                return AnnotationFormat.CVAT
            return AnnotationFormat.VOC if b"<annotation" in head else None
        return _json(file)
    except OSError:
        return None


def starts_with(file: Path, content: bytes) -> bool:
    """Whether a file that can be read begins with this content."""
    try:
        return _start(file).startswith(content)
    except OSError:
        return False


def _start(file: Path) -> bytes:
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    return head.replace(b"\0", b"") if head.startswith(_UTF16) else head


def _json(file: Path) -> AnnotationFormat | None:
    # Words are searched for, and nothing is parsed: a file of another tool may hold a gigabyte of JSON.
    coco = _WORDS[AnnotationFormat.COCO]
    wanted = set().union(*_WORDS.values())
    seen: set[bytes] = set()
    with file.open("rb") as stream:
        is_wide = stream.read(2) in _UTF16
        stream.seek(0)
        overlap = b""
        while not coco <= seen and (piece := stream.read(1 << 20)):
            piece = piece.replace(b"\0", b"") if is_wide else piece
            block = overlap + piece
            seen.update(word for word in wanted - seen if word in block)
            if stream.tell() > _NEAR:
                wanted = coco
                if not seen & coco:
                    break
            overlap = piece[-32:]  # longer than any of the words, which two pieces may divide
    return next((form for form, words in _WORDS.items() if words <= seen), None)
