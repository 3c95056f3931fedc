"""The journal of runs in the store: what `next_step` reads, and the only place that writes it."""

import contextlib
import itertools
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from gpu_offload.infra.parallel import each
from gpu_offload.infra.store.errors import ObjectChangedError, ObjectExistsError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.run.journal_documents import Documents, JournalError, sequence_of, to_json
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.record import (
    RUN_KEY_LENGTH,
    RUN_PREFIX,
    AttemptEnd,
    AttemptRecord,
    Collected,
    GoneRecord,
    HostRecord,
    LaunchingRecord,
    Outcome,
    RunRecord,
    StopRequest,
    run_key,
)
from gpu_offload.orchestrator.run.run_documents import RunDocuments, RunReader, read_outcome, read_stop
from gpu_offload.orchestrator.run.run_index import RunIndex
from gpu_offload.remote_job.result import CheckpointManifest, TrainingResult


class Journal:
    """The runs below one store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.index = RunIndex(store)
        self._documents = Documents(store)

    def run(self, run: str) -> RunRecord:
        """Return a run. Raises JournalError where there is none."""
        record = self._documents.read(RunRecord, run_key(run, "run.json"))
        if record is None:
            known = ", ".join(self.recent_ids(5)) or "none yet"
            raise JournalError(f"there is no run {run!r} in {self.store.url} (the last ones: {known})")
        if record.id != run:
            raise JournalError(
                f"{self.store.url}: {run_key(run, 'run.json')} is the record of another run: {record.id!r}"
            )
        return record

    def run_ids(self, prefix: str = "") -> Iterator[str]:
        """Yield the ids of all runs, or of those that begin with `prefix`."""
        for info in self.store.list(RUN_PREFIX + prefix):
            if match := re.fullmatch(r"runs/([^/]+)/run\.json", info.key):
                yield match[1]

    def open_ids(self, *, now: float | None = None, write: bool = True) -> list[str]:
        """Return the ids of runs without an outcome, readable or not; `now` and `write` as in `RunIndex`."""
        index = self.index if write else RunIndex(self.store, writes=False)
        return index.open_ids(now=now)

    def open_commits(self, but: str) -> list[str]:
        """Return the commits whose models are still trained, without those of the version `but` and of sweeps."""
        records, _ = self.readable_runs(self.open_ids(write=False))
        return [r.commit for r in records if r.commit is not None and r.version != but and r.sweep is None]

    def recent_ids(self, count: int) -> list[str]:
        """Return the ids of the runs that began last, the newest first."""
        return list(itertools.islice(self.index.recent(), count))

    def readable_runs(self, runs: Iterable[str] | None = None) -> tuple[list[RunRecord], list[JournalError]]:
        """Return those of the runs (None: all) whose record can be read, and an error for each of the others."""
        read = each(self._readable, self.run_ids() if runs is None else runs)
        return [r for r in read if isinstance(r, RunRecord)], [r for r in read if isinstance(r, JournalError)]

    def _readable(self, run: str) -> RunRecord | JournalError:
        try:
            return self.run(run)
        except JournalError as error:
            return error

    def runs_of(self, training_key: str) -> list[RunRecord]:
        """Return the runs of one training, in the order of their beginning; damaged records are left out."""
        records, _ = self.readable_runs(self._ids_of(training_key))
        return [r for r in records if r.training_key == training_key]

    def next_id(self, training_key: str) -> str:
        """Return the id that the next run of a training gets; the driver that writes it first begins that run."""
        taken = [sequence_of(r) for r in self._ids_of(training_key)]
        return f"{training_key[:RUN_KEY_LENGTH]}-{max(taken, default=0) + 1}"

    def _ids_of(self, training_key: str) -> list[str]:
        prefix = training_key[:RUN_KEY_LENGTH] + "-"
        ids = [r for r in self.run_ids(prefix) if r.removeprefix(prefix).isdecimal()]
        return sorted(ids, key=sequence_of)

    def begin(self, record: RunRecord) -> RunRecord:
        """Journal a run; return it, or the one that another driver began under the same id a moment before."""
        # The index first: a run that it does not name would be found only by the daily scan.
        self.index.begin(record.id)
        try:
            self.store.create(run_key(record.id, "run.json"), to_json(record))
        except ObjectExistsError:
            return self.run(record.id)
        self.index.begun(record.id, record.created_at)
        return record

    def read(self, run: str) -> RunDocuments:
        """Return everything that is known of a run: one listing, and a read for what is new or has changed."""
        return RunReader(self._documents, run).read()

    def attempts(self, run: str) -> tuple[ObservedAttempt, ...]:
        """Return the attempts of a run, in order, each with its host, heartbeat and end."""
        return self.read(run).attempts

    def open_attempt(self, run: str, record: AttemptRecord) -> bool:
        """Journal an attempt; False when another driver opened this number first."""
        return self._documents.create(run_key(run, f"attempts/{record.number}.json"), record)

    def record_launching(self, run: str, number: int, at: float) -> None:
        """Journal that the instance of an attempt is requested now, at `at` in Unix seconds."""
        key = run_key(run, f"attempts/{number}.launching.json")
        if self._documents.create(key, LaunchingRecord(first_at=at, at=at)):
            return
        body, etag = self.store.read(key)
        try:
            first = LaunchingRecord.model_validate_json(body).first_at
        except ValidationError:  # damaged
            first = at
        with contextlib.suppress(ObjectChangedError):  # then another driver launches now
            self.store.replace(key, to_json(LaunchingRecord(first_at=first, at=at)), etag)

    def record_host(self, run: str, number: int, host: HostRecord) -> None:
        """Journal the instance that an attempt got."""
        self._documents.create(run_key(run, f"attempts/{number}.host.json"), host)

    def record_gone(self, run: str, number: int, gone: GoneRecord) -> None:
        """Journal when the instance of a closed attempt ended."""
        self._documents.create(run_key(run, f"attempts/{number}.gone.json"), gone)

    def close_attempt(self, run: str, end: AttemptEnd) -> bool:
        """Journal how an attempt ended; False when another driver already did."""
        return self._documents.create(run_key(run, f"attempts/{end.number}.end.json"), end)

    def request_stop(self, run: str, request: StopRequest) -> None:
        """Ask the driver of the run to end it."""
        self._documents.create(run_key(run, "stop.json"), request)

    def stop_requested(self, run: str) -> StopRequest | None:
        """See `read_stop`."""
        return read_stop(self._documents, run)

    def result(self, run: str) -> TrainingResult | None:
        """Return the staged result, None where there is none."""
        return self._documents.read(TrainingResult, run_key(run, "result/result.json"))

    def discard_checkpoints(self, published: RunRecord) -> None:
        """Forget the checkpoints of a training that a run published: nothing resumes from them. Manifests go first."""
        for run in self.runs_of(published.training_key):
            if self.outcome(run.id) is None:
                continue
            # Without its manifest a checkpoint does not count: half deleted, it is none.
            found = [info.key for info in self.store.list(run_key(run.id, "checkpoint/"))]
            for key in sorted(found, key=lambda key: not key.endswith("manifest.json")):
                self.store.delete(key)

    def discard_result(self, run: str) -> None:
        """Forget a staged result that did not count; the training then finishes again from its checkpoint."""
        self.store.delete(run_key(run, "result/result.json"))

    def record_collected(self, run: str, note: Collected) -> None:
        """Journal that the staged result was verified."""
        self._documents.create(run_key(run, "collected.json"), note)

    def checkpoint(self, run: str) -> CheckpointManifest | None:
        """Return the newest complete checkpoint, None where there is none."""
        return self._documents.read(CheckpointManifest, run_key(run, "checkpoint/manifest.json"))

    def copy_checkpoint(self, source: RunRecord, target: str) -> bool:
        """Let a run start from the checkpoint of an earlier one, if that has one; the manifest goes last.

        Raises JournalError, ObjectKeyError, CorruptObjectError, ObjectMissingError: it is damaged, or another training's.
        """
        manifest = self.checkpoint(source.id)
        if manifest is None:
            return False
        if manifest.training_key != source.training_key:
            raise JournalError(f"{run_key(source.id, 'checkpoint/manifest.json')} is of another training")
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            for artifact in (manifest.last, *([manifest.best] if manifest.best else [])):
                path = Path(scratch) / artifact.name
                key = f"checkpoint/{artifact.name}"
                self.store.download(run_key(source.id, key), path, size=artifact.size, sha256=artifact.sha256)
                self.store.upload(run_key(target, key), path)
        copied = manifest.model_copy(update={"run": target, "attempt": 0})  # 0: of no attempt of this run
        with contextlib.suppress(ObjectExistsError):  # a faster starter's training is further already
            self.store.create(run_key(target, "checkpoint/manifest.json"), to_json(copied))
        return True

    def outcome(self, run: str) -> Outcome | None:
        """See `read_outcome`."""
        return read_outcome(self._documents, run)

    def finish(self, run: str, outcome: Outcome) -> Outcome:
        """Journal how a run ended; return what the journal has, which another driver can have written."""
        if not self._documents.create(run_key(run, "outcome.json"), outcome):
            return self.outcome(run) or outcome
        return outcome
