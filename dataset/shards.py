"""A training tree in shards: groups of its files that are packed, stored and read one by one.

Which files make a shard depends on the paths and sizes of its neighbourhood alone, so that a dataset that changed has
nearly all shards in common with the one before.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gpu_offload.dataset.archive import description_of
from gpu_offload.dataset.tree_manifest import TreeFile, read_tree

MOST: Final = 32 << 20
"""Bytes of a shard, unless a single file is larger."""

LEAST: Final = 8 << 20
SPREAD: Final = 16 << 20
"""Bytes beyond `LEAST` after which a shard ends on average."""

HEADER: Final = 1024
"""Bytes that a file takes in an archive beside its content, about."""

Shard = tuple[TreeFile, ...]


def shards_of(tree: Path) -> list[Shard]:
    """Return the shards of a tree; the first is its description alone. Raises DatasetError where it is no tree."""
    return [(description_of(tree),), *divided(sorted(read_tree(tree).files(), key=lambda one: one.path))]


def divided(files: Iterable[TreeFile]) -> list[Shard]:
    """Divide sorted files: some paths begin a shard by their hash, as in content-defined chunking."""
    shards: list[Shard] = []
    shard: list[TreeFile] = []
    filled = 0
    for file in files:
        size = file.size + HEADER
        if shard and (filled + size > MOST or (filled >= LEAST and _begins(file.path, size))):
            shards.append(tuple(shard))
            shard, filled = [], 0
        shard.append(file)
        filled += size
    return [*shards, tuple(shard)] if shard else shards


def shard_id(shard: Shard) -> str:
    """Return the sha256 of the list of a shard's files, which determines every byte of its archive."""
    lines = "".join(f"{file.sha256} {file.size} {file.path}\n" for file in shard)
    return hashlib.sha256(lines.encode()).hexdigest()


def _begins(path: str, size: int) -> bool:
    # A larger file begins a shard more often, so that shards have about the same size and not the same number of files.
    chance = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8]) / 2**64
    return chance * SPREAD < size
