"""What was known of each file the last time, like git's index: a file whose stat has not moved is not read again.

File format, all little-endian: the magic, the number of entries, one fixed record each (sorted by path), the paths
with their lengths, and a sha256 over all of it. A file that does not verify is no cache. Reading and writing stream,
so memory does not grow with the dataset.
"""

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

_MAGIC: Final = b"gpu-offload stat cache 1\n"
_HEADER: Final = struct.Struct("<Q")
_RECORD: Final = struct.Struct("<QqqQQ32sIIIIH")
_CHUNK: Final = 4096

RACY_NS: Final = 50_000_000
"""A kernel stamps files with a clock that ticks every 1 to 10 ms; five ticks are safe."""
RACY_COARSE_NS: Final = 2_100_000_000
"""The same for file systems that stamp whole seconds (FAT: two)."""

Stat = tuple[int, int, int, int, int]
"""size, mtime_ns, ctime_ns, inode, device."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file as it was. `facts` were found under `context` (0: never checked, or not clean)."""

    stat: Stat
    sha256: bytes
    context: int = 0
    facts: tuple[int, int, int] = (0, 0, 0)


NEVER: Final[Stat] = (0, -1, -1, 0, 0)
"""A stat that no file has: the entry's sha256 and facts are kept, but the file is read again."""


def stat_of(info: os.stat_result) -> Stat:
    """Return the part of a stat that changes whenever the content may have."""
    return (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_dev)


def believable(stat: Stat, read_ns: int) -> Stat:
    """Return the stat to remember of a file whose content was read from `read_ns` (Unix time, ns) on.

    A file that was changed so shortly before, that a second change could have the same time stamp, is racy: NEVER
    is returned, and the next run reads it again.
    """
    newest = max(stat[1], stat[2])
    margin = RACY_COARSE_NS if stat[1] % 1_000_000_000 == 0 or stat[2] % 1_000_000_000 == 0 else RACY_NS
    return stat if newest < read_ns - margin else NEVER


def read_cache(path: Path | None) -> Iterator[tuple[str, Entry]]:
    """Yield path and entry, sorted by path; nothing where the file is missing, damaged or of another version."""
    if path is None:
        return
    try:
        with path.open("rb") as records, path.open("rb") as names:
            count = _verified(records)
            if count is None:
                return
            start = names.seek(len(_MAGIC) + _HEADER.size + count * _RECORD.size)
            yield from _entries(records, names, count, os.fstat(names.fileno()).st_size - 32 - start)
    except OSError:
        return


def _verified(file: BinaryIO) -> int | None:
    """Check the sha256 at the end, leave the file at its first record, and return the number of records."""
    size = os.fstat(file.fileno()).st_size
    start = len(_MAGIC) + _HEADER.size
    if size < start + 32 or file.read(len(_MAGIC)) != _MAGIC:
        return None
    (count,) = _HEADER.unpack(file.read(_HEADER.size))
    digest = hashlib.sha256(_MAGIC + _HEADER.pack(count))
    left = size - start - 32
    if left < count * _RECORD.size:
        return None
    while left:
        piece = file.read(min(left, 1 << 20))
        if not piece:
            return None
        digest.update(piece)
        left -= len(piece)
    if file.read() != digest.digest():
        return None
    file.seek(start)
    return int(count)


def _entries(records: BinaryIO, names: BinaryIO, count: int, left: int) -> Iterator[tuple[str, Entry]]:
    rest = b""
    done = 0
    pending: list[str] = []
    while done < count:
        chunk = records.read(_RECORD.size * min(_CHUNK, count - done))
        rows = list(_RECORD.iter_unpack(chunk))
        # Names have any length: as many are read as there are records in the chunk.
        while len(pending) < len(rows):
            piece = names.read(min(left, 1 << 18))
            left -= len(piece)
            *whole, rest = (rest + piece).split(b"\0")
            pending += [name.decode(errors="replace") for name in whole]
            if not piece:
                break
        for name, row in zip(pending, rows, strict=False):
            yield name, Entry(row[:5], row[5], row[9], row[6:9])
        done += len(rows)
        del pending[: len(rows)]
        if not rows:
            return


class CacheWriter:
    """Writes a cache beside the old one; `commit` puts it in its place, leaving the block without it drops it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        self._temporary = Path(name)
        self._file = os.fdopen(handle, "w+b")
        self._file.write(_MAGIC + _HEADER.pack(0))  # the number of entries is known at the end
        self._names = tempfile.SpooledTemporaryFile(max_size=1 << 22)  # noqa: SIM115 - closed in __exit__
        self._count = 0
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def add(self, name: str, entry: Entry) -> None:
        """Append an entry; names come sorted. A disk that is full costs the cache, and nothing else."""
        if self._failed:
            return
        try:
            self._file.write(_RECORD.pack(*entry.stat, entry.sha256, *entry.facts, entry.context, 0))
            self._names.write(name.encode() + b"\0")
        except OSError:
            self._failed = True
        self._count += 1

    def commit(self) -> None:
        """Make what was added the cache, in one rename."""
        if not self._failed:
            with suppress(OSError):
                self._write()

    def _write(self) -> None:
        self._names.seek(0)
        while piece := self._names.read(1 << 20):
            self._file.write(piece)
        self._file.seek(len(_MAGIC))
        self._file.write(_HEADER.pack(self._count))
        self._file.seek(0)
        digest = hashlib.sha256()
        while piece := self._file.read(1 << 20):
            digest.update(piece)
        self._file.write(digest.digest())
        self._file.flush()
        self._temporary.replace(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._file, self._names):
            with suppress(OSError):  # what is still buffered has no room
                file.close()
        with suppress(OSError):
            self._temporary.unlink()


def refresh(path: Path, stats: dict[str, tuple[bytes, Stat]]) -> None:
    """Replace the stat of entries whose content was read again and found the same.

    `stats` has for each path the sha256 that was found and a stat that `believable` has judged.
    """
    with CacheWriter(path) as writer:
        for name, entry in read_cache(path):
            fresh = stats.get(name)
            if fresh is not None and fresh[0] == entry.sha256:
                writer.add(name, Entry(fresh[1], entry.sha256, entry.context, entry.facts))
            else:
                writer.add(name, entry)
        writer.commit()
