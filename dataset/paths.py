"""Sorted relative paths, packed: a million of them must fit beside everything else in 200 MB."""

import os
import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from gpu_offload.dataset.finding import Finding, error
from gpu_offload.dataset.image import SUFFIXES, suffix

_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]|[\ud800-\udfff]")


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

    def find(self, name: str) -> int:
        """Return the position of a name, -1 where it is not."""
        position = bisect_left(self, name)
        return position if position < len(self) and self[position] == name else -1


def relevant(name: str) -> bool:
    """Whether a file of this name can be an image or a label."""
    return suffix(name) in SUFFIXES or name.endswith(".txt")


def hidden(name: str) -> bool:
    """Whether a file or folder is no part of any dataset: a hidden one, or what a training tool caches."""
    return name.startswith(".") or name.endswith(".cache")


def walk(root: Path, folder: str, findings: list[Finding]) -> Iterator[str]:
    """Yield the images and texts below `root/folder` as sorted paths relative to `root`.

    Hidden files and folders and `*.cache` are passed over. What could mislead is reported and passed over: a
    symlink, a name that is not UTF-8 or holds control characters or a backslash, and two names that some file
    system would not tell apart.
    """
    base = root / folder if folder else root
    prefix = f"{folder}/" if folder else ""
    names: list[str] = []
    with os.scandir(base) as entries:
        for entry in entries:
            name = entry.name
            if hidden(name):
                continue
            if entry.is_dir(follow_symlinks=False):
                names.append(
                    name + "/"
                )  # as git sorts a tree: the walk comes out in the order of whole paths
            elif entry.is_symlink():
                if relevant(name) or entry.is_dir():
                    message = "is a symlink; put the real file or folder there"
                    findings.append(error(prefix + name, "symlink", message))
            elif relevant(name):
                names.append(name)
    names.sort()
    findings += _unsafe(prefix, names)
    findings += _clashes(prefix, names)
    if not "".join(names).isascii():  # surrogates stand for bytes that are not UTF-8
        names = [name for name in names if not _UNSAFE.search(name)]
    packed = Names(names)
    del names
    for name in packed:
        if name.endswith("/"):
            yield from walk(root, prefix + name[:-1], findings)
        else:
            yield prefix + name


def _unsafe(prefix: str, names: list[str]) -> Iterator[Finding]:
    for name in names:
        if name.isascii() and name.isprintable() and "\\" not in name:
            continue
        if _UNSAFE.search(name):
            message = "the name is not UTF-8, or holds a control character or a backslash; rename it"
            shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            yield error(prefix + shown, "unsafe-name", message)


def _clashes(prefix: str, names: list[str]) -> Iterator[Finding]:
    """Two names that are equal without regard to case or Unicode form.

    Only a name that folding changes can clash, so the common all-lower-case folder costs no memory.
    """
    changed: dict[str, str] = {}
    for name in names:
        folded = fold(name)
        if folded == name:
            continue
        position = bisect_left(names, folded)
        other = (
            names[position] if position < len(names) and names[position] == folded else changed.get(folded)
        )
        if other is not None:
            message = f"differs from {other!r} only in case or Unicode form; rename one"
            yield error(prefix + name.rstrip("/"), "name-clash", message)
        changed[folded] = name


def fold(name: str) -> str:
    """Return what a case-insensitive, Unicode-normalising file system makes of a name."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
