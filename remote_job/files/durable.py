"""Files that are whole or absent after a crash, however the process ended."""

import hashlib
import os
import shutil
from pathlib import Path

from gpu_offload.infra.store.files import sync_folder


def write(path: Path, data: bytes | memoryview, *, durable: bool = True) -> None:
    """Replace a file in one step: temporary file, fsync, rename, fsync of the folder, which is created.

    Where it need not be `durable`, the rename is still atomic against a killed process, but a power cut may bring the
    old file back. Heartbeats need no more.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)  # noqa: PTH105 - the crash tests count the calls of `os`
    if durable:
        sync_folder(path.parent)


def copy(source: Path, path: Path) -> None:
    """Replace a file in one step by a copy of another, however large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with source.open("rb") as reading, temporary.open("wb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())
    os.replace(temporary, path)  # noqa: PTH105 - as above
    sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed process left behind."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Return a file's sha256 as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
