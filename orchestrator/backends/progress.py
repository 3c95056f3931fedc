"""Follow a training by what it puts into the store: all that a driver without its SSH keys has, and enough."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from gpu_offload.infra.store.errors import ObjectMissingError, StoreUnreachableError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.record import RunRecord, run_key
from gpu_offload.remote_job.result import ProgressEvent

POLL_S = 60.0
"""Between two reads of the progress: 60 calls an hour."""

SLICE_S = 1.0
LAST_WORDS = {"finished", "failed", "interrupted"}


@dataclass(slots=True)
class StoreWatch:
    """What is known of one attempt's progress."""

    store: ObjectStore
    run: RunRecord
    attempt: int
    console: Console
    pause: Callable[[float], None]
    clock: Callable[[], float] = time.monotonic
    _events: int = 0

    def follow(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Show the progress for so long; return early when the training has ended, or when `until` says so."""
        end = self.clock() + seconds
        with self.console.training(self.run.estimate.likely) as show:
            while not self._read(show):
                next_read = min(end, self.clock() + POLL_S)
                while self.clock() < next_read:
                    if until():
                        return
                    self.pause(min(SLICE_S, max(0.0, next_read - self.clock())))
                if self.clock() >= end:
                    return

    def _read(self, show: Callable[[ProgressEvent], None]) -> bool:
        """Show what is new; return whether the training has ended."""
        try:
            body, _ = self.store.read(run_key(self.run.id, f"attempts/{self.attempt}/progress.jsonl"))
        except (ObjectMissingError, StoreUnreachableError):
            return False
        lines = body.split(b"\n")[:-1]
        over = False
        for line in lines[self._events :]:
            try:
                event = ProgressEvent.model_validate_json(line)
            except ValidationError:
                continue
            show(event)
            over = over or event.event in LAST_WORDS
        self._events = len(lines)
        return over
