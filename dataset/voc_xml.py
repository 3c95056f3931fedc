"""Pascal VOC's XML file of one image, read as hostile input: no document type, no entity of its own, no depth."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.parsers import expat

from gpu_offload.dataset.finding import FormError
from gpu_offload.dataset.lfs import LFS_POINTER, LFS_REMEDY

MAX_BYTES: Final = 4 << 20
_MAX_DEPTH: Final = 20


@dataclass(slots=True)
class Element:
    """One element of the XML, with its line."""

    tag: str
    line: int
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def first(self, tag: str) -> "Element | None":
        """Return the first child of a name."""
        return next((child for child in self.children if child.tag == tag), None)

    def value(self, tag: str) -> str:
        """Return the text of the first child of a name, without space around it; empty where there is none."""
        child = self.first(tag)
        return child.text.strip() if child is not None else ""

    def number(self, tag: str) -> float | None:
        """Return the finite number in the first child of a name; None where there is none."""
        child = self.first(tag)
        return child.as_number() if child is not None else None

    def as_number(self) -> float | None:
        """Return the text as a finite number; None where it is none."""
        try:
            number = float(self.text)
        except ValueError:
            return None
        return number if math.isfinite(number) else None


def read_xml(file: Path) -> Element:
    """Return the `annotation` element of a file.

    Raises:
        FormError: If the file is too large, no XML, or holds a document type.
    """
    data = _read(file)
    building = _Building()
    try:
        building.parser.Parse(data, True)
    except expat.ExpatError as fault:
        raise FormError(f"is no XML: {expat.errors.messages[fault.code]}; correct it", fault.lineno) from None
    except (ValueError, LookupError) as fault:
        if isinstance(fault, FormError):
            raise
        raise FormError("is in an encoding that is not read; save it as UTF-8", None) from None
    annotation = building.top.first("annotation")
    if annotation is None:
        raise FormError("holds no <annotation>; correct it", 1)
    return annotation


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise FormError(f"is larger than {MAX_BYTES >> 20} MiB; it describes one image", None)
        data = file.read_bytes()
    except OSError as fault:
        raise FormError(f"cannot be read ({fault.strerror})", None) from None
    if data.startswith(LFS_POINTER):
        raise FormError(f"is a pointer of Git LFS, not the file; {LFS_REMEDY}", None)
    return data


class _Building:
    """Builds elements from what the parser comes across."""

    def __init__(self) -> None:
        self.top = Element("", 0)
        self._open = [self.top]
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        # Entities that grow without end, and files elsewhere, can only be declared in a document type.
        self.parser.StartDoctypeDeclHandler = self._refuse

    def _start(self, tag: str, _: dict[str, str]) -> None:
        if len(self._open) > _MAX_DEPTH:
            raise FormError("is nested too deep", self.parser.CurrentLineNumber)
        element = Element(tag, self.parser.CurrentLineNumber)
        self._open[-1].children.append(element)
        self._open.append(element)

    def _end(self, _: str) -> None:
        self._open.pop()

    def _text(self, data: str) -> None:
        self._open[-1].text += data

    def _refuse(self, *_: object) -> None:
        message = "holds a document type, which no annotation needs; remove it"
        raise FormError(message, self.parser.CurrentLineNumber)
