"""Reads the progress events of an attempt from the store."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from gpu_offload.infra.store.errors import ObjectMissingError, StoreUnreachableError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.run.record import run_key
from gpu_offload.remote_job.result import ProgressEvent


def parse_events(lines: Iterable[bytes | str]) -> Iterator[ProgressEvent]:
    """Yield the events of a training's progress; other lines are the user's own output, or half written."""
    for line in lines:
        try:
            yield ProgressEvent.model_validate_json(line)
        except ValidationError:
            continue


def events_of(store: ObjectStore, run: str, attempt: int) -> tuple[ProgressEvent, ...]:
    """Return all events of an attempt's training."""
    try:
        body, _ = store.read(run_key(run, f"attempts/{attempt}/progress.jsonl"))
    except ObjectMissingError:
        return ()
    return tuple(parse_events(body.splitlines()))


@dataclass(slots=True)
class EventReader:
    """Reads the progress of one attempt of a run as it arrives."""

    store: ObjectStore
    run: str
    attempt: int
    position: int = 0
    """Bytes of it that were read, in whole lines."""

    def read(self) -> list[ProgressEvent]:
        """Return the events that are new since the last call; none while the store does not answer."""
        try:
            body, _ = self.store.read(run_key(self.run, f"attempts/{self.attempt}/progress.jsonl"))
        except (ObjectMissingError, StoreUnreachableError):
            return []
        end = body.rfind(b"\n") + 1  # the last line can be half written
        new, self.position = body[self.position : end], max(self.position, end)
        return list(parse_events(new.splitlines()))
