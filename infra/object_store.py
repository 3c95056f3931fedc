"""Object storage as we wish it were: create-once, compare-and-swap, verified files; an S3 bucket or a folder."""

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit


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
    """What was read is not what is promised (size or sha256)."""


class StoreUrlError(StoreError):
    """The store's URL is not one that `open_store` understands."""


class ObjectKeyError(StoreError):
    """A key that could mean something else in a folder or a URL: absolute, `..`, hidden, control characters."""


class StoreMissingError(StoreError):
    """There is no such bucket."""


class StoreDeniedError(StoreError):
    """The store knows us, and says no."""


class StoreCredentialsError(StoreError):
    """No credentials, expired ones, or ones that the store does not know."""


class StoreUnreachableError(StoreError):
    """The store did not answer, or answered that it is unable to."""


class StoreReadOnlyError(StoreError):
    """A web address can be read from; it cannot be written to or listed."""


class ObjectStore(Protocol):
    """A flat space of objects. Every write is seen whole or not at all; keys are relative, with `/`.

    Keys must suit a folder, too: a key cannot be another key's folder (`a` and `a/b` exclude one another), and
    no key begins with a dot.
    """

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
        which then fails against its own write. So whoever uses `create` as a claim puts something of its own
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


def open_store(
    url: str, *, endpoint_url: str | None = None, region: str | None = None, base: Path | None = None
) -> ObjectStore:
    """Open a store; nothing is read, written or asked yet.

    Args:
        url: `file:FOLDER`, `s3://BUCKET[/PREFIX]`, or `https://HOST/PATH` to read what a store has made public.
        endpoint_url: Another server that speaks the S3 API (R2, MinIO, Ceph); None for AWS, or for what
            `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` says. Only for `s3:`.
        region: The bucket's region; None for what the environment says. Only for `s3:`.
        base: What a relative folder is relative to; None for the current directory.

    Raises:
        StoreUrlError: The URL is none of these.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" and (endpoint_url or region):
        raise StoreUrlError(
            f"store {url!r}: endpoint-url and region belong to an s3: store; leave them out, or write s3://BUCKET"
        )
    if parts.scheme == "file":
        from gpu_offload.infra.folder_store import FolderStore

        if parts.netloc not in {"", "localhost"}:
            raise StoreUrlError(f"store {url!r} names a host: write file:FOLDER or file:///FOLDER")
        # `file:a b` is a path as one types it; `file:///a%20b` is a URL.
        path = unquote(parts.path) if url.startswith("file://") else url.removeprefix("file:")
        if not path:
            raise StoreUrlError(f"store {url!r} names no folder: write, for example, file:.offload")
        return FolderStore((base or Path.cwd()) / path)
    if parts.scheme == "s3":
        from gpu_offload.infra.s3_store import S3Store

        if not parts.netloc or parts.query or parts.fragment:
            raise StoreUrlError(f"store {url!r}: write s3://BUCKET or s3://BUCKET/PREFIX")
        return S3Store(parts.netloc, parts.path.strip("/"), endpoint_url=endpoint_url, region=region)
    if parts.scheme in {"https", "http"}:
        from gpu_offload.infra.web_store import WebStore

        return WebStore(url)
    raise StoreUrlError(
        f"store {url!r}: write file:FOLDER, s3://BUCKET/PREFIX, or https://HOST/PATH to read only"
    )


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
        else "begins with a dot"
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


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_verified(
    where: str, chunks: Iterable[bytes], path: Path, *, size: int | None, sha256: str | None
) -> None:
    """Write chunks beside `path`, verify them, then rename: `path` is the old file or the whole new one.

    Raises:
        CorruptObjectError: Size or sha256 is not what was promised; `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.part")
    digest, length = hashlib.sha256(), 0
    try:
        with temporary.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                length += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        if size is not None and length != size:
            raise CorruptObjectError(
                f"{where}: {length:,} bytes instead of {size:,}: the object is damaged or incomplete; "
                "delete it and run again"
            )
        if sha256 is not None and digest.hexdigest() != sha256:
            raise CorruptObjectError(
                f"{where}: sha256 is {digest.hexdigest()} instead of {sha256}: the object is damaged or was "
                "replaced; delete it and run again"
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, as fsync does for a file's content."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
