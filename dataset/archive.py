"""A training tree as one file: a reproducible tar that nothing can be smuggled in with.

`dataset.json` comes first. It says which files follow, with size and sha256, and the fingerprint follows from it:
the fingerprint determines every byte that may come out of the archive; anything else is refused.
"""

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from gpu_offload.dataset.finding import DatasetError, error
from gpu_offload.dataset.tree_manifest import DESCRIPTION, TreeFile, read_tree
from gpu_offload.dataset.unpacking import BUFFER, unpacking


def pack(tree: Path, target: Path) -> str:
    """Write the training tree as an uncompressed tar and return the tar's sha256 as hexadecimal digits.

    The same tree gives the same bytes on every machine: entries are sorted and have no time, owner or mode of
    their own. Pictures do not compress, so nothing is compressed. Every file is verified as it is read; what the
    tree's description does not name (a cache, say) is left out. `target` appears only when it is complete.

    Raises:
        DatasetError: If `tree` is no tree, or a file in it is not what its description says.
    """
    files = sorted(read_tree(tree).files(), key=lambda one: one.path)
    return pack_files(tree, [description_of(tree), *files], target)


def description_of(tree: Path) -> TreeFile:
    """Return the tree's own description as one of its files."""
    body = (tree / DESCRIPTION).read_bytes()
    return TreeFile(DESCRIPTION, DESCRIPTION, hashlib.sha256(body).hexdigest(), len(body))


def packed_size(files: Iterable[TreeFile]) -> int:
    """Return the bytes of the archive that `pack_files` makes of these files."""
    blocks = sum(
        len(_entry(file.path, file.size).tobuf(tarfile.PAX_FORMAT)) + _padded(file.size, tarfile.BLOCKSIZE)
        for file in files
    )
    return _padded(blocks + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE)


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def pack_files(tree: Path, files: Iterable[TreeFile], target: Path) -> str:
    """Write some files of a tree, in this order, under the rules of `pack`. Raises DatasetError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            sink = _HashingSink(file)
            with tarfile.open(mode="w|", fileobj=sink, format=tarfile.PAX_FORMAT, bufsize=BUFFER) as archive:
                for member in files:
                    _add(archive, tree, member)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)  # the archive is on the disk by now: a name without content cannot be left
    finally:
        temporary.unlink(missing_ok=True)
    return sink.digest.hexdigest()


def unpack(archive: Path, directory: Path, *, fingerprint: str) -> None:
    """Make `directory` the training tree that is in `archive`, or leave no trace.

    Args:
        archive: A file that `pack` wrote, perhaps damaged or forged since.
        directory: The tree's folder; an older tree there is replaced.
        fingerprint: The dataset's expected fingerprint.

    Raises:
        CorruptArchiveError: If the archive is cut off, holds anything but the files of a tree of this fingerprint,
            or one of them is not what it must be.
    """
    with unpacking(directory, fingerprint=fingerprint) as unpacked:
        unpacked.add(archive, str(archive))


class _HashingSink(io.RawIOBase):
    """Hashes what goes through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:  # type: ignore[override]  # tarfile only ever writes bytes
        self.digest.update(data)
        return self._file.write(data)


class _VerifyingSource(io.RawIOBase):
    """Hashes what is read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    return entry  # time, owner and group are 0 and without a name


def _add(archive: tarfile.TarFile, tree: Path, member: TreeFile) -> None:
    with (tree / member.path).open("rb") as file:
        source = _VerifyingSource(file)
        whole = os.fstat(file.fileno()).st_size == member.size
        if whole:
            archive.addfile(_entry(member.path, member.size), source)
    if not whole or source.digest.hexdigest() != member.sha256:
        message = "was changed since the tree was made; remove the tree and make it again"
        raise DatasetError([error(member.path, "changed", message)])
