"""The store as the training module sees it."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol


class ObjectInfo(Protocol):
    """What a store knows of an object."""

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def etag(self) -> str: ...  # noqa: D102
    @property
    def modified(self) -> datetime: ...  # noqa: D102


class Store(Protocol):
    """The part of `infra.object_store.ObjectStore` that a training uses."""

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag."""

    def stat(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, None where there is none."""

    def put(self, key: str, body: bytes) -> str:
        """Write, whatever was there."""

    def create(self, key: str, body: bytes) -> str:
        """Write once."""

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write if the object still has this etag."""

    def upload(self, key: str, path: Path, *, create: bool = False) -> ObjectInfo:
        """Write a file."""

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        """Read into a file, verified."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with `prefix`."""

    def delete(self, key: str) -> None:
        """Remove an object."""
