"""Reads a large JSON object piece by piece, with the line of each piece."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

MAX_BYTES: Final = 128 << 20
"""More than a host of git repositories takes for one file, and what fits into memory beside the rest."""

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_DECODER: Final = json.JSONDecoder()


class JsonError(ValueError):
    """The text is no such JSON. `line` counts from 1."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


def read_text(file: Path) -> str:
    """Return the text of a file. Raises JsonError if it is too large, not UTF-8 or cannot be read."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise JsonError(f"is larger than {MAX_BYTES >> 20} MiB; split it", None)
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise JsonError("is not UTF-8 text; save it as UTF-8", None) from None
    except OSError as fault:
        raise JsonError(f"cannot be read ({fault.strerror})", None) from None


def decode(text: str, line: int) -> Any:
    """Return the value of a JSON text. Raises JsonError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as fault:
        raise JsonError(f"is no JSON: {fault.msg}; correct it", line + fault.lineno - 1) from None
    except (RecursionError, ValueError):
        raise JsonError(
            "is no JSON that is read: it is nested too deep or holds huge numbers", line
        ) from None


class JsonObject:
    """The members of the object that a text holds; the elements of arrays come one by one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted = 0
        self._line = 1

    def elements(self) -> Iterator[tuple[str, Any, int]]:
        """Yield key, element and line for each element of a member that is an array, the value for any other member.

        Raises:
            JsonError: If the text is no JSON object.
        """
        self._expect("{")
        if self._peek() == "}":
            return
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise JsonError("is no JSON: a key is no text; correct it", self._here())
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
            yield key, self._value(), line
            if not self._comma("]"):
                return

    def _peek(self) -> str:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise JsonError(f"is no JSON: {character!r} is missing; correct it", self._here())
        self._at += 1

    def _comma(self, closing: str) -> bool:
        following = self._peek()
        if following not in {",", closing}:
            raise JsonError(f"is no JSON: ',' or {closing!r} is missing; correct it", self._here())
        self._at += 1
        return following == ","

    def _value(self) -> Any:
        self._peek()
        try:
            value, self._at = _DECODER.raw_decode(self._text, self._at)
        except json.JSONDecodeError as fault:
            self._at = fault.pos
            raise JsonError(f"is no JSON: {fault.msg}; correct it", self._here()) from None
        except (RecursionError, ValueError):
            message = "is no JSON that is read: it is nested too deep or holds huge numbers"
            raise JsonError(message, self._here()) from None
        return value

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line
