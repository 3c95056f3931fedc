"""Waits for another driver, for what an instance says, or for time to pass."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.epoch import epoch_line
from gpu_offload.orchestrator.output.units import human_duration
from gpu_offload.orchestrator.run.attempts import Attempts
from gpu_offload.orchestrator.run.closing import ENDING_POLL_S
from gpu_offload.orchestrator.run.events import EventReader
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.run.lease import holder_text
from gpu_offload.orchestrator.run.next_step import LONGEST_WAIT_S
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.record import AttemptRecord, RunRecord
from gpu_offload.orchestrator.run.step import Wait


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
        except JournalError:  # the driver reports it
            return None
        return attempts[-1].record if attempts else None


@dataclass
class Waiting:
    """Waits, and logs each reason once."""

    run: RunRecord
    attempts: Attempts
    bystander: Bystander
    console: Console
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    _said: str = ""

    def wait(self, wait: Wait, observation: Observation) -> None:
        """Wait as a step asks; follow the instance or the other driver meanwhile."""
        if observation.driver is not None and observation.outcome is None:
            self.bystander.look(observation.driver)
            self.sleep(wait.seconds)
            return
        current, cloud = observation.current, self.attempts.cloud
        if wait.follows and cloud is not None and current is not None:
            began = self.clock()
            ended = cloud.follow(self.run, current, wait.seconds)
            if ended is not None:
                self.attempts.close(current.record.number, *ended)
            elif self.clock() - began < ENDING_POLL_S:
                self.sleep(ENDING_POLL_S)  # it has nothing to follow, and the heartbeat does not say so
            return
        # Logged once, so that a long wait is not silent but its checks are.
        reason = re.sub(r"\d+", "", wait.reason)  # minutes pass
        tell = self.console.detail if reason == self._said or wait.seconds < 30 else self.console.note
        self._said = reason
        tell(f"waiting: {wait.reason}")
        self.sleep(min(wait.seconds, LONGEST_WAIT_S))
