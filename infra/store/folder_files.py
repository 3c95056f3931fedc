"""The files of a folder store: written whole, under one lock, walked in the order of their keys."""

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from gpu_offload.infra.store.errors import ObjectKeyError, ObjectMissingError, StoreDeniedError, StoreError
from gpu_offload.infra.store.files import sync_folder
from gpu_offload.infra.store.protocol import check_key


class FolderFiles:
    """Files below one folder, by key.

    A write goes to a temporary file, which is renamed under a lock that all writers of the folder take; so it is
    there whole or not at all, whatever dies and whenever. The lock is the kernel's (flock), which a dead process
    no longer holds.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        self._ready = False

    def path(self, key: str) -> Path:
        """Return a key's path. Raises ObjectKeyError."""
        path = self.root / check_key(key)
        # A checkout that is a stranger's may hold the folder, and a link in it would lead elsewhere.
        if os.path.realpath(path) != str(path):
            raise ObjectKeyError(f"{path}: a symbolic link in the store; remove it")
        return path

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """Open a file for reading. Raises ObjectMissingError."""
        path = self.path(key)
        try:
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectMissingError.at(str(path)) from None
        except OSError as error:
            raise _as_store_error(path, error) from error
        with file:
            yield file

    def keys(self, folder: str, beginning: str = "") -> Iterator[str]:
        """Walk the files below a folder ("" for all) in the order of their keys' bytes.

        Files and folders right below it whose name does not begin with `beginning` are not looked into.
        """
        try:
            entries = list(os.scandir(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _as_store_error(self.root / folder, error) from error
        names = []
        for entry in entries:
            if (not folder and entry.name.startswith(".")) or not entry.name.startswith(beginning):
                continue
            if entry.is_dir(follow_symlinks=False):
                names.append(entry.name + "/")  # compared with its slash: `a-b` comes before `a/b`
            elif entry.is_file(follow_symlinks=False):
                names.append(entry.name)
        for name in sorted(names, key=os.fsencode):
            key = f"{folder}/{name}" if folder else name
            if name.endswith("/"):
                yield from self.keys(key.removesuffix("/"))
            else:
                yield key

    @contextmanager
    def write(
        self, key: str, fill: Callable[[BinaryIO], object], check: Callable[[Path, Path], bool] | None = None
    ) -> Iterator[BinaryIO]:
        """Fill a temporary file; if `check(path, temporary)` agrees under the lock, rename it. Yield what is there."""
        path = self.path(key)
        with _store_errors(path), self._temporary() as (temporary, file):
            # Filled outside of the lock, which a large upload would hold for minutes.
            fill(file)
            file.flush()
            os.fsync(file.fileno())
            with self._locked():
                if check is None or check(path, temporary):
                    self._make_folders(path.parent)
                    temporary.replace(path)
                    sync_folder(path.parent)
                # Still under the lock: another writer could replace it before its etag is read.
                with path.open("rb") as written:
                    yield written

    def delete(self, key: str) -> None:
        """Remove a file and the folders that it leaves empty; no error where there is none."""
        path = self.path(key)
        if not self.root.is_dir():
            return
        with _store_errors(path), self._locked():
            with suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
            folder = path.parent
            while folder != self.root:
                try:
                    folder.rmdir()  # so that a key's folder may become a key, as in a bucket
                except FileNotFoundError:
                    pass
                except OSError:
                    break
                folder = folder.parent
            if folder.is_dir():
                sync_folder(folder)

    def _make_folders(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            new.mkdir()
            sync_folder(new.parent)

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        """Open a temporary file that only its living writer keeps locked."""
        self._prepare()
        temporary = self.root / ".tmp" / secrets.token_hex(8)
        # Under the lock, so that `_prepare` of another process never finds it before it is locked itself.
        with self._locked():
            file = temporary.open("xb")
            fcntl.flock(file, fcntl.LOCK_EX)
        with file:
            try:
                yield temporary, file
            finally:
                temporary.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._plain(".lock", os.O_RDWR | os.O_CREAT) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _plain(self, name: str, flags: int) -> Iterator[int]:
        """Open a file or folder of the store's own; never through a link, which could lead to the user's files."""
        try:
            descriptor = os.open(self.root / name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise StoreError(f"{self.root / name}: a symbolic link in the store; remove it") from error
            raise
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _prepare(self) -> None:
        """Make the folder on the first write, and remove what killed writers left."""
        if self._ready:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        if {path.name for path in self.root.iterdir()} <= {".gitignore"}:
            # A new folder hides itself from git; a folder with other content is left as it is.
            with self._plain(".gitignore", os.O_RDWR | os.O_CREAT) as ignore:
                if not os.fstat(ignore).st_size:
                    os.write(ignore, b"*\n")
        with suppress(FileExistsError):
            (self.root / ".tmp").mkdir()
        with self._locked(), self._plain(".tmp", os.O_RDONLY | os.O_DIRECTORY) as folder:
            for name in os.listdir(folder):  # noqa: PTH208 - of a descriptor
                # One that is locked has a living writer, and may just have been renamed or removed by it; a link is
                # not the store's, and is not followed.
                with suppress(OSError):
                    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(name, dir_fd=folder)
                    finally:
                        os.close(file)
        self._ready = True


@contextmanager
def _store_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _as_store_error(path, error) from error


def _as_store_error(path: Path, error: OSError) -> StoreError:
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return StoreDeniedError(
            f"{error.filename or path}: {reason}: give this user access to the store's folder"
        )
    if isinstance(error, (FileExistsError, NotADirectoryError, IsADirectoryError)):
        return StoreError(f"{path}: {reason}: an object cannot be another object's folder")
    return StoreError(f"{error.filename or path}: {reason}")
