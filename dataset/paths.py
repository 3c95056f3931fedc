"""Sorted relative paths, packed: a million of them must fit beside everything else in 200 MB."""

import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import overload


class Names(Sequence[str]):
    """Paths relative to a dataset's root, `/` between the parts, sorted as plain strings, each once."""

    __slots__ = ("_blob", "_ends")

    def __init__(self, names: Iterable[str]) -> None:
        blob = bytearray()
        ends = array("Q", [0])
        for name in names:
            blob += name.encode()
            ends.append(len(blob))
        self._blob = bytes(blob)
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._blob[self._ends[index] : self._ends[index + 1]].decode()

    def __iter__(self) -> Iterator[str]:
        blob, start = self._blob, 0
        for end in self._ends[1:]:
            yield blob[start:end].decode()
            start = end

    @property
    def ascii(self) -> bool:
        """Whether every path is plain ASCII."""
        return self._blob.isascii()

    def after(self, name: str) -> int:
        """Return the position of the first path that does not sort before `name`."""
        return bisect_left(self, name)

    def find(self, name: str) -> int:
        """Return the position of a name, -1 where it is not."""
        position = bisect_left(self, name)
        return position if position < len(self) and self[position] == name else -1


def fold(name: str) -> str:
    """Return what a case-insensitive, Unicode-normalising file system makes of a name."""
    if name.isascii():
        return name.lower()
    # Twice: to fold the case of a composed letter can leave a decomposed one.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def portable(name: str) -> str:
    """Return a path in the form that counts: Unicode NFC."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
