"""The training's traces in the store, while it goes on and at its end.

A store that does not answer costs the training nothing: uploads happen in the background, are tried again, and
only the newest checkpoint is ever waited for. What the store says can stop a training, though: a later attempt
of the same run means that this one was given up for dead.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from gpu_offload.errors import OffloadError
from gpu_offload.remote_job.files import regular_file
from gpu_offload.remote_job.files.checkpoint import (
    MANIFEST,
    CheckpointMismatchError,
    Checkpoints,
    position,
)
from gpu_offload.remote_job.result import Artifact, CheckpointManifest, TrainingResult
from gpu_offload.remote_job.spec import TrainingSpec
from gpu_offload.remote_job.store import Store

INTERVAL = 15.0
"""Seconds between two uploads of heartbeat, progress and log."""
BACKOFF = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
RESULT_SECONDS = 900.0
"""How long the result may take to be uploaded, with all retries."""
CHECKPOINT_SECONDS = 100.0
"""How long an interrupted training may take to upload what resumes; a spot notice leaves two minutes."""
TRACES = ("progress.jsonl", "heartbeat.json", "log.txt")
TRACE_BYTES = 64 << 20
DOCUMENT_BYTES = 16 << 20
"""More than any trace, and any manifest or result, of ours has."""


LAST_WORDS = {"finished", "failed", "interrupted"}
"""States of a heartbeat after which nothing more comes."""


class SupersededError(OffloadError):
    """A later attempt of this run exists: this one was given up for dead and must not write any more."""


class MirrorError(OffloadError):
    """What had to be in the store at the end is not there; the local files are intact."""


class Mirror:
    """Keeps `runs/<run>/...` in the store as `remote_job.result` documents.

    What it finds in the output folder may be the work of a training that was led astray by its data: no link is
    followed there, and what names another training, a later attempt or a file elsewhere is not sent.

    Args:
        store: Where to.
        spec: The training.
        warn: Gets a line for the log when the store fails.
        stop: Called with a sentence when a later attempt is seen.
        known: The checkpoint that the store has already.
    """

    def __init__(
        self,
        store: Store,
        spec: TrainingSpec,
        *,
        warn: Callable[[str], None],
        stop: Callable[[str], None],
        known: CheckpointManifest | None = None,
    ) -> None:
        self._store = store
        self._spec = spec
        self._output = Path(spec.output)
        self._warn = warn
        self._stop = stop
        self._root = f"runs/{spec.run}"
        self._attempt = f"{self._root}/attempts/{spec.attempt}"
        self._uploaded: list[CheckpointManifest] = [known] if known else []
        self._doubts: set[str] = set()
        self._sent: dict[str, tuple[int, int]] = {}
        self._news = threading.Condition()
        self._closing = False
        self._deadline = float("inf")
        self.superseded: str | None = None
        self._threads = [
            threading.Thread(target=self._keep_traces, name="mirror-traces", daemon=True),
            threading.Thread(target=self._keep_checkpoint, name="mirror-checkpoint", daemon=True),
        ]

    # -- before the training ----------------------------------------------------------------------------

    def fetch_result(self) -> bool:
        """Download the result of this very training if the store has it; say whether it is there.

        Raises:
            CheckpointMismatchError: The run's result is another training's.
        """
        key = f"{self._root}/result/result.json"
        if self._store.stat(key) is None:
            return False
        body, _ = self._store.read(key)
        result = TrainingResult.model_validate_json(body)
        if result.training_key != self._spec.training_key:
            raise CheckpointMismatchError(
                f"{key}: the run's result is another training's ({result.training_key})"
            )
        folder = self._output / "result"
        for artifact in (result.model, *result.extras):
            self._fetch(f"{self._root}/result", artifact, folder)
        (folder / "result.json").write_bytes(body)
        return True

    def fetch_checkpoint(self, checkpoints: Checkpoints) -> None:
        """Download the store's checkpoint if it is further than the local one.

        Raises:
            SupersededError: A later attempt wrote it.
            CheckpointMismatchError: It is another training's.
        """
        local = checkpoints.load()
        for manifest in sorted(self._manifests(), key=position, reverse=True):
            if manifest.attempt > self._spec.attempt:
                raise SupersededError(self._later(manifest.attempt))
            if manifest.training_key != self._spec.training_key:
                raise CheckpointMismatchError(
                    f"{self._root}/checkpoint: the run's checkpoint is another training's ({manifest.training_key})"
                )
            if local is not None and position(manifest) <= local.position:
                return
            try:
                for artifact in filter(None, (manifest.last, manifest.best)):
                    self._fetch(f"{self._root}/checkpoint", artifact, checkpoints.folder)
            except Exception as error:  # noqa: BLE001 - the store's own exceptions are not ours to import
                self._warn(
                    f"checkpoint after epoch {manifest.epochs_completed} in the store was skipped: {error}"
                )
                continue
            checkpoints.adopt(manifest)
            self._uploaded = [manifest]
            return

    def _manifests(self) -> Iterator[CheckpointManifest]:
        for info in self._store.list(f"{self._root}/checkpoint/"):
            if not info.key.endswith(".json"):
                continue
            body, _ = self._store.read(info.key)
            try:
                yield CheckpointManifest.model_validate_json(body)
            except ValidationError:
                self._warn(f"{info.key}: is not a checkpoint manifest, skipped")

    def _fetch(self, prefix: str, artifact: Artifact, folder: Path) -> None:
        if not _is_plain(artifact):
            raise ValueError(f"{artifact.name!r} is not a plain file name")
        folder.mkdir(parents=True, exist_ok=True)
        self._store.download(
            f"{prefix}/{artifact.name}", folder / artifact.name, size=artifact.size, sha256=artifact.sha256
        )

    # -- while it trains ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to upload."""
        for thread in self._threads:
            thread.start()

    def checkpoint_saved(self) -> None:
        """Say that there is a new checkpoint."""
        with self._news:
            self._news.notify_all()

    def _keep_traces(self) -> None:
        while not self._closing:
            try:
                self._send_traces()
                self._look_for_later_attempt()
            except Exception as error:  # noqa: BLE001 - whatever the store raises, the next round tries again
                self._warn(f"the store did not take the heartbeat: {error}")
            with self._news:
                self._news.wait_for(lambda: self._closing, timeout=INTERVAL)

    def _keep_checkpoint(self) -> None:
        failures = 0
        while True:
            with self._news:
                self._news.wait_for(lambda: self._closing or self._pending() is not None, timeout=BACKOFF[-1])
            manifest = None if self.superseded else self._pending()
            if manifest is None:
                if self._closing:
                    return
                continue
            try:
                self._send_checkpoint(manifest)
                failures = 0
            except Exception as error:  # noqa: BLE001 - as above
                if not (isinstance(error, FileNotFoundError) and self._pending() != manifest):
                    self._warn(f"the store did not take the checkpoint: {error}")
                    self._pause(BACKOFF[min(failures, len(BACKOFF) - 1)])
                    failures += 1
            if self._closing and time.monotonic() > self._deadline:
                return

    def _pause(self, seconds: float) -> None:
        """Wait before the next try; not for long when the training is over."""
        with self._news:
            self._news.wait_for(lambda: self._closing, timeout=seconds)
        if self._closing:
            time.sleep(min(1.0, max(0.0, self._deadline - time.monotonic())))

    def _pending(self) -> CheckpointManifest | None:
        """Return the newest local checkpoint if the store does not have it."""
        try:
            body = regular_file.read(self._output, f"checkpoint/{MANIFEST}", limit=DOCUMENT_BYTES)
            manifest = CheckpointManifest.model_validate_json(body)
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            self._doubt(f"checkpoint/{MANIFEST} is not one: {error}")
            return None
        if self._uploaded and self._uploaded[-1] == manifest:
            return None
        if not self._is_ours(manifest, _artifacts(manifest)) or manifest.attempt > self._spec.attempt:
            self._doubt(
                f"checkpoint/{MANIFEST} names another training, a later attempt or a file elsewhere: not sent"
            )
            return None
        return manifest

    def _is_ours(self, document: CheckpointManifest | TrainingResult, artifacts: Iterable[Artifact]) -> bool:
        return document.training_key == self._spec.training_key and all(map(_is_plain, artifacts))

    def _doubt(self, text: str) -> None:
        """Warn once of something in the output that is not as a training of ours leaves it."""
        if text not in self._doubts:
            self._doubts.add(text)
            self._warn(text)

    def _send_checkpoint(self, manifest: CheckpointManifest) -> None:
        """Upload files first, manifests last; drop what is older than the previous checkpoint."""
        prefix = f"{self._root}/checkpoint"
        known = {artifact.name for other in self._uploaded for artifact in _artifacts(other)}
        for artifact in _artifacts(manifest):
            if artifact.name not in known:
                self._send(prefix, "checkpoint", artifact)
        body = manifest.model_dump_json(indent=1).encode()
        if not self._put_manifest(f"{prefix}/{MANIFEST}", body):
            return
        self._store.put(f"{prefix}/{Path(manifest.last.name).stem}.json", body)
        self._uploaded = [*self._uploaded[-1:], manifest]
        kept = {MANIFEST}
        for other in self._uploaded:
            kept |= {f"{Path(other.last.name).stem}.json", *(artifact.name for artifact in _artifacts(other))}
        for info in list(self._store.list(f"{prefix}/")):
            if info.key.rsplit("/", 1)[-1] not in kept:
                self._store.delete(info.key)

    def _put_manifest(self, key: str, body: bytes) -> bool:
        """Replace the manifest unless a later attempt's is there; say whether it was."""
        if self._store.stat(key) is None:
            self._store.create(key, body)
            return True
        current, etag = self._store.read(key)
        attempt = _attempt_of(current)
        if attempt > self._spec.attempt:
            self._give_up(attempt)
            return False
        # Raises if somebody wrote in between; the next try looks again who it was.
        self._store.replace(key, body, etag)
        return True

    def _look_for_later_attempt(self) -> None:
        later = self._spec.attempt + 1
        if self._store.stat(f"{self._root}/attempts/{later}/heartbeat.json") is not None:
            self._give_up(later)

    def _give_up(self, attempt: int) -> None:
        if self.superseded is None:
            self.superseded = self._later(attempt)
            self._stop(self.superseded)

    def _later(self, attempt: int) -> str:
        return (
            f"attempt {attempt} of run {self._spec.run} is under way and this is attempt {self._spec.attempt}, "
            "which was given up for dead; nothing more is written"
        )

    def _send_traces(self, *, last: bool = False) -> None:
        """Send what has changed; that the training is over only as the last thing.

        Whoever reads it may let go of this machine at once.
        """
        for name in TRACES:
            try:
                with regular_file.opened(self._output, name) as descriptor:
                    stat = os.fstat(descriptor)
                    mark = (stat.st_size, stat.st_mtime_ns)
                    if self._sent.get(name) == mark:
                        continue
                # Read at once: a file that grows while it is streamed has no length to announce.
                body = regular_file.read(self._output, name, limit=TRACE_BYTES)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._doubt(str(error))
                continue
            if name == "heartbeat.json" and not last and _is_over(body):
                continue
            self._store.put(f"{self._attempt}/{name}", body)
            self._sent[name] = mark

    def _send(self, prefix: str, folder: str, artifact: Artifact) -> None:
        key = f"{prefix}/{artifact.name}"
        with regular_file.path_of(self._output, f"{folder}/{artifact.name}") as path:
            info = self._store.upload(key, path)
        if info.size != artifact.size:
            raise MirrorError(f"{key}: the store holds {info.size} bytes of {artifact.size}")

    # -- at its end ---------------------------------------------------------------------------------------

    def send_result(self, *, seconds: float = RESULT_SECONDS) -> bool:
        """Upload the result, artifacts first, result.json last; say whether there is one.

        Raises:
            MirrorError: It is not there after `seconds`, or it is not this training's.
            SupersededError: A later attempt is under way, which will have a result of its own.
        """
        if self.superseded:
            raise SupersededError(self.superseded)
        folder, prefix = self._output / "result", f"{self._root}/result"
        try:
            body, artifacts = self._staged()
        except FileNotFoundError:
            return False
        failure: list[str] = []
        done = threading.Event()
        deadline = time.monotonic() + seconds

        def send() -> None:
            for pause in (*BACKOFF, *[BACKOFF[-1]] * 100):
                try:
                    for artifact in artifacts:
                        self._send(prefix, "result", artifact)
                    self._store.put(f"{prefix}/result.json", body)
                except Exception as error:  # noqa: BLE001 - as above
                    failure.append(str(error))
                    self._warn(f"the store did not take the result: {error}")
                    hopeless = isinstance(error, regular_file.UnexpectedFileError)
                    if hopeless or time.monotonic() + pause > deadline:
                        return
                    time.sleep(pause)
                else:
                    done.set()
                    return

        sender = threading.Thread(target=send, name="mirror-result", daemon=True)
        sender.start()
        sender.join(seconds)
        if not done.is_set():
            why = failure[-1] if failure else f"no answer within {seconds:.0f} s"
            raise MirrorError(
                f"the result is complete in {folder}, but the store did not take it ({why}); start the training "
                "again when the store answers, and it is uploaded without training again"
            )
        return True

    def _staged(self) -> tuple[bytes, tuple[Artifact, ...]]:
        """Return the staged result's document and the files it names. Raises FileNotFoundError, MirrorError."""
        try:
            body = regular_file.read(self._output, "result/result.json", limit=DOCUMENT_BYTES)
            result = TrainingResult.model_validate_json(body)
        except FileNotFoundError:
            raise
        except (OSError, ValidationError) as error:
            raise MirrorError(f"{self._output / 'result'}: holds no result of ours: {error}") from error
        artifacts = (result.model, *result.extras)
        if not self._is_ours(result, artifacts):
            raise MirrorError(
                f"{self._output / 'result'}: the result is another training's, or names files elsewhere"
            )
        return body, artifacts

    def close(self, *, seconds: float = CHECKPOINT_SECONDS) -> bool:
        """Upload what is left, and end; say whether the newest checkpoint is in the store.

        The traces are uploaded last, with what the heartbeat says in the end.
        """
        with self._news:
            self._closing = True
            self._deadline = time.monotonic() + seconds
            self._news.notify_all()
        traces, checkpoint = self._threads
        if checkpoint.is_alive():
            checkpoint.join(seconds)
        complete = not checkpoint.is_alive() and self._pending() is None
        if traces.is_alive():
            traces.join(min(seconds, INTERVAL))
        last = threading.Thread(target=self._last_traces, name="mirror-last", daemon=True)
        last.start()
        last.join(min(seconds, INTERVAL))
        return complete

    def _last_traces(self) -> None:
        try:
            self._send_traces(last=True)
        except Exception as error:  # noqa: BLE001 - as above
            self._warn(f"the store did not take the last heartbeat: {error}")


def _artifacts(manifest: CheckpointManifest) -> list[Artifact]:
    return [manifest.last, *([manifest.best] if manifest.best else [])]


def _is_plain(artifact: Artifact) -> bool:
    return Path(artifact.name).name == artifact.name and not artifact.name.startswith(".")


def _is_over(heartbeat: bytes) -> bool:
    """Whether a heartbeat says that the training has ended, one way or another."""
    try:
        return json.loads(heartbeat)["state"] in LAST_WORDS
    except (ValueError, KeyError, TypeError):
        return False


def _attempt_of(body: bytes) -> int:
    """Return which attempt wrote a manifest, 0 where that cannot be told."""
    try:
        return int(json.loads(body)["attempt"])
    except (ValueError, KeyError, TypeError):
        return 0
