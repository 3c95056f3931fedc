"""Object storage as we wish it were: create-once, compare-and-swap, verified files; an S3 bucket or a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store knows of an object without reading it. `etag` is opaque and changes with the content."""

    key: str
    size: int
    etag: str
    modified: datetime


class StoreError(Exception):
    """The store could not do what was asked; the text says where and what to do."""


class ObjectMissingError(StoreError):
    """There is no such object."""


class ObjectExistsError(StoreError):
    """`create` found another object under the key."""


class ObjectChangedError(StoreError):
    """`replace` found that somebody else had written in between."""


class CorruptObjectError(StoreError):
    """What was read is not what was promised (size or sha256)."""


class ObjectStore(Protocol):
    """A flat space of objects. Every write is seen whole or not at all; keys are relative, with `/`."""

    url: str

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag. Raises ObjectMissingError."""

    def stat(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, None where there is none."""

    def put(self, key: str, body: bytes) -> str:
        """Write, whatever was there; return the etag."""

    def create(self, key: str, body: bytes) -> str:
        """Write once; return the etag.

        Writing the same bytes again succeeds: a reply that was lost makes the SDK repeat a conditional PUT,
        which then fails against its own write. Raises ObjectExistsError where other bytes are there.
        """

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write if the object still has this etag; return the new one. Raises ObjectChangedError."""

    def upload(self, key: str, path: Path, *, create: bool = False) -> ObjectInfo:
        """Write a file, streaming; with `create`, once, under the rule of `create`."""

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        """Read into a temporary file, verify, then rename to `path`. Raises CorruptObjectError, ObjectMissingError."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield objects whose key starts with `prefix`, in key order."""

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""

    def public_url(self, key: str) -> str | None:
        """Where anyone could read the object if its policy allows it; None for a folder."""
