"""Files that are whole or absent after a crash, however the process ended."""

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from gpu_offload.infra.store.files import sync_folder


def write(path: Path, data: bytes | memoryview, *, durable: bool = True) -> None:
    """Replace a file in one step: temporary file, fsync, rename, fsync of the folder, which is created.

    Where it need not be `durable`, the rename is still atomic against a killed process, but a power cut may bring the
    old file back. Heartbeats need no more.
    """
    with _replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    if durable:
        sync_folder(path.parent)


def copy(source: Path, path: Path) -> None:
    """Replace a file in one step by a copy of another, however large."""
    with _replacing(path) as temporary, source.open("rb") as reading, temporary.open("wb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())
    sync_folder(path.parent)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, which then takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # One for each thread: the heartbeat is written by two, and either would rename what the other has half written.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)  # noqa: PTH105 - the crash tests count the calls of `os`
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()  # on a full disk, half a file would take the next one's room
        raise


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed process left behind."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
