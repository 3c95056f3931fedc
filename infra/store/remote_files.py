"""An object store in the files of another machine or service, through fsspec: SFTP, Google Drive, Dropbox, and others.

There is no compare-and-swap: writers take the store's lock (`remote_lock`).
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
)
from gpu_offload.infra.store.files import (
    HASHED_BELOW,
    chunks_of,
    digest_of,
    etag_of,
    read_document,
    write_verified,
)
from gpu_offload.infra.store.protocol import ObjectInfo, check_key, check_prefix
from gpu_offload.infra.store.remote_connection import RemoteConnection
from gpu_offload.infra.store.remote_lock import LOCK_S, RemoteLock

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class RemoteFiles:
    """Objects as files below one folder of an fsspec file system.

    A write goes to a temporary file first, which is renamed under the lock; a server that renames in one step (SFTP)
    shows every object whole or not at all.
    """

    def __init__(self, url: str, *, lock_s: float = LOCK_S) -> None:
        self._connection = RemoteConnection(url)
        self._lock = RemoteLock(self._connection, lock_s)
        self.url, self.root = self._connection.url, self._connection.root

    @property
    def _files(self) -> "AbstractFileSystem":
        return self._connection.files

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag. Raises ObjectMissingError."""
        with self._connection.errors(key):
            body = read_document(f"{self.url}/{key}", self._chunks(key))
            return body, etag_of(body)

    def stat(self, key: str) -> ObjectInfo | None:
        """Return an object's metadata, None where there is none."""
        try:
            with self._connection.errors(key):
                info = self._files.info(self._path(key))
                return self._info(key, info) if info["type"] == "file" else None
        except ObjectMissingError:
            return None

    def put(self, key: str, body: bytes) -> str:
        """Write or overwrite; return the etag."""
        self._write(key, [body], lambda: True)
        return etag_of(body)

    def create(self, key: str, body: bytes) -> str:
        """Write once; return the etag. Raises ObjectExistsError where other bytes are there."""
        self._write(key, [body], lambda: self._is_free(key, hashlib.sha256(body).hexdigest()))
        return etag_of(body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write if the object still has this etag; return the new one. Raises ObjectChangedError."""

        def check() -> bool:
            try:
                found, now = self.read(key)
            except ObjectMissingError:
                raise ObjectChangedError.at(f"{self.url}/{key}") from None
            if now == etag:
                return True
            if found == body:
                return False
            raise ObjectChangedError.at(f"{self.url}/{key}")

        self._write(key, [body], check)
        return etag_of(body)

    def upload(self, key: str, path: Path, *, create: bool = False) -> ObjectInfo:
        """Write a file, streaming; with `create`, once, under the rule of `create`."""
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0)
                return self._write(key, chunks_of(file), lambda: not create or self._is_free(key, sha256))
        except FileNotFoundError as error:
            raise StoreError(f"{path}: {error.strerror or error}") from error

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        """Read into a temporary file, verify, then rename to `path`. Raises CorruptObjectError, ObjectMissingError."""
        write_verified(f"{self.url}/{key}", self._chunks(key), path, size=size, sha256=sha256)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield objects whose key starts with `prefix`, in key order; what is deleted meanwhile is left out."""
        folder = check_prefix(prefix).rpartition("/")[0]
        with self._connection.errors(prefix or "."):
            found = self._files.find(f"{self.root}/{folder}".rstrip("/"), detail=True)
            # A walk does not see one moment: what goes while its etag is read is left out.
            start = len(self.root) + 1
            named = {path[start:]: info for path, info in found.items() if info["type"] == "file"}
            keys = sorted(
                (k for k in named if k.startswith(prefix) and not k.startswith(".")), key=str.encode
            )
            infos = []
            for key in keys:
                with suppress(FileNotFoundError):
                    infos.append(self._info(key, named[key]))
        yield from infos

    def delete(self, key: str) -> None:
        """Remove an object and the folders that it leaves empty; no error where there is none."""
        path = self._path(key)
        with self._connection.errors(key):
            with suppress(FileNotFoundError):
                self._files.rm_file(path)
            folder = path.rpartition("/")[0]
            while len(folder) > len(self.root):
                try:
                    self._files.rmdir(folder)  # so that a key's folder may become a key, as in a bucket
                except FileNotFoundError:
                    pass
                except OSError:
                    break
                folder = folder.rpartition("/")[0]

    def public_url(self, key: str) -> str | None:
        """Return None: the setting `store.public-url` says where the public reads."""
        check_key(key)
        return None

    def _path(self, key: str) -> str:
        return f"{self.root}/{check_key(key)}"

    def _chunks(self, key: str) -> Iterator[bytes]:
        with self._connection.errors(key), self._files.open(self._path(key), "rb") as file:
            yield from chunks_of(file)

    def _is_free(self, key: str, sha256: str) -> bool:
        """Whether there is no object yet; False where its content is the same. Raises ObjectExistsError for other content."""
        try:
            found = digest_of(self._chunks(key))
        except ObjectMissingError:
            return True
        if found != sha256:
            raise ObjectExistsError.at(f"{self.url}/{key}")
        return False

    def _write(self, key: str, chunks: Iterable[bytes], check: Callable[[], bool]) -> ObjectInfo:
        """Write a temporary file; if `check` agrees under the lock, rename it. Return what is there."""
        path, temporary = self._path(key), f"{self.root}/.tmp/{secrets.token_hex(8)}"
        # Sent before the lock is taken: others take a lock over that is held for longer than a rename.
        with self._connection.errors(key):
            self._files.makedirs(f"{self.root}/.tmp", exist_ok=True)
            try:
                with self._files.open(temporary, "wb") as file:
                    for chunk in chunks:
                        file.write(chunk)
                with self._lock.held(temporary) as mine:
                    if check():
                        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
                        self._lock.rename(mine, path)
                    return self._info(key, self._files.info(path))
            except BaseException:
                with suppress(OSError):
                    self._files.rm_file(temporary)
                raise

    def _info(self, key: str, info: dict[str, Any]) -> ObjectInfo:
        return ObjectInfo(key, int(info["size"]), self._etag(info), self._modified(info))

    def _etag(self, info: dict[str, Any]) -> str:
        if info["size"] > HASHED_BELOW:
            return f"{info['size']:x}-{self._modified(info).timestamp()}"
        return etag_of(self._files.cat_file(info["name"]))

    @staticmethod
    def _modified(info: dict[str, Any]) -> datetime:
        # Each file system of fsspec has its own name for it; not all have one.
        for name in ("mtime", "modified", "modifiedTime", "last_modified", "created"):
            value = info.get(name)
            if isinstance(value, datetime):
                return value if value.tzinfo else value.replace(tzinfo=UTC)
            if isinstance(value, int | float):
                return datetime.fromtimestamp(value, UTC)
        return datetime.now(UTC)
