"""Reads and writes the documents of sweeps in the store."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.registry.swap import swap
from gpu_offload.orchestrator.run.journal_documents import Documents, JournalError, to_json
from gpu_offload.orchestrator.sweep.record import SWEEP_PREFIX, SweepRecord, TrialEnd, TrialRecord, sweep_key
from gpu_offload.remote_job.wire import Wire

T = TypeVar("T", bound=Wire)


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial and its end, None while it is open."""

    record: TrialRecord
    end: TrialEnd | None = None


class SweepJournal:
    """The sweeps of one store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._documents = Documents(store)

    def sweep(self, sweep: str) -> SweepRecord:
        """Return a sweep. Raises JournalError if there is none."""
        record = self._documents.read(SweepRecord, sweep_key(sweep, "sweep.json"))
        if record is None:
            known = ", ".join(self.ids()[-5:]) or "none yet"
            raise JournalError(f"there is no sweep {sweep!r} in {self.store.url} (the last ones: {known})")
        return record

    def ids(self) -> list[str]:
        """Return the ids of all sweeps."""
        found = (re.fullmatch(r"sweeps/([^/]+)/sweep\.json", i.key) for i in self.store.list(SWEEP_PREFIX))
        return [match[1] for match in found if match]

    def open(self, fresh: SweepRecord, change: Callable[[SweepRecord], SweepRecord]) -> SweepRecord:
        """Write a new sweep, or change an existing one by compare-and-swap; return it."""
        key = sweep_key(fresh.id, "sweep.json")

        def changed(body: bytes | None) -> bytes:
            return to_json(fresh if body is None else change(self.sweep(fresh.id)))

        swap(self.store, key, changed)
        return self.sweep(fresh.id)

    def trials(self, sweep: str) -> list[Trial]:
        """Return the trials, in order of their numbers."""
        prefix = sweep_key(sweep, "trials/")
        etags = {info.key: info.etag for info in self.store.list(prefix)}

        def part(kind: type[T], name: str) -> T | None:
            key = f"{prefix}{name}"
            return self._documents.read_changed(kind, key, etags[key]) if key in etags else None

        found: list[Trial] = []
        # Numbers have no gap: a trial is written before the next one begins.
        while (record := part(TrialRecord, f"{len(found) + 1}.json")) is not None:
            found.append(Trial(record, part(TrialEnd, f"{record.number}.end.json")))
        return found

    def begin_trial(self, sweep: str, record: TrialRecord) -> bool:
        """Write a trial; False if another driver wrote this number first."""
        return self._documents.create(sweep_key(sweep, f"trials/{record.number}.json"), record)

    def end_trial(self, sweep: str, end: TrialEnd) -> bool:
        """Write how a trial ended; False if that was written before."""
        return self._documents.create(sweep_key(sweep, f"trials/{end.number}.end.json"), end)
