"""A folder store on a hosted runner, over the release that keeps its published objects."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from gpu_offload.infra.store.errors import ObjectMissingError, StoreDeniedError
from gpu_offload.infra.store.folder import FolderStore
from gpu_offload.infra.store.protocol import ObjectInfo, ObjectStore
from gpu_offload.orchestrator.estimate.history import KEPT, TIMINGS, KeptTimings, timing_key
from gpu_offload.orchestrator.github.run_archive import unpack

PUBLIC = ("models/", "aliases/", "index.json")
RUNS = "runs/"
ID_LENGTH = 12
"""Digits of a training's key with which its runs' names begin."""


class KeptFolder(FolderStore):
    """Reads what it lacks once from where it is kept, and holds it from then on. Writes stay here.

    Published objects are kept one by one; the unfinished runs of a training as one archive, `unfinished_key`.
    """

    def __init__(self, root: Path, kept: ObjectStore) -> None:
        super().__init__(root)
        self.kept = kept
        self._asked: set[str] = set()

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag. Raises ObjectMissingError."""
        self._bring(key)
        return super().read(key)

    def stat(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, None where there is none."""
        self._bring(key)
        return super().stat(key)

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        """Read into a temporary file, verify, then rename to `path`. Raises CorruptObjectError, ObjectMissingError."""
        self._bring(key)
        super().download(key, path, size=size, sha256=sha256)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects here, with the kept ones of runs and timings."""
        key = prefix.removeprefix(RUNS)[:ID_LENGTH]
        if prefix.startswith(RUNS) and len(key) == ID_LENGTH and key.isalnum():
            self._bring_runs(key)
        if prefix.startswith(TIMINGS):
            self._bring_timings()
        yield from super().list(prefix)

    def public_url(self, key: str) -> str | None:
        """Return the address of a public object, where it is once it is kept."""
        return self.kept.public_url(key) if key.startswith(PUBLIC) else None

    def _bring(self, key: str) -> None:
        if key in self._asked or not key.startswith(PUBLIC) or self.files.path(key).exists():
            return
        # Asked once, because a plan reads the same missing objects many times.
        self._asked.add(key)
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            path = Path(scratch) / "object"
            if self._fetched(key, path):
                self.upload(key, path)

    def _bring_runs(self, key: str) -> None:
        kept = unfinished_key(key)
        # Runs that are here already are newer than the kept ones.
        if kept in self._asked or any(FolderStore.list(self, f"{RUNS}{key}-")):
            return
        self._asked.add(kept)
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            path, folder = Path(scratch) / "runs.tar", Path(scratch) / "runs"
            if not self._fetched(kept, path):
                return
            unpack(path, folder, only=f"{RUNS}{key}-")
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                self.upload(file.relative_to(folder).as_posix(), file)

    def _bring_timings(self) -> None:
        if KEPT in self._asked:
            return
        self._asked.add(KEPT)
        with suppress(ObjectMissingError, StoreDeniedError, ValidationError):
            kept = KeptTimings.model_validate_json(self.kept.read(KEPT)[0])
            for timing in kept.timings:
                self.put(timing_key(timing.at, timing.run), timing.model_dump_json().encode())

    def _fetched(self, key: str, path: Path) -> bool:
        try:
            self.kept.download(key, path)
        # S3 denies access to a missing object of a bucket that may not be listed.
        except (ObjectMissingError, StoreDeniedError):
            return False
        return True


def unfinished_key(key: str) -> str:
    """Return the key under which a training's unfinished runs are kept; `key` is the training's, or its beginning."""
    return f"unfinished/{key[:ID_LENGTH]}.tar"
