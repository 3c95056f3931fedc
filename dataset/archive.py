"""A training tree as one file: a reproducible tar that nothing can be smuggled in with.

`dataset.json` comes first. It says which files follow, with size and sha256, and the fingerprint follows from it:
the fingerprint determines every byte that may come out of the archive; anything else is refused.
"""

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from gpu_offload.dataset.finding import DatasetError, error
from gpu_offload.dataset.tree import replace_tree
from gpu_offload.dataset.tree_files import make_folders
from gpu_offload.dataset.tree_manifest import DESCRIPTION, TreeFile, TreeInfo, decode, encode, read_tree
from gpu_offload.errors import OffloadError

MAX_DESCRIPTION: Final = 1 << 30
MAX_BYTES: Final = 1 << 40

_BUFFER: Final = 1 << 20
_FAULTS = (tarfile.TarError, ValueError, TypeError, KeyError, AttributeError, RecursionError, EOFError)


class CorruptArchiveError(OffloadError):
    """The archive is not what it must be; nothing of it was kept."""


def pack(tree: Path, target: Path) -> str:
    """Write the training tree as an uncompressed tar and return the tar's sha256 as hexadecimal digits.

    The same tree gives the same bytes on every machine: entries are sorted and have no time, owner or mode of
    their own. Pictures do not compress, so nothing is compressed. Every file is verified as it is read; what the
    tree's description does not name (a cache, say) is left out. `target` appears only when it is complete.

    Raises:
        DatasetError: If `tree` is no tree, or a file in it is not what its description says.
    """
    info = read_tree(tree)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            sink = _HashingSink(file)
            with tarfile.open(mode="w|", fileobj=sink, format=tarfile.PAX_FORMAT, bufsize=_BUFFER) as archive:
                description = (tree / DESCRIPTION).read_bytes()
                archive.addfile(_entry(DESCRIPTION, len(description)), io.BytesIO(description))
                for member in sorted(info.files(), key=lambda one: one.path):
                    _add(archive, tree, member)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return sink.digest.hexdigest()


def unpack(archive: Path, directory: Path, *, fingerprint: str) -> None:
    """Make `directory` the training tree that is in `archive`, or leave no trace.

    Args:
        archive: A file that `pack` wrote, perhaps damaged or forged since.
        directory: Where the tree shall be; a tree that is there is replaced.
        fingerprint: What the dataset's fingerprint must be.

    Raises:
        CorruptArchiveError: If the archive is cut off, holds anything but the files of a tree of this fingerprint,
            or one of them is not what it must be.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        work.chmod(0o755)
        try:
            _check_beginning(archive)
            # "r|" only ever reads forward, and the header of a sparse or linked member is refused before its body.
            with tarfile.open(archive, mode="r|", bufsize=_BUFFER) as tar:
                _unpack(tar, work, fingerprint, archive.stat().st_size)
        except _FAULTS as fault:
            reason = str(fault) or type(fault).__name__
            raise CorruptArchiveError(
                f"{archive}: no dataset archive ({reason}); stage the dataset again"
            ) from None
        replace_tree(work, directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_beginning(archive: Path) -> None:
    """See that the first header is the description's own: tarfile would read an extended one of any length."""
    with archive.open("rb") as file:
        header = file.read(512)
    if header[:100].rstrip(b"\0") != DESCRIPTION.encode() or header[156:157] not in (b"0", b"\0"):
        raise ValueError(f"{DESCRIPTION} does not come first")


def _unpack(tar: tarfile.TarFile, work: Path, fingerprint: str, size: int) -> None:
    members = _members(tar)
    first = next(members, None)
    if first is None or first.name != DESCRIPTION or first.size > MAX_DESCRIPTION:
        raise ValueError(f"{DESCRIPTION} does not come first")
    description = _body(tar, first).read()
    info = decode(description, work)
    if info.fingerprint != fingerprint:
        raise ValueError(f"it holds the dataset {info.fingerprint[:12]}, not {fingerprint[:12]}")
    # The fingerprint covers the files; the rest of the description must follow from them to the byte.
    if encode(info) != description:
        raise ValueError(f"{DESCRIPTION} is damaged")
    expected = _expected(info)
    # A header, an extended header with the name in it, and padding: what a file may take beyond its content.
    room = len(description) + sum(
        file.size + 4096 + 8 * len(file.path.encode()) for file in expected.values()
    )
    if size > min(room + 4096 + tarfile.RECORDSIZE, MAX_BYTES):
        raise ValueError("it is larger than its files")
    make_folders(work, info)
    for member in members:
        file = expected.pop(member.name, None)
        if file is None or member.size != file.size:
            raise ValueError(f"{member.name[:200]!r} does not belong in it")
        if _write(_body(tar, member), work / file.path) != file.sha256:
            raise ValueError(f"{file.path} is damaged")
    if expected:
        raise ValueError(f"{len(expected)} files are missing, {min(expected)} among them")
    (work / DESCRIPTION).write_bytes(description)


def _expected(info: TreeInfo) -> dict[str, TreeFile]:
    """Return the files by path; a path that is also another's folder, or the description's, cannot be written."""
    files = {file.path: file for file in info.files()}
    for path in files:
        parts = path.split("/")
        if path == DESCRIPTION or any("/".join(parts[:depth]) in files for depth in range(1, len(parts))):
            raise ValueError(f"{path!r} cannot be a file")
    return files


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members, each of which must be a plain file."""
    while (member := tar.next()) is not None:
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
            raise ValueError(f"{member.name[:200]!r} is no plain file")
        yield member
        vars(tar)["members"] = []  # else tarfile remembers every member of a long archive


def _body(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    body = tar.extractfile(member)
    if body is None:
        raise ValueError(f"{member.name[:200]!r} is no plain file")
    return body


def _write(body: IO[bytes], path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("xb") as file:
        while piece := body.read(_BUFFER):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


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
