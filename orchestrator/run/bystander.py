"""Follows a run that another process drives, until it ends or its lease is free."""

from collections.abc import Callable
from dataclasses import dataclass

from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.epoch import epoch_line
from gpu_offload.orchestrator.output.units import human_duration
from gpu_offload.orchestrator.run.events import EventReader
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.run.lease import holder_text
from gpu_offload.orchestrator.run.record import AttemptRecord, RunRecord


@dataclass(slots=True)
class Bystander:
    """Names the driver of a run once, then shows its epochs."""

    run: RunRecord
    journal: Journal
    console: Console
    clock: Callable[[], float]
    driver: str | None = None
    """The driver that is being followed, None while this process drives."""
    _reader: EventReader | None = None

    def look(self, driver: str) -> None:
        """Show what is new of a run that `driver` drives."""
        latest = self._latest_attempt()
        since = latest.created_at if latest else self.run.created_at
        is_new = driver != self.driver
        if is_new:
            self.driver = driver
            self.console.stage(
                f"run {self.run.id} is driven by {holder_text(driver)}, for {human_duration(self.clock() - since)} now; "
                "following it (Ctrl-C ends only this command)"
            )
        if latest is None:
            return
        if self._reader is None or self._reader.attempt != latest.number:
            self._reader = EventReader(self.journal.store, self.run.id, latest.number)
        epochs = [event for event in self._reader.read() if event.event == "epoch"]
        for event in epochs[-1:] if is_new else epochs:
            self.console.note(epoch_line(event))

    def _latest_attempt(self) -> AttemptRecord | None:
        try:
            attempts = self.journal.attempts(self.run.id)
        except JournalError:  # a matter for the driver
            return None
        return attempts[-1].record if attempts else None
