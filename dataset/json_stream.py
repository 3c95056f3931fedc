"""Reads a large JSON file value by value, with the line of each: memory holds one value, not the file."""

import codecs
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gpu_offload.dataset.finding import FormError

MAX_BYTES: Final = 2 << 30
"""COCO 2017 has 448 MB, LVIS 1.1 GB."""
COMMITTED: Final = 128 << 20
"""More than a host of git repositories takes for one file: a larger one is no stranger's, and is read however much it holds."""
MAX_VALUE: Final = 4 << 20
"""Characters of one value, such as an annotation. As Python objects they may take thirty times as many bytes."""
MAX_ELEMENTS: Final = 3_000_000
"""Elements of all arrays of one file up to COMMITTED; COCO 2017 has a million."""
MAX_LISTS: Final = 10_000_000
"""Lists and objects of such a file, by their opening brackets; COCO 2017 has 4 million."""

_PIECE: Final = 1 << 18
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_DECODER: Final = json.JSONDecoder()
_TOO_DEEP: Final = "is no JSON that is read: it is nested too deep or holds huge numbers"
_TOO_LARGE: Final = f"holds a value of more than {MAX_VALUE >> 20} MiB; remove or split it"


def is_committed(file: Path) -> bool:
    """Whether a file can come from a commit, by its size: then it may hold only so much."""
    try:
        return file.stat().st_size <= COMMITTED
    except OSError:  # is said when it is opened
        return True


def pieces(file: Path) -> Iterator[str]:
    """Yield the text of a file in pieces.

    Raises:
        FormError: It is too large, holds too many lists, is not UTF-8 or cannot be read.
    """
    decoder, opened = codecs.getincrementaldecoder("utf-8-sig")(), 0
    try:
        if (size := file.stat().st_size) > MAX_BYTES:
            raise FormError(f"is larger than {MAX_BYTES >> 20} MiB; split it", None)
        with file.open("rb") as stream:
            while data := stream.read(_PIECE):
                opened += data.count(b"[") + data.count(b"{")
                if opened > MAX_LISTS and size <= COMMITTED:
                    raise FormError(f"holds more than {MAX_LISTS} lists and objects; split it", None)
                if text := decoder.decode(data):
                    yield text
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise FormError("is not UTF-8 text; save it as UTF-8", None) from None
    except OSError as fault:
        raise FormError(f"cannot be read ({fault.strerror})", None) from None


def lines(file: Path) -> Iterator[str]:
    """Yield the lines of a file. Raises FormError as `pieces`, and where one is longer than MAX_VALUE."""
    rest, number = "", 1
    for piece in pieces(file):
        *whole, rest = (rest + piece).split("\n")
        if len(rest) > MAX_VALUE:
            raise FormError(_TOO_LARGE, number + len(whole))
        yield from whole
        number += len(whole)
    yield rest


def decode(text: str, line: int) -> Any:
    """Return the value of a JSON text. Raises FormError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as fault:
        raise FormError(f"is no JSON: {fault.msg}; correct it", line + fault.lineno - 1) from None
    except (RecursionError, ValueError):
        raise FormError(_TOO_DEEP, line) from None


class JsonObject:
    """The members of the object that a file holds; the elements of arrays come one by one."""

    def __init__(self, file: Path) -> None:
        self._pieces = pieces(file)
        self._most = MAX_ELEMENTS if is_committed(file) else math.inf
        self._text = ""
        """A window on the file, which begins at or before the next character."""
        self._at = 0
        self._counted = 0
        self._line = 1
        self._elements = 0

    def elements(self) -> Iterator[tuple[str, Any, int]]:
        """Yield key, element and line for each element of a member that is an array, the value for any other member.

        Raises:
            FormError: If the file is no JSON object, or holds a value that is too large.
        """
        self._expect("{")
        if self._peek() == "}":
            return
        while True:
            self._peek()
            key = self._value()
            if not isinstance(key, str):
                raise FormError("is no JSON: a key is no text; correct it", self._here())
            self._expect(":")
            if self._peek() == "[":
                yield from self._array(key)
            else:
                line = self._here()
                yield key, self._value(), line
            if not self._comma("}"):
                return

    def _array(self, key: str) -> Iterator[tuple[str, Any, int]]:
        self._expect("[")
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            self._peek()
            line = self._here()
            self._elements += 1
            if self._elements > self._most:
                raise FormError(f"holds more than {self._most} elements; split it", line)
            yield key, self._value(), line
            if not self._comma("]"):
                return

    def _more(self) -> bool:
        """Move the window on by as much as it holds, at least a piece; False at the file's end."""
        size = max(len(self._text) - self._at, 1)
        new = []
        while size > 0 and (piece := next(self._pieces, "")):
            new.append(piece)
            size -= len(piece)
        if new:
            self._here()
            self._text = self._text[self._at :] + "".join(new)
            self._at = self._counted = 0
        return bool(new)

    def _peek(self) -> str:
        """Move to the next character that is no space, and return it; nothing at the file's end."""
        while True:
            character = self._text[self._at : self._at + 1]
            if character > " ":
                return character
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise FormError(f"is no JSON: {character!r} is missing; correct it", self._here())
        self._at += 1

    def _comma(self, closing: str) -> bool:
        following = self._peek()
        if following not in (",", closing):
            raise FormError(f"is no JSON: ',' or {closing!r} is missing; correct it", self._here())
        self._at += 1
        return following == ","

    def _value(self) -> Any:
        """Return the value that begins at the next character."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as fault:
                # What was cut off by the window's end goes wrong there, or is a text without an end.
                cut = fault.pos + 16 > len(self._text) or fault.msg.startswith("Unterminated")
                if cut and self._can_grow():
                    continue
                self._at = fault.pos
                raise FormError(f"is no JSON: {fault.msg}; correct it", self._here()) from None
            except (RecursionError, ValueError):
                raise FormError(_TOO_DEEP, self._here()) from None
            if end + 4 < len(self._text) or not self._can_grow():  # else a number might go on
                self._at = end
                return value

    def _can_grow(self) -> bool:
        """Widen the window. Raises FormError where it is as wide as a value may be."""
        if len(self._text) - self._at > MAX_VALUE:
            raise FormError(_TOO_LARGE, self._here())
        return self._more()

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line
