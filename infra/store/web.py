"""A store's public objects, read from its web address: no account, no credentials, no SDK."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import quote, urlsplit

from gpu_offload.infra import http
from gpu_offload.infra.store.errors import (
    ObjectMissingError,
    StoreDeniedError,
    StoreReadOnlyError,
    StoreUnreachableError,
    StoreUrlError,
)
from gpu_offload.infra.store.files import read_document, write_verified
from gpu_offload.infra.store.protocol import ObjectInfo, check_key
from gpu_offload.infra.store.read_only import ReadOnlyStore

RELEASE = re.compile(r"/[^/]+/[^/]+/releases/download/[^/]+$")


class WebStore(ReadOnlyStore):
    """A store's public objects by their web addresses. Plain `http:` is for this machine's own addresses only."""

    remedy = "set store.url to s3://BUCKET/PREFIX to write"

    def __init__(self, url: str) -> None:
        # An address with a query or a fragment cannot be continued by a key.
        parts = urlsplit(url)
        if not parts.hostname or parts.query or parts.fragment or parts.username:
            raise StoreUrlError(
                f"store {http.shown(url)!r}: write https://HOST/PATH, without `@`, `?` and `#`"
            )
        try:
            http.check_address(url)
        except http.UnsafeAddressError as error:
            raise StoreUrlError(
                f"store {url!r}: write https://, so that no one on the network can change what you read"
            ) from error
        self.url = url.rstrip("/")

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag. Raises ObjectMissingError."""
        with self._asked("GET", key) as reply:
            return read_document(self._address(key), http.chunks(reply)), _info(key, reply).etag

    def stat(self, key: str) -> ObjectInfo | None:
        """Return an object's metadata, None where there is none."""
        try:
            with self._asked("HEAD", key) as reply:
                return _info(key, reply)
        except ObjectMissingError:
            return None

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        """Read into a temporary file, verify, then rename to `path`. Raises CorruptObjectError, ObjectMissingError."""
        with self._asked("GET", key) as reply:
            write_verified(self._address(key), http.chunks(reply), path, size=size, sha256=sha256)

    def public_url(self, key: str) -> str:
        """Return the object's own address."""
        return self._address(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Refuse. Raises StoreReadOnlyError."""
        raise StoreReadOnlyError(f"{self.url}/{prefix}: a web address cannot be listed; {self.remedy}")

    def _address(self, key: str) -> str:
        check_key(key)
        name = asset_name(key) if RELEASE.search(self.url) else quote(key)
        return f"{self.url}/{name}"

    @contextmanager
    def _asked(self, method: str, key: str) -> Iterator[HTTPResponse]:
        address = self._address(key)
        try:
            with http.ask(address, method=method) as reply:
                yield reply
        except http.StatusError as error:
            if error.status in {404, 410}:
                raise ObjectMissingError.at(address) from None
            # S3 answers 403 for a missing object, too, where the public may not list.
            if error.status in {401, 403}:
                raise StoreDeniedError(
                    f"{address}: {error.status}: it is not public, or not there; check the store's public address"
                ) from None
            remedy = "run again in a minute" if error.is_passing else "check the store's address"
            raise StoreUnreachableError(f"{error}; {remedy}") from None
        except http.HttpError as error:
            raise StoreUnreachableError(f"{error}; check the address and the network") from error


def _info(key: str, reply: HTTPResponse) -> ObjectInfo:
    modified = reply.headers.get("Last-Modified")
    return ObjectInfo(
        key,
        http.length_of(reply) or 0,
        reply.headers.get("ETag") or modified or "",  # a plain web server may have neither
        _date(modified) or datetime.now(UTC),
    )


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except (ValueError, OverflowError):
        return None


def asset_name(key: str) -> str:
    """Return the name that a store's object has in a release, which knows no folders."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", key)


def release_address(server: str, repository: str, tag: str) -> str:
    """Return the public address of a repository's release."""
    return f"{server.rstrip('/')}/{repository}/releases/download/{tag}"
