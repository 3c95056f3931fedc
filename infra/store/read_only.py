"""Stores that are only read: what the public sees of a store, from its web address or by its own protocol."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_offload.infra.store.errors import ObjectMissingError, StoreDeniedError, StoreReadOnlyError
from gpu_offload.infra.store.protocol import ObjectInfo, ObjectStore


class ReadOnlyStore:
    """Refuses every write with StoreReadOnlyError. `remedy` says how one could write after all."""

    url: str
    remedy: str

    def put(self, key: str, *_: Any, **__: Any) -> Any:
        """Refuse. Raises StoreReadOnlyError."""
        raise StoreReadOnlyError(f"{self.url}/{key}: this store can only be read; {self.remedy}")

    create = replace = upload = delete = put


class PublicStore(ReadOnlyStore):
    """Another store as the public sees it: what is not public counts as absent."""

    remedy = "a plan writes nothing"

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.url = store.url

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag. Raises ObjectMissingError, also for what is not public."""
        try:
            return self.store.read(key)
        except StoreDeniedError as error:
            # S3 answers "denied" for a missing object where listings are not public.
            raise ObjectMissingError(str(error)) from error

    def stat(self, key: str) -> ObjectInfo | None:
        """Return an object's size and etag, None where there is none that is public."""
        try:
            return self.store.stat(key)
        except StoreDeniedError:  # see `read`
            return None

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        """Download and verify. Raises ObjectMissingError, CorruptObjectError."""
        try:
            self.store.download(key, path, size=size, sha256=sha256)
        except StoreDeniedError as error:
            raise ObjectMissingError(str(error)) from error

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose listing is public."""
        try:
            yield from self.store.list(prefix)
        except (StoreDeniedError, StoreReadOnlyError):
            return

    def public_url(self, key: str) -> str | None:
        """Return the object's own address."""
        return self.store.public_url(key)
