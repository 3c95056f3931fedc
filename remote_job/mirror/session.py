"""Mirrors a training's output to the store while it runs, and completes the upload at its end.

A failing store does not disturb the training: uploads run in background threads and are tried again, and only the
newest checkpoint is waited for. The store stops a training in one case: when a later attempt of the same run has started,
because this one was given up.
"""

import threading
import time
from collections.abc import Callable

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.remote_job.files.checkpoint import Checkpoints
from gpu_offload.remote_job.mirror import download
from gpu_offload.remote_job.mirror.checkpoints import CheckpointUploads
from gpu_offload.remote_job.mirror.result import ResultUpload
from gpu_offload.remote_job.mirror.target import RunFolder, SupersededError
from gpu_offload.remote_job.mirror.traces import TraceUploads
from gpu_offload.remote_job.mirror.trouble import Trouble
from gpu_offload.remote_job.result import CheckpointManifest
from gpu_offload.remote_job.spec import TrainingSpec

INTERVAL = 15.0
"""Seconds between two uploads of heartbeat, progress and log."""
BACKOFF = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Seconds between tries; the last one repeats."""
RESULT_SECONDS = 900.0
"""Time limit for the upload of the result, with all retries."""
CHECKPOINT_SECONDS = 100.0
"""Time limit for an interrupted training's last checkpoint; a spot notice leaves two minutes."""


class Mirror:
    """Keeps `runs/<run>/...` in the store as described in `remote_job.result`.

    `warn` gets a line when the store fails, `stop` a sentence when a later attempt appears. The store has the checkpoint
    `known` already. `trouble` decides what becomes of a store that does not take what is written; by default it is logged.
    """

    def __init__(
        self,
        store: ObjectStore,
        spec: TrainingSpec,
        *,
        warn: Callable[[str], None],
        stop: Callable[[str], None],
        known: CheckpointManifest | None = None,
        trouble: Trouble | None = None,
    ) -> None:
        self._trouble = trouble or Trouble()
        self._target = RunFolder(store, spec, warn, stop, self._trouble)
        self._checkpoints = CheckpointUploads(self._target, known)
        self._traces = TraceUploads(self._target)
        self._news = threading.Condition()
        self._closing = False
        self._result_sent = True
        self._deadline = float("inf")
        self._threads = [
            threading.Thread(target=self._keep_traces, name="mirror-traces", daemon=True),
            threading.Thread(target=self._keep_checkpoint, name="mirror-checkpoint", daemon=True),
        ]

    @property
    def superseded(self) -> str | None:
        """Why this attempt must not write any more; None while it may."""
        return self._target.superseded

    @property
    def given_up(self) -> str | None:
        """Why the attempt was given up: what it trains cannot be kept. None while it is not."""
        return self._trouble.given_up

    def fetch_result(self) -> bool:
        """Download the result of this training if the store has it; see `download.fetch_result`."""
        return download.fetch_result(self._target)

    def fetch_checkpoint(self, checkpoints: Checkpoints) -> None:
        """Download the store's checkpoint if it is ahead of the local one; see `download.fetch_checkpoint`."""
        manifest = download.fetch_checkpoint(self._target, checkpoints)
        if manifest is not None:
            self._checkpoints.has(manifest)

    def start(self) -> None:
        """Begin to upload."""
        for thread in self._threads:
            thread.start()

    def checkpoint_saved(self) -> None:
        """Announce a new checkpoint."""
        with self._news:
            self._news.notify_all()

    def send_result(self, *, seconds: float = RESULT_SECONDS) -> bool:
        """Upload the result and return whether there is one.

        Raises:
            MirrorError: It is not there after `seconds`, or it is not this training's.
            SupersededError: A later attempt is under way, which will have a result of its own.
        """
        if self.superseded:
            raise SupersededError(self.superseded)
        self._result_sent = False
        found = ResultUpload(self._target, BACKOFF).send(seconds)
        self._result_sent = True
        return found

    def report_failure(self, message: str) -> None:
        """Report in the last heartbeat that the training failed, for a process that ended without reporting it."""
        self._traces.report_failure(message)

    def close(self, *, seconds: float = CHECKPOINT_SECONDS) -> bool:
        """Upload what is left and end; return whether the newest checkpoint is in the store.

        The traces go last, with the final heartbeat.
        """
        with self._news:
            self._closing = True
            self._deadline = time.monotonic() + seconds
            self._news.notify_all()
        traces, checkpoint = self._threads
        if checkpoint.is_alive():
            checkpoint.join(seconds)
        complete = not checkpoint.is_alive() and self._checkpoints.pending() is None
        if self.given_up and not (complete and self._result_sent):
            self._traces.report_failure(self.given_up)
        if traces.is_alive():
            traces.join(min(seconds, INTERVAL))  # an upload under way may bring an older heartbeat
        last = threading.Thread(target=self._last_traces, name="mirror-last", daemon=True)
        last.start()
        last.join(min(seconds, INTERVAL))
        return complete

    # -- the background threads ----------------------------------------------------------------------------

    def _keep_traces(self) -> None:
        while not self._closing:
            try:
                self._traces.send()
            except (StoreError, OSError) as error:
                self._target.refused("heartbeat", error)
            else:
                self._trouble.took("heartbeat")
                self._look_for_later_attempt()
            with self._news:
                self._news.wait_for(lambda: self._closing, timeout=INTERVAL)

    def _look_for_later_attempt(self) -> None:
        try:
            self._target.look_for_later_attempt()
        except (StoreError, OSError) as error:
            self._target.warn(f"the store did not say whether a later attempt is under way: {error}")

    def _keep_checkpoint(self) -> None:
        failures = 0
        while True:
            with self._news:
                self._news.wait_for(
                    lambda: self._closing or self._checkpoints.pending() is not None, timeout=BACKOFF[-1]
                )
            manifest = None if self.superseded else self._checkpoints.pending()
            if manifest is None:
                if self._closing:
                    return
                continue
            try:
                self._checkpoints.send(manifest)
                self._trouble.took("checkpoint")
                failures = 0
            except (StoreError, OSError) as error:
                # The training prunes its own checkpoints: a file that is gone belonged to an older one.
                replaced = isinstance(error, FileNotFoundError) and self._checkpoints.pending() != manifest
                if not replaced:
                    self._target.refused("checkpoint", error)
                    self._pause(BACKOFF[min(failures, len(BACKOFF) - 1)])
                    failures += 1
            if self._closing and time.monotonic() > self._deadline:
                return

    def _pause(self, seconds: float) -> None:
        """Wait before the next try; at most a second once the training is over."""
        with self._news:
            self._news.wait_for(lambda: self._closing, timeout=seconds)
        if self._closing:
            time.sleep(min(1.0, max(0.0, self._deadline - time.monotonic())))

    def _last_traces(self) -> None:
        try:
            self._traces.send(last=True)
        except (StoreError, OSError) as error:
            self._target.warn(f"the store did not take the last heartbeat: {error}")
