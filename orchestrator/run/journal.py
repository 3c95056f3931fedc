"""The journal of runs in the store: what `next_step` reads, and the only place that writes it."""

import contextlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from gpu_offload.infra.store.errors import ObjectChangedError, ObjectExistsError, ObjectMissingError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.run.journal_documents import (
    JournalError,
    NewerJournalError,
    is_newer,
    sequence_of,
    sign_of_life,
    to_json,
)
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.record import (
    RUN_KEY_LENGTH,
    RUN_PREFIX,
    AttemptEnd,
    AttemptRecord,
    Collected,
    HostRecord,
    LaunchingRecord,
    Outcome,
    RunRecord,
    StopRequest,
    run_id,
    run_key,
)
from gpu_offload.remote_job.result import CheckpointManifest, Heartbeat, TrainingResult
from gpu_offload.remote_job.wire import Wire

T = TypeVar("T", bound=Wire)


@dataclass(frozen=True, slots=True)
class Look:
    """A run as the store holds it at one moment."""

    attempts: tuple[ObservedAttempt, ...] = ()
    outcome: Outcome | None = None
    result: TrainingResult | None = None
    collected: Collected | None = None
    checkpoint: CheckpointManifest | None = None
    stop: StopRequest | None = None


class Journal:
    """The runs below one store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._known: dict[str, tuple[str, Wire]] = {}

    def run(self, run: str) -> RunRecord:
        """Return a run. Raises JournalError where there is none."""
        record = self._read(RunRecord, run_key(run, "run.json"))
        if record is None:
            known = ", ".join(list(self.run_ids())[-5:]) or "none yet"
            raise JournalError(f"there is no run {run!r} in {self.store.url} (the last ones: {known})")
        return record

    def run_ids(self, prefix: str = "") -> Iterator[str]:
        """Yield the ids of all runs, or of those that begin with `prefix`."""
        for info in self.store.list(RUN_PREFIX + prefix):
            if match := re.fullmatch(r"runs/([^/]+)/run\.json", info.key):
                yield match[1]

    def open_ids(self) -> list[str]:
        """Return the ids of the runs that have no outcome, readable or not."""
        keys = {info.key for info in self.store.list(RUN_PREFIX)}
        runs = [match[1] for key in sorted(keys) if (match := re.fullmatch(r"runs/([^/]+)/run\.json", key))]
        return [run for run in runs if run_key(run, "outcome.json") not in keys]

    def readable_runs(self, runs: Iterable[str] | None = None) -> tuple[list[RunRecord], list[JournalError]]:
        """Return those of the runs (None: all) whose record can be read, and an error for each of the others."""
        found, unreadable = [], []
        for run in list(self.run_ids()) if runs is None else runs:
            try:
                found.append(self.run(run))
            except JournalError as error:
                unreadable.append(error)
        return found, unreadable

    def runs_of(self, training_key: str) -> list[RunRecord]:
        """Return the runs of one training, in the order of their beginning; damaged records are left out."""
        records, _ = self.readable_runs(self._ids_of(training_key))
        return [r for r in records if r.training_key == training_key]

    def next_id(self, training_key: str) -> str:
        """Return the id that the next run of a training gets; the driver that writes it first begins that run."""
        taken = [sequence_of(r) for r in self._ids_of(training_key)]
        return run_id(training_key, max(taken, default=0) + 1)

    def _ids_of(self, training_key: str) -> list[str]:
        prefix = training_key[:RUN_KEY_LENGTH] + "-"
        ids = [r for r in self.run_ids(prefix) if r.removeprefix(prefix).isdecimal()]
        return sorted(ids, key=sequence_of)

    def begin(self, record: RunRecord) -> RunRecord:
        """Journal a run; return it, or the one that another driver began under the same id a moment before."""
        try:
            self.store.create(run_key(record.id, "run.json"), to_json(record))
        except ObjectExistsError:
            return self.run(record.id)
        return record

    def look(self, run: str) -> "Look":
        """Return everything that is known of a run: one listing, and a read for what is new or has changed."""
        objects = {info.key: info for info in self.store.list(run_key(run, ""))}

        def part(kind: type[T], name: str) -> T | None:
            key = run_key(run, name)
            return self._read_changed(kind, key, objects[key].etag) if key in objects else None

        def heartbeat(number: int) -> Heartbeat | None:
            name = f"attempts/{number}/heartbeat.json"
            try:
                return part(Heartbeat, name)
            except JournalError:
                # Unreadable is not absent: something wrote it just then.
                return sign_of_life(run, number, objects[run_key(run, name)].modified.timestamp())

        def stop() -> StopRequest | None:
            try:
                return part(StopRequest, "stop.json")
            except JournalError:
                at = objects[run_key(run, "stop.json")].modified.timestamp()
                return StopRequest(at=at, reason="a stop was requested, for an unreadable reason")

        def unless_damaged(kind: type[T], name: str) -> T | None:
            # The training writes it again from what it has; a newer version's is left to a newer driver.
            try:
                return part(kind, name)
            except NewerJournalError:
                raise
            except JournalError:
                return None

        attempts: list[ObservedAttempt] = []
        while (record := part(AttemptRecord, f"attempts/{len(attempts) + 1}.json")) is not None:
            name = f"attempts/{record.number}"
            attempts.append(
                ObservedAttempt(
                    record,
                    host=part(HostRecord, f"{name}.host.json"),
                    heartbeat=heartbeat(record.number),
                    end=part(AttemptEnd, f"{name}.end.json"),
                    launching=part(LaunchingRecord, f"{name}.launching.json"),
                )
            )
        return Look(
            attempts=tuple(attempts),
            outcome=self.outcome(run) if run_key(run, "outcome.json") in objects else None,
            result=unless_damaged(TrainingResult, "result/result.json"),
            collected=part(Collected, "collected.json"),
            checkpoint=unless_damaged(CheckpointManifest, "checkpoint/manifest.json"),
            stop=stop(),
        )

    def attempts(self, run: str) -> tuple[ObservedAttempt, ...]:
        """Return the attempts of a run, in order, each with its host, heartbeat and end."""
        return self.look(run).attempts

    def open_attempt(self, run: str, record: AttemptRecord) -> bool:
        """Journal an attempt; False when another driver opened this number first."""
        return self._create(run_key(run, f"attempts/{record.number}.json"), record)

    def record_launching(self, run: str, number: int, at: float) -> None:
        """Journal that the instance of an attempt is asked for now, at `at` in Unix seconds."""
        key = run_key(run, f"attempts/{number}.launching.json")
        if self._create(key, LaunchingRecord(first_at=at, at=at)):
            return
        body, etag = self.store.read(key)
        try:
            first = LaunchingRecord.model_validate_json(body).first_at
        except ValidationError:
            first = at
        with contextlib.suppress(ObjectChangedError):  # then another driver launches now
            self.store.replace(key, to_json(LaunchingRecord(first_at=first, at=at)), etag)

    def record_host(self, run: str, number: int, host: HostRecord) -> None:
        """Journal the instance that an attempt got."""
        self._create(run_key(run, f"attempts/{number}.host.json"), host)

    def close_attempt(self, run: str, end: AttemptEnd) -> bool:
        """Journal how an attempt ended; False when another driver already did."""
        return self._create(run_key(run, f"attempts/{end.number}.end.json"), end)

    def request_stop(self, run: str, request: StopRequest) -> None:
        """Ask the driver of the run to end it."""
        self._create(run_key(run, "stop.json"), request)

    def stop_requested(self, run: str) -> StopRequest | None:
        """Return the request to end the run, if there is one."""
        return self._read(StopRequest, run_key(run, "stop.json"))

    def result(self, run: str) -> TrainingResult | None:
        """Return the staged result, None where there is none."""
        return self._read(TrainingResult, run_key(run, "result/result.json"))

    def discard_result(self, run: str) -> None:
        """Forget a staged result that did not count; the training then finishes again from its checkpoint."""
        self.store.delete(run_key(run, "result/result.json"))

    def collected(self, run: str) -> Collected | None:
        """Return the note that the staged result was verified, if it was."""
        return self._read(Collected, run_key(run, "collected.json"))

    def record_collected(self, run: str, note: Collected) -> None:
        """Journal that the staged result was verified."""
        self._create(run_key(run, "collected.json"), note)

    def checkpoint(self, run: str) -> CheckpointManifest | None:
        """Return the newest complete checkpoint, None where there is none."""
        return self._read(CheckpointManifest, run_key(run, "checkpoint/manifest.json"))

    def copy_checkpoint(self, source: str, target: str) -> None:
        """Let a run start from the checkpoint of an earlier one of the same training; the manifest goes last."""
        manifest = self.checkpoint(source)
        if manifest is None:
            return
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            for artifact in (manifest.last, *([manifest.best] if manifest.best else [])):
                path = Path(scratch) / artifact.name
                key = f"checkpoint/{artifact.name}"
                self.store.download(run_key(source, key), path, size=artifact.size, sha256=artifact.sha256)
                self.store.upload(run_key(target, key), path)
        copied = manifest.model_copy(update={"run": target, "attempt": 0})
        with contextlib.suppress(ObjectExistsError):  # a faster starter's training is further already
            self.store.create(run_key(target, "checkpoint/manifest.json"), to_json(copied))

    def outcome(self, run: str) -> Outcome | None:
        """Return how a run ended, None while it is open. An unreadable outcome is an end, too."""
        try:
            return self._read(Outcome, run_key(run, "outcome.json"))
        except NewerJournalError:
            raise
        except JournalError as error:
            info = self.store.stat(run_key(run, "outcome.json"))
            return (
                Outcome(status="failed", at=info.modified.timestamp(), message=str(error)) if info else None
            )

    def finish(self, run: str, outcome: Outcome) -> Outcome:
        """Journal how a run ended; return what the journal has, which another driver may have written."""
        if self._create(run_key(run, "outcome.json"), outcome):
            return outcome
        return self.outcome(run) or outcome

    def _create(self, key: str, document: Wire) -> bool:
        try:
            self.store.create(key, to_json(document))
        except ObjectExistsError:
            return False
        return True

    def _read_changed(self, kind: type[T], key: str, etag: str) -> T | None:
        """Read a document, unless this etag of it was read before."""
        known = self._known.get(key)
        if known is not None and known[0] == etag and isinstance(known[1], kind):
            return known[1]
        document = self._read(kind, key)
        if document is not None:
            # What was read may be newer than the listing; it is then read once more, which does no harm.
            self._known[key] = etag, document
        return document

    def _read(self, kind: type[T], key: str) -> T | None:
        try:
            body, _ = self.store.read(key)
        except ObjectMissingError:
            return None
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            where = f"{self.store.url}: {key}"
            if is_newer(body):
                raise NewerJournalError(
                    f"{where} was written by a newer version of gpu-offload: use that version, or a newer one"
                ) from error
            faults = "; ".join(
                f"{'.'.join(map(str, f['loc'])) or 'it'}: {f['msg']}" for f in error.errors()[:3]
            )
            raise JournalError(f"{where} is not a readable {kind.__name__} ({faults})") from error
