"""A store that is only read, by its public web address."""

from collections.abc import Iterator
from pathlib import Path

from gpu_offload.infra.store.errors import ObjectMissingError, StoreDeniedError, StoreReadOnlyError
from gpu_offload.infra.store.protocol import ObjectInfo, ObjectStore


class PublicReading:
    """Reads what is public; what is not counts as absent. Writes nothing."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.url = store.url

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag. Raises ObjectMissingError, also for what is not public."""
        try:
            return self.store.read(key)
        except StoreDeniedError as error:
            # S3 says "denied" for an object that is not there to whom it does not show listings.
            raise ObjectMissingError(str(error)) from error

    def stat(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, None where there is none that is public."""
        try:
            return self.store.stat(key)
        except StoreDeniedError:
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

    def put(self, key: str, body: bytes) -> str:
        """Refuse. Raises StoreReadOnlyError."""
        raise self._refusal(key, len(body))

    def create(self, key: str, body: bytes) -> str:
        """Refuse. Raises StoreReadOnlyError."""
        raise self._refusal(key, len(body))

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Refuse. Raises StoreReadOnlyError."""
        raise self._refusal(key, len(body), etag)

    def upload(self, key: str, path: Path, *, create: bool = False) -> ObjectInfo:
        """Refuse. Raises StoreReadOnlyError."""
        raise self._refusal(key, path, create)

    def delete(self, key: str) -> None:
        """Refuse. Raises StoreReadOnlyError."""
        raise self._refusal(key)

    def _refusal(self, key: str, *_ignored: object) -> StoreReadOnlyError:
        return StoreReadOnlyError(f"{self.url}/{key}: a plan writes nothing")
