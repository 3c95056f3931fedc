"""Reads the progress events of an attempt from the store as they arrive."""

from dataclasses import dataclass

from pydantic import ValidationError

from gpu_offload.infra.store.errors import ObjectMissingError, StoreUnreachableError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.run.record import run_key
from gpu_offload.remote_job.result import ProgressEvent


@dataclass(slots=True)
class EventReader:
    """Reads the progress of one attempt of a run."""

    store: ObjectStore
    run: str
    attempt: int
    _lines: int = 0

    def read(self) -> list[ProgressEvent]:
        """Return the events that are new since the last call; none while the store does not answer."""
        try:
            body, _ = self.store.read(run_key(self.run, f"attempts/{self.attempt}/progress.jsonl"))
        except (ObjectMissingError, StoreUnreachableError):
            return []
        lines = body.split(b"\n")[:-1]  # the last one can be half written
        events = []
        for line in lines[self._lines :]:
            try:
                events.append(ProgressEvent.model_validate_json(line))
            except ValidationError:
                continue
        self._lines = len(lines)
        return events


def events_of(store: ObjectStore, run: str, attempt: int) -> tuple[ProgressEvent, ...]:
    """Return all events of an attempt's training; invalid lines are left out."""
    try:
        body, _ = store.read(run_key(run, f"attempts/{attempt}/progress.jsonl"))
    except ObjectMissingError:
        return ()
    events = []
    for line in body.splitlines():
        try:
            events.append(ProgressEvent.model_validate_json(line))
        except ValidationError:
            continue
    return tuple(events)
