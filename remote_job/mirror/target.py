"""A run's place in the store, and the rule that only its latest attempt writes there."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gpu_offload.errors import OffloadError
from gpu_offload.infra.store.errors import CorruptObjectError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.remote_job.files import regular_file
from gpu_offload.remote_job.mirror.trouble import Trouble
from gpu_offload.remote_job.result import Artifact, CheckpointManifest, TrainingResult
from gpu_offload.remote_job.spec import TrainingSpec

DOCUMENT_BYTES = 16 << 20
"""Upper limit for manifests and results; ours are a few kilobytes."""


class SupersededError(OffloadError):
    """A later attempt of this run exists: this one was given up and must not write any more."""


class MirrorError(OffloadError):
    """The store lacks what it must hold at the end; the local files are intact."""


@dataclass
class RunFolder:
    """`runs/<run>/` in the store, written by one attempt.

    Code from the repository and data from elsewhere ran in the output folder, so its content is not trusted: links
    are not followed, and documents that name another training, a later attempt or a file outside are not sent.

    Attributes:
        store: The object store.
        spec: The training.
        warn: Receives one line for the log when the store fails.
        stop: Called once with a sentence when a later attempt appears.
        trouble: What the store does not take.
        superseded: Why this attempt must not write any more; None while it may.
    """

    store: ObjectStore
    spec: TrainingSpec
    warn: Callable[[str], None]
    stop: Callable[[str], None]
    trouble: Trouble = field(default_factory=Trouble)
    superseded: str | None = None
    _warned: set[str] = field(default_factory=set)

    @property
    def output(self) -> Path:
        """The training's local output folder."""
        return Path(self.spec.output)

    @property
    def root(self) -> str:
        """Key prefix of the run."""
        return f"runs/{self.spec.run}"

    @property
    def attempt(self) -> str:
        """Key prefix of this attempt."""
        return f"{self.root}/attempts/{self.spec.attempt}"

    def warn_once(self, text: str) -> None:
        """Log an unexpected state of the output folder, once."""
        if text not in self._warned:
            self._warned.add(text)
            self.warn(text)

    def refused(self, what: str, error: Exception) -> None:
        """Log that the store did not take something."""
        self.warn(f"the store did not take the {what}: {error}")
        self.trouble.refused(what, error)

    def owns(self, document: CheckpointManifest | TrainingResult) -> bool:
        """Return whether a document belongs to this training and names only files beside itself."""
        return document.training_key == self.spec.training_key and all(map(is_plain, document.artifacts))

    def download(self, prefix: str, artifact: Artifact, folder: Path) -> None:
        """Download one verified file. Raises StoreError."""
        if not is_plain(artifact):
            raise CorruptObjectError(f"{prefix}: {artifact.name!r} is not a plain file name")
        folder.mkdir(parents=True, exist_ok=True)
        self.store.download(
            f"{prefix}/{artifact.name}", folder / artifact.name, size=artifact.size, sha256=artifact.sha256
        )

    def upload(self, prefix: str, folder: str, artifact: Artifact) -> None:
        """Upload one file of the output folder. Raises StoreError, OSError."""
        key = f"{prefix}/{artifact.name}"
        with regular_file.path_of(self.output, f"{folder}/{artifact.name}") as path:
            info = self.store.upload(key, path)
        if info.size != artifact.size:
            raise CorruptObjectError(f"{key}: the store holds {info.size} bytes of {artifact.size}")

    def put_manifest(self, key: str, body: bytes) -> bool:
        """Replace a manifest unless a later attempt wrote it; return whether this one is there now."""
        if self.store.stat(key) is None:
            self.store.create(key, body)  # fails if another attempt creates it first
            return True
        current, etag = self.store.read(key)
        attempt = _attempt_of(current)
        if attempt > self.spec.attempt:
            self.give_up(attempt)
            return False
        # Raises when another writer came in between; the next try reads again.
        self.store.replace(key, body, etag)
        return True

    def look_for_later_attempt(self) -> None:
        """Give up when a later attempt has started: its first trace is a heartbeat."""
        later = self.spec.attempt + 1
        while self.store.stat(f"{self.root}/attempts/{later}/heartbeat.json") is None:
            # The journal may have one whose instance was never launched, and then the one after it.
            if self.store.stat(f"{self.root}/attempts/{later}.json") is None:
                return
            later += 1
        self.give_up(later)

    def give_up(self, attempt: int) -> None:
        """Stop writing, and stop the training, because a later attempt is active."""
        if self.superseded is None:
            self.superseded = self.later(attempt)
            self.stop(self.superseded)

    def later(self, attempt: int) -> str:
        """Explain that a later attempt is active."""
        return (
            f"attempt {attempt} of run {self.spec.run} is under way and this is attempt {self.spec.attempt}, "
            "which was given up for dead; nothing more is written"
        )


def is_plain(artifact: Artifact) -> bool:
    """Return whether an artifact's name is a visible file name without a folder."""
    return Path(artifact.name).name == artifact.name and not artifact.name.startswith(".")


def _attempt_of(body: bytes) -> int:
    """Return the attempt that wrote a manifest, 0 where it is unreadable."""
    try:
        return int(json.loads(body)["attempt"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0
