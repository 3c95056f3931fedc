"""An object store in a model repository of the Hugging Face Hub: each write is a commit onto the one that was looked at."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session, hf_hub_url
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

from gpu_offload.infra.http import shown
from gpu_offload.infra.retry import contended
from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
    StoreUrlError,
)
from gpu_offload.infra.store.files import digest_of, read_document, sha256_of, write_verified
from gpu_offload.infra.store.hub_errors import MovedError, hub_errors
from gpu_offload.infra.store.hub_token import JobToken
from gpu_offload.infra.store.protocol import ObjectInfo, check_key, check_prefix

TRIES = 60


class HubStore:
    """Objects as files of a repository's `main`.

    `parent_commit` makes a commit conditional: the Hub refuses it where another came first, and the object is looked at
    again. An object's time is the repository's newest: nothing looks older than it is.

    In a workflow's job with `id-token: write` and without HF_TOKEN, the job's identity is exchanged for a token for this
    repository (`JobToken`). The Hub must trust the workflow: see docs/store.md.
    """

    def __init__(self, url: str, *, endpoint: str | None = None) -> None:
        parts = urlsplit(url)
        name = parts.path.strip("/")
        is_plain = parts.netloc and "@" not in parts.netloc and not (parts.query or parts.fragment)
        if not name or "/" in name or not is_plain:
            raise StoreUrlError(
                f"store {shown(url)!r}: write hf://OWNER/REPOSITORY, without `@`, `?` and `#`"
            )
        self.url = f"hf://{parts.netloc}/{name}"
        self.repository = f"{parts.netloc}/{name}"
        self._endpoint = HfApi(endpoint=endpoint or os.environ.get("HF_ENDPOINT")).endpoint
        self._token = JobToken(self._endpoint, self.repository)

    @property
    def _api(self) -> HfApi:
        return HfApi(endpoint=self._endpoint, token=self._token.get())

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag. Raises ObjectMissingError."""
        with self._errors(key):
            commit, _ = self._head()
            info = self._info(key, commit)
            if info is None:
                raise ObjectMissingError.at(f"{self.url}/{key}")
            return read_document(f"{self.url}/{key}", self._chunks(key, commit)), info.blob_id

    def stat(self, key: str) -> ObjectInfo | None:
        """Return an object's metadata, None where there is none."""
        with self._errors(check_key(key)):
            commit, modified = self._head()
            info = self._info(key, commit)
            return None if info is None else ObjectInfo(key, info.size, info.blob_id, modified)

    def put(self, key: str, body: bytes) -> str:
        """Write or overwrite; return the etag."""
        return self._commit(key, body, lambda _commit, _info: True).etag

    def create(self, key: str, body: bytes) -> str:
        """Write once; return the etag. Raises ObjectExistsError where other bytes are there."""
        sha256 = hashlib.sha256(body).hexdigest()
        return self._commit(key, body, lambda commit, info: self._is_free(key, commit, info, sha256)).etag

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write if the object still has this etag; return the new one. Raises ObjectChangedError."""

        def check(commit: str, info: RepoFile | None) -> bool:
            if info is not None and info.blob_id == etag:
                return True
            if info is not None and read_document(f"{self.url}/{key}", self._chunks(key, commit)) == body:
                return False
            raise ObjectChangedError.at(f"{self.url}/{key}")

        return self._commit(key, body, check).etag

    def upload(self, key: str, path: Path, *, create: bool = False) -> ObjectInfo:
        """Write a file; with `create`, once, under the rule of `create`."""
        try:
            sha256 = sha256_of(path)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or error}") from error
        return self._commit(
            key, str(path), lambda commit, info: not create or self._is_free(key, commit, info, sha256)
        )

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        """Read into a temporary file, verify, then rename to `path`. Raises CorruptObjectError, ObjectMissingError."""
        with self._errors(key):
            commit, _ = self._head()
            write_verified(f"{self.url}/{key}", self._chunks(key, commit), path, size=size, sha256=sha256)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield objects whose key starts with `prefix`, in key order."""
        check_prefix(prefix)
        with self._errors(prefix):
            commit, modified = self._head()
            tree = self._api.list_repo_tree(self.repository, recursive=True, revision=commit)
            found = [one for one in tree if isinstance(one, RepoFile) and one.path.startswith(prefix)]
        for one in sorted(found, key=lambda one: one.path.encode()):
            if not one.path.startswith("."):  # .gitattributes is the Hub's own
                yield ObjectInfo(one.path, one.size, one.blob_id, modified)

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""
        self._commit(key, None, lambda _commit, info: info is not None)

    def public_url(self, key: str) -> str | None:
        """Where anyone could read the object if the repository is public."""
        return f"{self._endpoint}/{self.repository}/resolve/main/{check_key(key)}"

    def _commit(
        self, key: str, content: bytes | str | None, check: Callable[[str, RepoFile | None], bool]
    ) -> ObjectInfo:
        """Commit what `check` agrees to onto the commit that it looked at, again where another came first."""
        add = None if content is None else CommitOperationAdd(check_key(key), content)
        operation = CommitOperationDelete(check_key(key)) if add is None else add
        try:
            for attempt in contended(MovedError, TRIES):
                with attempt, self._errors(key):
                    commit, modified = self._head()
                    info = self._info(key, commit)
                    if check(commit, info):
                        done = self._api.create_commit(
                            self.repository,
                            [operation],
                            commit_message=f"{'Write' if add else 'Delete'} {key}",
                            parent_commit=commit,
                        )
                        # As of our own commit: another one may already have replaced the object.
                        info = self._info(key, done.oid)
                    size, etag = (info.size, info.blob_id) if info else (0, "")
                    return ObjectInfo(key, size, etag, modified)
        except MovedError as error:
            raise ObjectChangedError(
                f"{self.url}/{key}: others kept coming first; run the command again"
            ) from error
        raise AssertionError  # the loop returns or raises

    def _is_free(self, key: str, commit: str, info: RepoFile | None, sha256: str) -> bool:
        if info is None:
            return True
        if digest_of(self._chunks(key, commit)) != sha256:
            raise ObjectExistsError.at(f"{self.url}/{key}")
        return False

    def _head(self) -> tuple[str, datetime]:
        info = self._api.repo_info(self.repository, revision="main")
        return str(info.sha), info.last_modified or datetime.now(UTC)

    def _info(self, key: str, commit: str) -> RepoFile | None:
        found = self._api.get_paths_info(self.repository, [check_key(key)], revision=commit)
        return next((one for one in found if isinstance(one, RepoFile) and one.path == key), None)

    def _chunks(self, key: str, commit: str) -> Iterator[bytes]:
        url = hf_hub_url(self.repository, check_key(key), revision=commit, endpoint=self._endpoint)
        headers: dict[str, Any] = self._api._build_hf_headers()  # noqa: SLF001 - the library's own way to sign a request
        # Not by the client's own download, which keeps each file in a cache below the home folder.
        with get_session().stream("GET", url, headers=headers, follow_redirects=True) as reply:
            if reply.status_code == 404:
                raise ObjectMissingError.at(f"{self.url}/{key}")
            if reply.is_error:
                reply.read()
            hf_raise_for_status(reply)
            yield from reply.iter_bytes()

    def _errors(self, key: str) -> AbstractContextManager[None]:
        return hub_errors(self.url, key, f"{self._endpoint}/{self.repository}/settings")
