"""An object store in a folder: the default, for which nobody needs an account."""

import errno
import fcntl
import filecmp
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectKeyError,
    ObjectMissingError,
    StoreDeniedError,
    StoreError,
)
from gpu_offload.infra.store.files import sync_folder, write_verified
from gpu_offload.infra.store.protocol import ObjectInfo, check_key, check_prefix

HASHED_BELOW = 1 << 20
"""Bytes up to which an etag is of the content. A larger file is told by its inode, which every write renews, so
that listing a store of datasets does not read them all."""

CHUNK = 1 << 20


class FolderStore:
    """Objects as files below one folder.

    A write goes to a temporary file, which is renamed under a lock that all writers of the folder take; so it is
    there whole or not at all, whatever dies and whenever. The lock is the kernel's (flock), which a dead process
    no longer holds.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        self.url = self.root.as_uri()
        self._ready = False

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag. Raises ObjectMissingError."""
        with self._open(key) as file:
            body = file.read()
            return body, _etag(file, body)

    def stat(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, None where there is none."""
        try:
            with self._open(key) as file:
                return _info(key, file)
        except ObjectMissingError:
            return None

    def put(self, key: str, body: bytes) -> str:
        """Write, whatever was there; return the etag."""
        return self._write(key, lambda file: file.write(body)).etag

    def create(self, key: str, body: bytes) -> str:
        """Write once; return the etag. Raises ObjectExistsError where other bytes are there."""

        def check(path: Path, temporary: Path) -> bool:
            return self._check_created(key, path, temporary)

        return self._write(key, lambda file: file.write(body), check).etag

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write if the object still has this etag; return the new one. Raises ObjectChangedError."""

        def check(path: Path, temporary: Path) -> bool:
            info = self.stat(key)
            if info is None:
                raise ObjectChangedError(
                    f"{path}: somebody deleted it in between; read again and decide again"
                )
            if info.etag == etag:
                return True
            if filecmp.cmp(path, temporary, shallow=False):
                return False
            raise ObjectChangedError(f"{path}: somebody wrote it in between; read again and decide again")

        return self._write(key, lambda file: file.write(body), check).etag

    def upload(self, key: str, path: Path, *, create: bool = False) -> ObjectInfo:
        """Write a file, streaming; with `create`, once, under the rule of `create`."""

        def check(target: Path, temporary: Path) -> bool:
            return self._check_created(key, target, temporary)

        def fill(file: BinaryIO) -> None:
            with path.open("rb") as source:
                shutil.copyfileobj(source, file, CHUNK)

        return self._write(key, fill, check if create else None)

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        """Read into a temporary file, verify, then rename to `path`. Raises CorruptObjectError, ObjectMissingError."""
        with self._open(key) as file:
            chunks = iter(lambda: file.read(CHUNK), b"")
            write_verified(str(self.root / key), chunks, path, size=size, sha256=sha256)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield objects whose key starts with `prefix`, in key order. Not a snapshot: what is deleted is left out."""
        folder = check_prefix(prefix).rpartition("/")[0]
        for key in self._keys(folder):
            if key.startswith(prefix):
                info = self.stat(key)
                if info is not None:
                    yield info

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""
        path = self._path(key)
        if not self.root.is_dir():
            return
        with self._translated(path), self._locked():
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

    def public_url(self, key: str) -> str | None:
        """Return None: nobody else reads this folder."""
        check_key(key)
        return None

    # ---------------------------------------------------------------------------------------- inside

    def _path(self, key: str) -> Path:
        path = self.root / check_key(key)
        if os.path.realpath(path) != str(path):
            raise ObjectKeyError(f"{path}: a symbolic link in the store; remove it")
        return path

    @contextmanager
    def _open(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        try:
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectMissingError(f"{path}: there is no such object in the store") from None
        except OSError as error:
            raise _told(path, error) from error
        with file:
            yield file

    def _keys(self, folder: str) -> Iterator[str]:
        """Walk the files below a folder ("" for all) in the order of their keys' bytes."""
        try:
            entries = list(os.scandir(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _told(self.root / folder, error) from error
        names = []
        for entry in entries:
            if not folder and entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                names.append(entry.name + "/")  # compared with its slash: `a-b` comes before `a/b`
            elif entry.is_file(follow_symlinks=False):
                names.append(entry.name)
        for name in sorted(names, key=os.fsencode):
            key = f"{folder}/{name}" if folder else name
            if name.endswith("/"):
                yield from self._keys(key.removesuffix("/"))
            else:
                yield key

    def _write(
        self,
        key: str,
        fill: Callable[[BinaryIO], object],
        check: Callable[[Path, Path], bool] | None = None,
    ) -> ObjectInfo:
        """Fill a temporary file, then, if `check(path, temporary)` says so under the lock, rename it to the key."""
        path = self._path(key)
        with self._translated(path), self._temporary() as (temporary, file):
            fill(file)
            file.flush()
            os.fsync(file.fileno())
            with self._locked():
                if check is None or check(path, temporary):
                    self._make_folders(path.parent)
                    temporary.replace(path)
                    sync_folder(path.parent)
                with path.open("rb") as written:
                    return _info(key, written)

    def _check_created(self, key: str, path: Path, temporary: Path) -> bool:
        if not path.is_file():
            return True
        if filecmp.cmp(path, temporary, shallow=False):
            return False
        raise ObjectExistsError(
            f"{path}: the object {key!r} exists with other content and is written only once"
        )

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
        """Open a file or folder of ours in the store's folder; never through a link."""
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
        """Make the folder on the first write, and clear what writers that were killed have left."""
        if self._ready:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        if {path.name for path in self.root.iterdir()} <= {".gitignore"}:
            # Ours alone, so git need not know; a folder that somebody else made is left as it is.
            with self._plain(".gitignore", os.O_RDWR | os.O_CREAT) as ignore:
                if not os.fstat(ignore).st_size:
                    os.write(ignore, b"*\n")
        with suppress(FileExistsError):
            (self.root / ".tmp").mkdir()
        with self._locked(), self._plain(".tmp", os.O_RDONLY | os.O_DIRECTORY) as folder:
            for name in os.listdir(folder):  # noqa: PTH208 - of a descriptor
                # One that is locked has a living writer, and may just have been renamed or removed by it; a link is
                # none of ours, and is not followed.
                with suppress(OSError):
                    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(name, dir_fd=folder)
                    finally:
                        os.close(file)
        self._ready = True

    @contextmanager
    def _translated(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _told(path, error) from error


def _told(path: Path, error: OSError) -> StoreError:
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return StoreDeniedError(
            f"{error.filename or path}: {reason}: give this user the right to the store's folder"
        )
    if isinstance(error, (FileExistsError, NotADirectoryError, IsADirectoryError)):
        return StoreError(f"{path}: {reason}: an object cannot be another object's folder")
    return StoreError(f"{error.filename or path}: {reason}")


def _etag(file: BinaryIO, body: bytes | None = None) -> str:
    status = os.fstat(file.fileno())
    if status.st_size > HASHED_BELOW:
        return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
    return hashlib.sha256(file.read() if body is None else body).hexdigest()[:32]


def _info(key: str, file: BinaryIO) -> ObjectInfo:
    status = os.fstat(file.fileno())
    return ObjectInfo(key, status.st_size, _etag(file), datetime.fromtimestamp(status.st_mtime, UTC))
