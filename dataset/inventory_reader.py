"""Hashes and inspects the files that the stat cache does not know."""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from gpu_offload.dataset.finding import Finding, Findings, error
from gpu_offload.dataset.stat_cache import NEVER, Entry, believable, read_cache, stat_of

CHUNK: Final = 1024

_WHOLE: Final = 4 << 20
"""Files up to this size are read in one piece, larger ones through a buffer."""

_BUFFER: Final = 1 << 18

_PARALLEL: Final = 1 << 18
"""From this average size on, hashing in threads gains more than the hand-over costs."""

Read = Callable[[int, int], bytes]

Facts = tuple[int, int, int]


class Inspector(Protocol):
    """Looks into files while they are open for hashing."""

    def wants(self, name: str) -> bool:
        """Whether this file is of interest."""

    def refuses(self, name: str, size: int) -> list[Finding]:
        """Return why a file of this size is not even hashed; nothing where it is."""

    def inspect(self, name: str, read: Read, size: int) -> tuple[Facts, list[Finding], bool]:
        """Return facts and faults, and whether the facts may be remembered in place of another look."""

    def facts_of(self, label: bytes) -> Facts:
        """Return the facts of a label that was converted, and judged with that."""


class Known:
    """The old cache, read in step with the names: both are sorted, so neither is held in memory as a whole."""

    def __init__(self, cache: Path | None) -> None:
        self._entries = read_cache(cache)
        self._next = next(self._entries, None)
        self._skipped = self._next is None  # an empty cache, or none, is worth writing

    def entry(self, name: str) -> Entry | None:
        """Return the cached entry of a name, None if there is none; names must come in order."""
        head = self._next
        while head is not None and head[0] < name:
            self._skipped = True
            head = next(self._entries, None)
        if head is None or head[0] != name:
            self._next = head
            return None
        self._next = next(self._entries, None)
        return head[1]

    def leftover(self) -> bool:
        """Whether the cache holds files that are no more."""
        return self._skipped or self._next is not None


_Taken = tuple[int, Facts | None, Entry | None]
"""Size, facts, and what to remember; None where the file could not be read."""


@dataclass
class Reader:
    """Stats files, and reads those that the cache cannot vouch for."""

    root: Path
    inspector: Inspector
    context: int
    findings: Findings
    stack: ExitStack
    given: Mapping[str, bytes]
    _pool: ThreadPoolExecutor | None = None
    _started: int = field(default_factory=time.time_ns)

    def take(self, names: list[str], olds: list[Entry | None]) -> Iterator[_Taken]:
        """Yield the files of these names, in their order; reads those that their cached entries do not vouch for."""
        prefix, lstat = f"{self.root}/", os.lstat
        taken: list[_Taken | None] = []
        misses: list[tuple[str, Entry | None, os.stat_result]] = []
        for name, old in zip(names, olds, strict=True):
            if name in self.given:
                taken.append(self._take_given(name))
                continue
            try:
                info = lstat(prefix + name)
            except OSError as fault:
                self.findings.append(_unreadable(name, fault))
                taken.append((0, None, None))
                continue
            if old is not None and old.stat == stat_of(info) and self._settled(name, old):
                taken.append((info.st_size, old.facts if old.context else None, old))
            elif stat.S_ISREG(info.st_mode):
                taken.append(None)
                misses.append((name, old, info))
            else:
                message = "is no regular file; put the real file there"
                self.findings.append(
                    error(name, "symlink" if stat.S_ISLNK(info.st_mode) else "no-file", message)
                )
                taken.append((0, None, None))
        fresh = iter(self._read_all(misses))
        return (one if one is not None else next(fresh) for one in taken)

    def _take_given(self, name: str) -> _Taken:
        """Hash a content that is no file's; its faults were reported where it came from."""
        data = self.given[name]
        return len(data), self.inspector.facts_of(data), Entry(NEVER, hashlib.sha256(data).digest())

    def _settled(self, name: str, old: Entry) -> bool:
        """Whether nothing more is to be learnt about content that is as it was."""
        return old.context == self.context or not self.inspector.wants(name)

    def _read_all(self, misses: list[tuple[str, Entry | None, os.stat_result]]) -> Iterator[_Taken]:
        if len(misses) < 2 or sum(miss[2].st_size for miss in misses) < _PARALLEL * len(misses):
            return (self._keep(self._read(*miss)) for miss in misses)
        if self._pool is None:
            self._pool = self.stack.enter_context(ThreadPoolExecutor(os.cpu_count() or 1))
        return map(self._keep, self._pool.map(lambda miss: self._read(*miss), misses))

    def _keep(self, read: tuple[_Taken, list[Finding]]) -> _Taken:
        self.findings += read[1]
        return read[0]

    def _read(self, name: str, old: Entry | None, info: os.stat_result) -> tuple[_Taken, list[Finding]]:
        """Hash one file and inspect it, in one opening."""
        size = info.st_size
        refused = self.inspector.refuses(name, size)
        if refused:
            return (size, None, None), refused
        try:
            handle = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as fault:
            return (0, None, None), [_unreadable(name, fault)]
        try:
            sha256, read, length = _hash(handle, size)
            if length != size:
                message = "changed while it was read; run again when nothing writes to the dataset"
                return (0, None, None), [error(name, "changed", message)]
            remembered = believable(stat_of(info), self._started)
            # A fresh checkout: every stat is new and no content is, so that no picture is checked again.
            if old is not None and old.sha256 == sha256 and self._settled(name, old):
                entry = Entry(remembered, sha256, old.context, old.facts)
                return (size, old.facts if old.context else None, entry), []
            if not self.inspector.wants(name):
                return (size, None, Entry(remembered, sha256)), []
            facts, findings, clean = self.inspector.inspect(name, read, size)
            entry = Entry(remembered, sha256, self.context, facts) if clean else Entry(remembered, sha256)
        except OSError as fault:
            return (0, None, None), [_unreadable(name, fault)]
        else:
            return (size, facts, entry), findings
        finally:
            os.close(handle)


def _hash(handle: int, size: int) -> tuple[bytes, Read, int]:
    """Return sha256, a way to read again, and the length found (one more than `size` where there is more)."""
    if size <= _WHOLE:
        data = os.read(handle, size + 1)  # a byte too many shows that the file grew
        while len(data) < size and (more := os.read(handle, size + 1 - len(data))):
            data += more
        return hashlib.sha256(data).digest(), lambda offset, length: data[offset : offset + length], len(data)
    digest, length, buffer = hashlib.sha256(), 0, memoryview(bytearray(_BUFFER))
    while got := os.readv(handle, [buffer]):
        digest.update(buffer[:got])
        length += got
    return digest.digest(), lambda offset, length: os.pread(handle, length, offset), length


def _unreadable(name: str, fault: OSError) -> Finding:
    return error(name, "unreadable-file", f"cannot be read ({fault.strerror}); see to its permissions")
