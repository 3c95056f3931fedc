"""Reads all documents of a run together; what is damaged, newer or missing has a meaning for each."""

from dataclasses import dataclass
from typing import TypeVar

from gpu_offload.infra.store.protocol import ObjectInfo
from gpu_offload.orchestrator.run.journal_documents import Documents, JournalError, NewerJournalError
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.record import (
    AttemptEnd,
    AttemptRecord,
    Collected,
    GoneRecord,
    HostRecord,
    LaunchingRecord,
    Outcome,
    StopRequest,
    run_key,
)
from gpu_offload.remote_job.result import CheckpointManifest, Heartbeat, TrainingResult
from gpu_offload.remote_job.wire import Wire

T = TypeVar("T", bound=Wire)


@dataclass(frozen=True, slots=True)
class RunDocuments:
    """A run as the store holds it at one moment."""

    attempts: tuple[ObservedAttempt, ...] = ()
    outcome: Outcome | None = None
    result: TrainingResult | None = None
    collected: Collected | None = None
    checkpoint: CheckpointManifest | None = None
    stop: StopRequest | None = None
    stored_bytes: int = 0
    """Total size of its objects."""
    begun: bool = False
    """Whether its record is there."""


def read_outcome(documents: Documents, run: str) -> Outcome | None:
    """Return how a run ended, None while it is open. An unreadable outcome is an end, too."""
    key = run_key(run, "outcome.json")
    try:
        return documents.read(Outcome, key)
    except NewerJournalError:
        raise
    except JournalError as error:
        # It was written once, at the end: the run must not begin to rent again.
        info = documents.store.stat(key)
        return Outcome(status="failed", at=info.modified.timestamp(), message=str(error)) if info else None


def read_stop(documents: Documents, run: str) -> StopRequest | None:
    """Return the request to end a run, None where there is none. An unreadable request is one, too."""
    key = run_key(run, "stop.json")
    try:
        return documents.read(StopRequest, key)
    except JournalError:
        info, reason = documents.store.stat(key), "a stop was requested, for an unreadable reason"
        return StopRequest(at=info.modified.timestamp(), reason=reason) if info else None


class RunReader:
    """Reads the documents of one run that one listing shows."""

    def __init__(self, documents: Documents, run: str) -> None:
        self._documents, self._run = documents, run
        self._objects: dict[str, ObjectInfo] = {
            info.key: info for info in documents.store.list(run_key(run, ""))
        }

    def read(self) -> RunDocuments:
        """Return everything that is known of the run, with a read for what is new or has changed."""
        attempts: list[ObservedAttempt] = []
        while (record := self._part(AttemptRecord, f"attempts/{len(attempts) + 1}.json")) is not None:
            if record.number != len(attempts) + 1:
                raise JournalError(
                    f"attempt {len(attempts) + 1} of run {self._run} says that it is {record.number}"
                )
            attempts.append(self._attempt(record))
        return RunDocuments(
            begun=self._at("run.json") is not None,
            attempts=tuple(attempts),
            outcome=read_outcome(self._documents, self._run) if self._at("outcome.json") else None,
            result=self._unless_damaged(TrainingResult, "result/result.json"),
            collected=self._part(Collected, "collected.json"),
            checkpoint=self._unless_damaged(CheckpointManifest, "checkpoint/manifest.json"),
            stop=read_stop(self._documents, self._run) if self._at("stop.json") else None,
            stored_bytes=sum(info.size for info in self._objects.values()),
        )

    def _at(self, name: str) -> ObjectInfo | None:
        return self._objects.get(run_key(self._run, name))

    def _part(self, kind: type[T], name: str) -> T | None:
        info = self._at(name)
        return self._documents.read_changed(kind, info.key, info.etag) if info else None

    def _unless_damaged(self, kind: type[T], name: str) -> T | None:
        # The training writes it again from what it has; a newer version's is left to a newer driver.
        try:
            return self._part(kind, name)
        except NewerJournalError:
            raise
        except JournalError:
            return None

    def _attempt(self, record: AttemptRecord) -> ObservedAttempt:
        name = f"attempts/{record.number}"
        return ObservedAttempt(
            record,
            host=self._part(HostRecord, f"{name}.host.json"),
            heartbeat=self._heartbeat(record.number),
            end=self._part(AttemptEnd, f"{name}.end.json"),
            launching=self._part(LaunchingRecord, f"{name}.launching.json"),
            gone=self._part(GoneRecord, f"{name}.gone.json"),
        )

    def _heartbeat(self, number: int) -> Heartbeat | None:
        name = f"attempts/{number}/heartbeat.json"
        try:
            return self._part(Heartbeat, name)
        except JournalError:
            # Unreadable is not absent: its training was alive when it was written.
            written = self._objects[run_key(self._run, name)].modified.timestamp()
            return Heartbeat(
                run=self._run, attempt=number, time=written, pid=0, host="", boot_id="",
                epochs_completed=0, epochs=0, state="training",
            )  # fmt: skip
