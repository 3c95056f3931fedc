"""Every file of a dataset with its sha256, read only where the stat cache cannot vouch for it."""

import zlib
from array import array
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gpu_offload.dataset.finding import Findings
from gpu_offload.dataset.inventory_reader import CHUNK, Inspector, Known, Reader
from gpu_offload.dataset.paths import Names
from gpu_offload.dataset.stat_cache import CacheWriter


@dataclass(frozen=True, slots=True)
class FileTable:
    """Columns over the files in order of their paths. `facts` holds three numbers a file, `checked` whether."""

    names: Names
    sha256: bytearray
    sizes: "array[int]"  # quoted: no subscript at run time before Python 3.12
    facts: "array[int]"
    checked: bytearray

    def sha_hex(self, index: int) -> str:
        """Return a file's sha256 as 64 hexadecimal digits."""
        return self.sha256[32 * index : 32 * index + 32].hex()


def context_of(*words: object) -> int:
    """Return the number under which facts are remembered; other words, other checks. Never 0."""
    return zlib.crc32(repr(words).encode()) or 1


def take_inventory(
    root: Path,
    names: Names,
    *,
    inspector: Inspector,
    context: int,
    cache: Path | None,
    findings: Findings,
    given: Mapping[str, bytes] = MappingProxyType({}),
) -> FileTable:
    """Hash the files `names` below `root`, and look into those that `inspector` wants.

    A file that the cache vouches for is not opened if it was found clean under the same `context`. What is wrong
    with a file is appended to `findings`. The cache is rewritten if anything changed. Contents in `given` are used
    in place of a file's.
    """
    count = len(names)
    result = FileTable(
        names,
        bytearray(32 * count),
        array("Q", bytes(8 * count)),
        array("I", bytes(12 * count)),
        bytearray(count),
    )
    known = Known(cache)
    position, changed = 0, False
    with ExitStack() as stack:
        reader = Reader(root, inspector, context, findings, stack, given)
        writer = stack.enter_context(CacheWriter(cache)) if cache is not None else None
        for start in range(0, count, CHUNK):
            chunk = names[start : start + CHUNK]
            olds = [known.entry(name) for name in chunk]
            for name, old, (size, facts, entry) in zip(chunk, olds, reader.take(chunk, olds), strict=True):
                if entry is not None:
                    result.sha256[32 * position : 32 * position + 32] = entry.sha256
                    result.sizes[position] = size
                    if writer is not None:
                        writer.add(name, entry)
                if facts is not None:
                    result.facts[3 * position : 3 * position + 3] = array("I", facts)
                    result.checked[position] = 1
                changed = changed or entry is not old
                position += 1
        if writer is not None and (changed or known.leftover()):
            writer.commit()
    return result
