"""A GitHub release as a store whose documents can be replaced: with a token one can promote, yank and roll back."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gpu_offload.infra.github.release import FRESH, Asset, GitHubRelease
from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
    StoreReadOnlyError,
    StoreUnreachableError,
)
from gpu_offload.infra.store.files import HASHED_BELOW, etag_of
from gpu_offload.infra.store.protocol import ObjectInfo, check_key
from gpu_offload.infra.store.web import RELEASE, WebStore, asset_name

SERVER, API = "https://github.com", "https://api.github.com"
ALIASES = "aliases/"
TRIES = 5


class ReleaseStore(WebStore):
    """Reads documents through GitHub's API, past every cache, and replaces them there; models come from the web address.

    A release has no conditional write. `create` relies on GitHub, which refuses a second file of the same name. `replace`
    reads before it writes, and again afterwards: of two writes in the same second one may be lost, which then raises
    ObjectChangedError.
    """

    remedy = "a release takes new versions from the workflow `keep` only"

    def __init__(self, url: str, release: GitHubRelease) -> None:
        super().__init__(url)
        self.release = release

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag. Raises ObjectMissingError."""
        for _ in range(TRIES):
            with suppress(FileNotFoundError):  # replaced since it was listed
                body = self.release.read(self._asset(key))
                return body, etag_of(body)
        raise StoreUnreachableError(f"{self.url}/{key}: others keep replacing it; run the command again")

    def stat(self, key: str) -> ObjectInfo | None:
        """Return an object's metadata, None where there is none."""
        try:
            asset = self._asset(key)
            if asset.size > HASHED_BELOW:
                return ObjectInfo(key, asset.size, str(asset.id), datetime.now(UTC))
            body, etag = self.read(key)
            return ObjectInfo(key, len(body), etag, datetime.now(UTC))
        except ObjectMissingError:
            return None

    def put(self, key: str, body: bytes) -> str:
        """Write or overwrite; return the etag."""
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            path = Path(scratch) / "document"
            path.write_bytes(body)
            self.release.replace(asset_name(check_key(key)), path)
        return self.read(key)[1]

    def create(self, key: str, body: bytes) -> str:
        """Write once; return the etag. Raises ObjectExistsError where other bytes are there."""
        refused = None
        there = self.release.assets().get(asset_name(check_key(key)))
        if there is not None and not there.whole:  # an upload that broke off: a document takes no time
            self.release.delete(there)
        if there is None or not there.whole:
            with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
                path = Path(scratch) / "document"
                path.write_bytes(body)
                try:
                    self.release.upload(asset_name(key), path)
                except StoreError as error:  # another was first, if it is there now
                    refused = error
        try:
            found, etag = self.read(key)
        except ObjectMissingError:
            raise refused or ObjectChangedError(f"{self.url}/{key}: it went while it was written") from None
        if found != body:
            raise ObjectExistsError.at(f"{self.url}/{key}")
        return etag

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write if the object still has this etag; return the new one. Raises ObjectChangedError."""
        changed = ObjectChangedError.at(f"{self.url}/{key}")
        self.release.repair()
        try:
            found, now = self.read(key)
        except ObjectMissingError:
            raise changed from None
        if found == body:
            return now
        if now != etag:
            raise changed
        try:
            written = self.put(key, body)
        except StoreError as error:
            # Of two at once the slower one finds its upload, or the name that it wants, gone.
            if self._is_as_it_was(key, etag):
                raise
            self.release.repair()  # until its renaming, readers by web address find no document
            raise changed from error
        if written != etag_of(body):
            raise changed
        return written

    def _is_as_it_was(self, key: str, etag: str) -> bool:
        try:
            return self.read(key)[1] == etag
        except ObjectMissingError:
            return False

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""
        there = self.release.assets().get(asset_name(check_key(key)))
        if there is not None:
            self.release.delete(there)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the aliases. A release knows no folders: nothing else of it can be listed. Raises StoreReadOnlyError."""
        if prefix != ALIASES:
            raise StoreReadOnlyError(f"{self.url}/{prefix}: a release lists its aliases only")
        start = asset_name(ALIASES)
        for name, asset in sorted(self.release.assets().items()):
            if name.startswith(start) and name.endswith(".json") and name == asset_name(name) and asset.whole:
                key = ALIASES + name.removeprefix(start)
                yield ObjectInfo(key, asset.size, str(asset.id), datetime.now(UTC))

    def _asset(self, key: str) -> Asset:
        try:
            name, there = asset_name(check_key(key)), self.release.assets()
            # While another writer replaces it, it is there under the name that it has until then.
            found = there.get(name) or there.get(f"{name}{FRESH}")
        except FileNotFoundError:
            found = None
        if found is None or not found.whole:
            raise ObjectMissingError.at(f"{self.url}/{key}")
        return found


def open_release(url: str, environ: Mapping[str, str] | None = None) -> ReleaseStore | None:
    """Open a release for writing; None without a token, and for an address of a server that the token is not for.

    The token is GITHUB_TOKEN or GH_TOKEN. It is sent to GitHub's API, or to that of the server that a workflow runs on:
    never to an address that is derived from the URL.
    """
    environ = os.environ if environ is None else environ
    token = environ.get("GITHUB_TOKEN") or environ.get("GH_TOKEN")
    parts = urlsplit(url)
    own = environ.get("GITHUB_SERVER_URL", SERVER).rstrip("/")
    server = f"{parts.scheme}://{parts.netloc}"
    if not token or RELEASE.search(parts.path) is None or server not in {SERVER, own}:
        return None
    api = environ.get("GITHUB_API_URL", API) if server == own else API
    owner, repository, _, _, tag = unquote(parts.path).strip("/").split("/")[-5:]
    return ReleaseStore(url.rstrip("/"), GitHubRelease(api, f"{owner}/{repository}", token, tag))
