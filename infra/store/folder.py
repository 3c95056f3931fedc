"""An object store in a folder: the default, which needs no account."""

import filecmp
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from gpu_offload.infra.store.errors import ObjectChangedError, ObjectExistsError, ObjectMissingError
from gpu_offload.infra.store.files import (
    CHUNK,
    HASHED_BELOW,
    chunks_of,
    etag_of,
    read_document,
    write_verified,
)
from gpu_offload.infra.store.folder_files import FolderFiles
from gpu_offload.infra.store.protocol import ObjectInfo, check_key, check_prefix


class FolderStore:
    """Objects as files below one folder. `FolderFiles` says why none is ever half written."""

    def __init__(self, root: Path) -> None:
        self.files = FolderFiles(root)
        self.root = self.files.root
        self.url = self.root.as_uri()

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag. Raises ObjectMissingError."""
        with self.files.open(key) as file:
            body = read_document(str(self.root / key), chunks_of(file))
            return body, _etag(file, body)

    def stat(self, key: str) -> ObjectInfo | None:
        """Return an object's metadata, None where there is none."""
        try:
            with self.files.open(key) as file:
                return _info(key, file)
        except ObjectMissingError:
            return None

    def put(self, key: str, body: bytes) -> str:
        """Write or overwrite; return the etag."""
        return self._write(key, lambda file: file.write(body)).etag

    def create(self, key: str, body: bytes) -> str:
        """Write once; return the etag. Raises ObjectExistsError where other bytes are there."""
        return self._write(key, lambda file: file.write(body), _check_created).etag

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write if the object still has this etag; return the new one. Raises ObjectChangedError."""

        def check(path: Path, temporary: Path) -> bool:
            info = self.stat(key)
            if info is not None and info.etag == etag:
                return True
            if info is not None and filecmp.cmp(path, temporary, shallow=False):
                return False
            raise ObjectChangedError.at(str(path))

        return self._write(key, lambda file: file.write(body), check).etag

    def upload(self, key: str, path: Path, *, create: bool = False) -> ObjectInfo:
        """Write a file, streaming; with `create`, once, under the rule of `create`."""

        def fill(file: BinaryIO) -> None:
            with path.open("rb") as source:
                shutil.copyfileobj(source, file, CHUNK)

        return self._write(key, fill, _check_created if create else None)

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        """Read into a temporary file, verify, then rename to `path`. Raises CorruptObjectError, ObjectMissingError."""
        with self.files.open(key) as file:
            write_verified(str(self.root / key), chunks_of(file), path, size=size, sha256=sha256)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield objects whose key starts with `prefix`, in key order. Not a snapshot: what is deleted is left out."""
        folder, _, beginning = check_prefix(prefix).rpartition("/")
        for key in self.files.keys(folder, beginning):
            if (info := self.stat(key)) is not None:
                yield info

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""
        self.files.delete(key)

    def public_url(self, key: str) -> str | None:
        """Return None: a folder has no public address."""
        check_key(key)
        return None

    def _write(
        self, key: str, fill: Callable[[BinaryIO], object], check: Callable[[Path, Path], bool] | None = None
    ) -> ObjectInfo:
        with self.files.write(key, fill, check) as written:
            return _info(key, written)


def _check_created(path: Path, temporary: Path) -> bool:
    """Whether to write: there is no file yet. Raises ObjectExistsError for one with other content."""
    if not path.is_file():
        return True
    if filecmp.cmp(path, temporary, shallow=False):
        return False
    raise ObjectExistsError.at(str(path))


def _etag(file: BinaryIO, body: bytes | None = None) -> str:
    status = os.fstat(file.fileno())
    if status.st_size > HASHED_BELOW:  # every write makes a new inode
        return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
    return etag_of(file.read() if body is None else body)


def _info(key: str, file: BinaryIO) -> ObjectInfo:
    status = os.fstat(file.fileno())
    return ObjectInfo(key, status.st_size, _etag(file), datetime.fromtimestamp(status.st_mtime, UTC))
