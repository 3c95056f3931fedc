"""Follows a training by its progress in the store, for a driver without SSH keys or connection."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.events import EventReader
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.revision import Revision
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
    reader: EventReader = field(init=False)
    _revision: Revision = field(init=False)

    def __post_init__(self) -> None:
        self.reader = EventReader(self.store, self.run.id, self.attempt)
        self._revision = Revision(self.run, self.run.created_at)

    def follow(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Show the progress for so many seconds; return early once the training has ended or `until` is true."""
        end = self.clock() + seconds
        with self.console.training(self.run.estimate.likely, self._revision.take) as show:
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
        over = False
        for event in self.reader.read():
            show(event)
            over = over or event.event in LAST_WORDS
        return over
