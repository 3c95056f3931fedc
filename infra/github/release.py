"""A release of a GitHub repository as a place for files: the model store of a repository without a cloud account."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gpu_offload.infra import http
from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectExistsError,
    StoreDeniedError,
    StoreError,
    StoreUnreachableError,
    StoreUrlError,
)
from gpu_offload.infra.store.files import read_document

TIMEOUT_S = 120
PAGE = 100
"""The most that GitHub lists at once."""
LARGEST = 2 * 1024**3 - 1
"""Bytes of one file of a release."""

LONGEST_UPLOAD_S = 3600.0
"""An upload that is not complete after so long was interrupted; a younger one may be another job's at work."""

FRESH = ".new"
"""Ends the name of a file that is about to take another's place."""

NOTES = "Models that gpu-offload trained. Read by `offload pull --from`; written by the workflow `keep`."


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of a release. `whole` is false while it is uploaded, and where that was interrupted."""

    id: int
    name: str
    size: int
    whole: bool
    created_at: float
    """Unix seconds."""


class GitHubRelease:
    """One release, found by its tag or created. The token is sent to GitHub's API and its upload address only.

    The files of a public repository are public, have an address of their own, and stay until they are deleted.

    https://docs.github.com/en/rest/releases/assets
    """

    def __init__(self, api: str, repository: str, token: str, tag: str) -> None:
        self.base = f"{_safe(api).rstrip('/')}/repos/{repository}/releases"
        self.tag = tag
        self._token = token
        self._found: tuple[int, str] | None = None

    def assets(self) -> dict[str, Asset]:
        """Return the files by their names. Raises StoreError."""
        number, _ = self._release()
        found: dict[str, Asset] = {}
        for page in range(1, 100):
            url = f"{self.base}/{number}/assets?per_page={PAGE}&page={page}"
            with _readable(url):
                got = [_asset(one) for one in self._json("GET", url)]
            found |= {asset.name: asset for asset in got}
            if len(got) < PAGE:
                break
        return found

    def read(self, asset: Asset) -> bytes:
        """Return a small file's content, past every cache. Raises StoreError."""
        headers = {"Accept": "application/octet-stream"}
        with self._asked("GET", f"{self.base}/assets/{asset.id}", headers=headers) as reply:
            return read_document(asset.name, http.chunks(reply))

    def upload(self, name: str, path: Path) -> Asset:
        """Add a file. Raises StoreError, also where one of this name is there."""
        _, uploads = self._release()
        size = path.stat().st_size
        if size > LARGEST:
            raise StoreError(f"{path.name} has {size:,} bytes, and a release's file at most {LARGEST:,}")
        # GitHub shows a picture in Markdown only if it is stored as one.
        kind = "image/png" if name.endswith(".png") else "application/octet-stream"
        headers = {"Content-Type": kind, "Content-Length": str(size)}
        with (
            path.open("rb") as body,
            self._asked("POST", f"{uploads}?name={quote(name)}", body=body, headers=headers) as reply,
        ):
            answer = http.read(reply)
        with _readable(uploads):
            return _asset(json.loads(answer))

    def replace(self, name: str, path: Path) -> None:
        """Put a file in another's place: uploaded under another name first, so that the old one is there until then."""
        there = self.assets()
        fresh = f"{name}{FRESH}"
        if fresh in there:
            self.delete(there[fresh])
        uploaded = self.upload(fresh, path)
        # A file cannot take a name that another one has. `repair` completes what is interrupted between the two.
        if name in there:
            self.delete(there[name])
        self._json("PATCH", f"{self.base}/assets/{uploaded.id}", {"name": name})

    def repair(self) -> None:
        """Complete a `replace` that was interrupted between deletion and renaming, and delete broken uploads."""
        there = self.assets()
        for name, asset in there.items():
            if not asset.whole:
                if asset.created_at < time.time() - LONGEST_UPLOAD_S:
                    self.delete(asset)
            elif name.endswith(FRESH) and name.removesuffix(FRESH) not in there:
                self._json("PATCH", f"{self.base}/assets/{asset.id}", {"name": name.removesuffix(FRESH)})

    def delete(self, asset: Asset) -> None:
        """Remove a file; no error where there is none, because another job was faster."""
        with suppress(ObjectChangedError), self._asked("DELETE", f"{self.base}/assets/{asset.id}"):
            pass

    def _release(self) -> tuple[int, str]:
        """Return the release's number and where its uploads go."""
        if self._found is None:
            address = f"{self.base}/tags/{quote(self.tag)}"
            try:
                found = self._json("GET", address)
            except FileNotFoundError:
                # Not a release of the project's software, so never the one that its page calls the latest.
                kind = {"prerelease": True, "make_latest": "false"}
                made = {"tag_name": self.tag, "name": "Models", "body": NOTES, **kind}
                try:
                    found = self._json("POST", self.base, made)
                except ObjectExistsError:  # another job made it first
                    found = self._json("GET", address)
            with _readable(self.base):
                number, uploads = int(found["id"]), str(found["upload_url"]).partition("{")[0]
            self._found = number, _safe(uploads)
        return self._found

    def _json(self, method: str, url: str, document: Mapping[str, Any] | None = None) -> Any:
        body = None if document is None else json.dumps(document).encode()
        with self._asked(method, url, body=body) as reply, _readable(url):
            return json.loads(http.read(reply))

    @contextmanager
    def _asked(
        self, method: str, url: str, *, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[HTTPResponse]:
        try:
            with http.ask(
                url,
                method=method,
                headers={"Accept": "application/vnd.github+json", **(headers or {})},
                secret={"Authorization": f"Bearer {self._token}"},
                body=body,
                timeout=TIMEOUT_S,
            ) as reply:
                yield reply
        except http.StatusError as error:
            if error.status == HTTPStatus.NOT_FOUND and method == "GET":
                raise FileNotFoundError(url) from None
            said = f"GitHub answers {error.status} to {method} {url}"
            # https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api: 403 as well as 429
            if error.status == HTTPStatus.TOO_MANY_REQUESTS or "rate limit" in error.said:
                raise StoreUnreachableError(
                    f"{said}: too many requests; run the job again in an hour"
                ) from None
            if error.status == HTTPStatus.NOT_FOUND and method in {"PATCH", "DELETE"}:
                raise ObjectChangedError(f"{said}: another job has replaced or deleted the file") from None
            if error.status == HTTPStatus.UNPROCESSABLE_ENTITY and "already_exists" in error.said:
                raise ObjectExistsError(f"{said}: another job has taken the name") from None
            if error.status == HTTPStatus.UNAUTHORIZED:
                raise StoreDeniedError(
                    f"{said}: the token is expired, or not one of this server ({error.said})"
                ) from None
            if error.status in {403, 404}:
                raise StoreDeniedError(
                    f"{said}: the job needs `permissions: contents: write` ({error.said})"
                ) from None
            if error.is_passing:
                raise StoreUnreachableError(f"{said}; run the job again") from None
            raise StoreError(f"{said}: {error.said}") from None
        except http.HttpError as error:
            raise StoreUnreachableError(f"{error}; run the job again") from error


def _asset(document: Any) -> Asset:
    """Return what GitHub says of a file; its number becomes part of an address. Raises what `_readable` catches."""
    return Asset(
        int(document["id"]),
        str(document["name"]),
        int(document["size"]),
        document["state"] == "uploaded",
        datetime.fromisoformat(document["created_at"]).timestamp(),
    )


@contextmanager
def _readable(url: str) -> Iterator[None]:
    """Raise StoreUnreachableError where a reply is not what GitHub documents, such as a proxy's page."""
    try:
        yield
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise StoreUnreachableError(
            f"{http.shown(url)}: GitHub's answer cannot be read ({type(error).__name__}); run the job again"
        ) from error


def _safe(url: str) -> str:
    """Return an address that a token may be sent to. Raises StoreUrlError."""
    try:
        return http.check_address(url)
    except http.UnsafeAddressError as error:
        raise StoreUrlError(f"{error}: GitHub's token is not sent there") from error
