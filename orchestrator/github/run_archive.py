"""The archive of a training's unfinished runs: an uncompressed tar, which a training may have forged."""

import re
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from gpu_offload.infra.store.errors import CorruptObjectError
from gpu_offload.infra.store.protocol import ObjectStore

MOST_MEMBERS = 10_000
"""Files of an archive: a run has a few for each of its attempts, and two checkpoints."""

STAGED = re.compile(r"runs/[^/]+/(result/.*|collected\.json)")
"""A staged result is left out, so that only results of a training on the same machine are published."""


def pack(store: ObjectStore, prefix: str, path: Path) -> None:
    """Write a store's objects below a prefix into an archive."""
    with tempfile.TemporaryDirectory(prefix="offload-") as scratch, tarfile.open(path, "w:") as tar:
        for info in store.list(prefix):
            if STAGED.fullmatch(info.key):
                continue
            file = Path(scratch) / "object"
            store.download(info.key, file)
            tar.add(file, info.key)


def check(path: Path, *, only: str) -> None:
    """Read an archive's headers and refuse what `pack` does not write; names begin with `only` (`runs/0123456789ab-`).

    Raises CorruptObjectError: it is compressed, claims more than its size, or has other members than files of these runs.
    """
    name = re.compile(re.escape(only) + r"[0-9]+(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
    left, count = path.stat().st_size, 0
    files: set[str] = set()
    folders: set[str] = set()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                count += 1
                left -= member.size
                # A forged header claims any size, and a sparse member unpacks to more than the archive holds.
                if count > MOST_MEMBERS or left < 0 or member.size < 0:
                    raise CorruptObjectError(f"{path.name} holds more than an archive of its size can")
                if not member.isreg() or member.issparse() or not name.fullmatch(member.name):
                    raise CorruptObjectError(f"{path.name} holds {member.name!r}, which is none of {only}*")
                above = {str(parent) for parent in PurePosixPath(member.name).parents}
                if member.name in files or member.name in folders or not above.isdisjoint(files):
                    raise CorruptObjectError(
                        f"{path.name} holds {member.name!r} twice, or as file and folder"
                    )
                files.add(member.name)
                folders |= above
                if STAGED.fullmatch(member.name):
                    raise CorruptObjectError(f"{path.name} holds the staged result {member.name!r}")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise CorruptObjectError(f"{path.name} is no archive of unfinished runs: {error}") from error


def unpack(path: Path, folder: Path, *, only: str) -> None:
    """Unpack an archive into a folder. Raises CorruptObjectError as `check` does; then nothing is written."""
    check(path, only=only)
    with tarfile.open(path, "r:") as tar:
        tar.extractall(folder, filter="data")
