"""Unpacks a training tree from archives that may be damaged or forged."""

import hashlib
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from gpu_offload.dataset.tree import replace_tree
from gpu_offload.dataset.tree_files import make_folders
from gpu_offload.dataset.tree_manifest import DESCRIPTION, TreeFile, TreeInfo, decode, encode
from gpu_offload.errors import OffloadError

MAX_DESCRIPTION: Final = 1 << 30
MAX_BYTES: Final = 1 << 40

BUFFER: Final = 1 << 20
_FAULTS = (tarfile.TarError, ValueError, TypeError, LookupError, AttributeError, RecursionError, EOFError)


class CorruptArchiveError(OffloadError):
    """The archive is not what it must be; nothing of it was kept."""


@contextmanager
def unpacking(directory: Path, *, fingerprint: str) -> "Iterator[Unpacking]":
    """Make `directory` the training tree that is in several archives, or leave no trace: see `unpack`."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        work.chmod(0o755)  # the training reads it as another user
        unpacked = Unpacking(work, fingerprint)
        yield unpacked
        unpacked.finish()
        replace_tree(work, directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)


class Unpacking:
    """A tree that is unpacked: the first archive begins with the description, the others come in any order.

    After the first one, `add` may be called by several threads.
    """

    def __init__(self, work: Path, fingerprint: str) -> None:
        self._work = work
        self._fingerprint = fingerprint
        self._description = b""
        self._expected: dict[str, TreeFile] = {}
        self._room = 0
        self._lock = threading.Lock()

    def add(self, archive: Path, name: str) -> None:
        """Unpack an archive, called `name` in messages. Raises CorruptArchiveError."""
        with _refusal(name):
            begins = not self._description
            if begins:
                _check_beginning(archive)
            # "r|" only ever reads forward, and the header of a sparse or linked member is refused before its body.
            with tarfile.open(archive, mode="r|", bufsize=BUFFER) as tar:
                members = _members(tar)
                if begins:
                    self._begin(tar, next(members, None))
                self._take_room(archive.stat().st_size)
                some = begins
                for member in members:
                    self._unpack(tar, member)
                    some = True
                if not some:
                    raise ValueError("it is empty")

    def finish(self) -> None:
        """Complete the tree. Raises CorruptArchiveError where a file is missing."""
        with _refusal("the dataset"):
            if not self._description:
                raise ValueError(f"{DESCRIPTION} does not come first")
            if self._expected:
                raise ValueError(f"{len(self._expected)} files are missing, {min(self._expected)} among them")
        (self._work / DESCRIPTION).write_bytes(self._description)

    def _begin(self, tar: tarfile.TarFile, first: tarfile.TarInfo | None) -> None:
        if first is None or first.name != DESCRIPTION or first.size > MAX_DESCRIPTION:
            raise ValueError(f"{DESCRIPTION} does not come first")
        description = _body(tar, first).read()
        info = decode(description, self._work)
        if info.fingerprint != self._fingerprint:
            raise ValueError(f"it holds the dataset {info.fingerprint[:12]}, not {self._fingerprint[:12]}")
        # Fingerprint and paths follow from the files; the rest of the description must do so to the byte.
        if encode(info) != description:
            raise ValueError(f"{DESCRIPTION} is damaged")
        self._expected = _expected(info)
        # A header, an extended header with the name in it, and padding: what a file may take beyond its content.
        room = len(description) + sum(
            file.size + 4096 + 8 * len(file.path.encode()) for file in self._expected.values()
        )
        self._room = min(room + 4096, MAX_BYTES)
        make_folders(self._work, info)
        self._description = description

    def _take_room(self, size: int) -> None:
        """Count an archive's bytes, but for those of its end, against those that the files need."""
        with self._lock:
            self._room -= size - tarfile.RECORDSIZE
            if self._room < 0:
                raise ValueError("it is larger than its files")

    def _unpack(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        file = self._expected.pop(member.name, None)
        if file is None or member.size != file.size:
            raise ValueError(f"{member.name[:200]!r} does not belong in it")
        if _write(_body(tar, member), self._work / file.path) != file.sha256:
            raise ValueError(f"{file.path} is damaged")


@contextmanager
def _refusal(name: str) -> Iterator[None]:
    try:
        yield
    except _FAULTS as fault:
        reason = str(fault) or type(fault).__name__
        raise CorruptArchiveError(f"{name}: no dataset archive ({reason}); stage the dataset again") from None


def _check_beginning(archive: Path) -> None:
    """See that the first header is the description's own: tarfile would read an extended one of any length."""
    with archive.open("rb") as file:
        header = file.read(512)
    if header[:100].rstrip(b"\0") != DESCRIPTION.encode() or header[156:157] not in (b"0", b"\0"):
        raise ValueError(f"{DESCRIPTION} does not come first")


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
    with path.open("xb") as file:  # never through a link, or into a file that is there
        while piece := body.read(BUFFER):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()
