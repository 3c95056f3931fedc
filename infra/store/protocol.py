"""The object store protocol: create-once, compare-and-swap, verified files; an S3 bucket or a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from gpu_offload.infra.store.errors import ObjectKeyError


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object's metadata. `etag` is opaque and changes with the content."""

    key: str
    size: int
    etag: str
    modified: datetime


class ObjectStore(Protocol):
    """A flat space of objects. Every write is seen whole or not at all; keys are relative, with `/`.

    Keys must suit a folder, too: a key cannot be another key's folder (`a` and `a/b` exclude one another), and
    no key begins with a dot.
    """

    url: str

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag. Raises ObjectMissingError."""

    def stat(self, key: str) -> ObjectInfo | None:
        """Return an object's metadata, None where there is none."""

    def put(self, key: str, body: bytes) -> str:
        """Write or overwrite; return the etag."""

    def create(self, key: str, body: bytes) -> str:
        """Write once; return the etag.

        Writing the same bytes again succeeds: a reply that was lost makes the SDK repeat a conditional PUT,
        which then fails against its own write. So a caller that uses `create` as a claim puts something of its own
        into the body. Raises ObjectExistsError where other bytes are there.
        """

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write if the object still has this etag; return the new one.

        Succeeds, too, where the object already holds these very bytes (see `create`). Raises ObjectChangedError,
        also where the object has gone.
        """

    def upload(self, key: str, path: Path, *, create: bool = False) -> ObjectInfo:
        """Write a file, streaming; with `create`, once, under the rule of `create`."""

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        """Read into a temporary file, verify, then rename to `path`. Raises CorruptObjectError, ObjectMissingError."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield objects whose key starts with `prefix`, in key order (of the UTF-8 bytes)."""

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""

    def public_url(self, key: str) -> str | None:
        """Where anyone could read the object if its policy allows it; None for a folder."""


def check_key(key: str) -> str:
    """Return the key if every store can hold it and it can mean one thing only.

    Raises:
        ObjectKeyError: It is empty, absolute or too long, or has an empty, `.` or `..` part, a leading dot, a
            backslash or a control character.
    """
    parts = key.split("/")
    fault = (
        "is empty"
        if not key
        else "has an empty, '.' or '..' part"
        if any(part in {"", ".", ".."} for part in parts)
        else "begins with a dot"  # a folder keeps its lock and its temporary files under such names
        if key.startswith(".")
        else "has a backslash or a character that is not printable"
        if "\\" in key or not key.isprintable()
        else "is too long (1024 bytes, 255 between slashes)"
        if len(key.encode()) > 1024 or any(len(part.encode()) > 255 for part in parts)
        else None
    )
    if fault:
        raise ObjectKeyError(f"object key {key!r} {fault}")
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix if some key could start with it. Raises ObjectKeyError."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix
