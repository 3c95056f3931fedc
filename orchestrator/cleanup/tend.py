"""`offload tend`: removes orphans, then advances every open run as far as possible without waiting."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpu_offload.errors import OffloadError
from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.errors import CloudError
from gpu_offload.infra.aws.tags import store_mark
from gpu_offload.infra.parallel import FEW, each
from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.cleanup.onlooker import look, would
from gpu_offload.orchestrator.cleanup.orphans import RunLimits
from gpu_offload.orchestrator.cleanup.reaper import Reaper, Reaping
from gpu_offload.orchestrator.cleanup.run_limits import limits_of
from gpu_offload.orchestrator.cleanup.sweep_note import note_sweep
from gpu_offload.orchestrator.cleanup.tend_report import RunTended, Tended, changed
from gpu_offload.orchestrator.lifecycle.controllers import controller_of
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import LaunchDeniedError
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError, NewerJournalError
from gpu_offload.orchestrator.run.record import RunRecord, run_key
from gpu_offload.orchestrator.settings.load import Settings

LONGEST_WAIT_S = 30.0
"""What takes longer than this is left to the next `tend`: a training, and offers that were all refused."""


@dataclass
class Tend:
    """One pass over the store's open runs and the account."""

    settings: Settings
    store: ObjectStore
    console: Console
    dry_run: bool = False
    launched_later: bool = False
    """Whether a job follows whose role can launch: a run that waits for it is then no failure."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] | None = None
    """Unix seconds; None for the store's."""
    _now: Callable[[], float] = field(init=False)
    _failures: list[str] = field(default_factory=list)
    _denied: list[str] = field(default_factory=list)
    _readable: bool = True

    def __post_init__(self) -> None:
        self._now = self.clock or clock_of(self.store)

    def tend(self) -> Tended:
        """Remove orphans, then advance every open run. A run that fails does not affect the others."""
        journal = Journal(self.store)
        records, tended = self._open_runs(journal)
        regions = {*self.settings.ec2.regions, *(r for record in records for r in record.regions)}
        # Before the runs: what is past its time must not wait for a run that takes long.
        sweep = self._sweep(sorted(regions))
        tended += self._all(records)
        if not self.dry_run:
            self._book(
                journal, {orphan.what.run for orphan in sweep.removed if orphan.what.kind == "instance"}
            )
            self._note_sweep()
        failures = (*self._failures, *sweep.failures)
        return Tended(
            tuple(tended), sweep, failures, self._readable, self.dry_run, denied=tuple(self._denied)
        )

    def _note_sweep(self) -> None:
        try:
            if not self.settings.store_url.startswith("file:"):
                note_sweep(self.store)
        except StoreError as error:
            self.console.warning(f"the store does not know that this `tend` ran: {error}")

    def _sweep(self, regions: Sequence[str]) -> Reaping:
        return Reaper(
            regions=regions if self._may_have_rented() else [],
            mark=store_mark(self.settings.store_url, self.settings.store.endpoint_url),
            runs=self._limits,
            console=self.console,
            dry_run=self.dry_run,
            schedules_wanted=self.settings.ec2.schedule_role is not None,
            sleep=self.sleep,
            clock=self._now,
        ).sweep()

    def _limits(self, runs: Iterable[str]) -> Mapping[str, RunLimits] | None:
        try:
            return limits_of(self.store, runs)
        except StoreError as error:
            self._unreadable(str(error))
            return None

    def _open_runs(self, journal: Journal) -> tuple[list[RunRecord], list[RunTended]]:
        """Return the open runs, and a message for each that cannot be read."""
        records, unreadable = list[RunRecord](), list[RunTended]()
        try:
            names = journal.open_ids(now=self._now(), write=not self.dry_run)
        except StoreError as error:
            self._unreadable(str(error))
            return [], []

        def read(name: str) -> RunRecord | JournalError | StoreError:
            try:
                return journal.run(name)
            except (JournalError, StoreError) as error:
                return error

        for name, found in zip(names, each(read, names), strict=True):
            match found:
                case RunRecord():
                    records.append(found)
                case NewerJournalError():
                    # Not a failure: the version that began it continues it.
                    self.console.note(str(found))
                    unreadable.append(RunTended(name, "open", str(found)))
                case _:
                    unreadable.append(self._failed(name, found))
        return records, unreadable

    def _all(self, records: Sequence[RunRecord]) -> list[RunTended]:
        """Take on the runs one after the other; of many, only those that need more than another look later."""
        left = each(self._left, records) if len(records) > FEW and not self.dry_run else [None] * len(records)
        return [seen or self._one(record) for record, seen in zip(records, left, strict=True)]

    def _left(self, record: RunRecord) -> RunTended | None:
        """Return why a run is left as it is, without taking a lease; None where something can be done, or is doubtful."""
        try:
            _, why = look(self.settings, self.store, record, self.console, self._now, LONGEST_WAIT_S)
        except Exception:  # noqa: BLE001 - who takes the run on meets it again, and reports it
            return None
        return RunTended(record.id, "open", why) if why is not None else None

    def _one(self, record: RunRecord) -> RunTended:
        try:
            return self._imagined(record) if self.dry_run else self._taken_on(record)
        except LaunchDeniedError as error:
            self._denied.append(record.id)
            if not self.launched_later:
                return self._failed(record.id, error)
            self.console.note(f"run {record.id} waits for the job whose role may launch: {error}")
            return RunTended(
                record.id, "open", "it waits for the job whose role may launch its next instance"
            )
        except OffloadError as error:
            return self._failed(record.id, error)
        except Exception as error:  # noqa: BLE001 - a defect in one run must not affect the others
            return self._failed(record.id, error, unexpected=True)

    def _book(self, journal: Journal, found_late: Iterable[str]) -> None:
        """Bill finished runs whose instances were found late or whose driver died before the bill."""
        try:
            runs = {*found_late, *journal.index.unbilled_ids()}
        except StoreError as error:
            self._unreadable(str(error))
            return
        for run in sorted(runs):
            try:
                if self.store.stat(run_key(run, "run.json")) is None or journal.outcome(run) is None:
                    continue
                self._taken_on(journal.run(run))
            except NewerJournalError as error:
                self.console.note(str(error))
            except OffloadError as error:
                self._failed(run, error)
            except Exception as error:  # noqa: BLE001 - a defect in one run must not affect the others
                self._failed(run, error, unexpected=True)

    def _may_have_rented(self) -> bool:
        """Whether EC2 has to be searched: an instance needs a store that it reaches, and credentials."""
        if not self.settings.store_url.startswith("file:"):
            return True
        try:
            session = open_session(self.settings.ec2.regions[0])
            if session.get_credentials() is not None:
                return True
        except CloudError:
            return True
        self.console.note("no AWS credentials, and the store is a folder: EC2 was not searched")
        return False

    def _taken_on(self, run: RunRecord) -> RunTended:
        self.console.stage(f"run {run.id}")
        since = self._now()
        controller = controller_of(
            self.settings,
            self.store,
            run,
            self.console,
            detach=True,
            max_wait=LONGEST_WAIT_S,
            sleep=self.sleep,
            clock=self._now,
        )
        outcome = controller.to_end()
        if outcome is not None:
            published = outcome.version if outcome.status == "published" else None
            tended = RunTended(run.id, outcome.status, outcome.message or outcome.version or "", published)
        else:
            tended = RunTended(run.id, "open", controller.detached_reason or "its instance trains")
        seen, found = controller.observation, controller.found
        return (
            changed(tended, seen.attempts, since, found.attempts if found else ())
            if seen is not None
            else tended
        )

    def _imagined(self, run: RunRecord) -> RunTended:
        """Report what would be done."""
        step, _ = look(self.settings, self.store, run, self.console, self._now, LONGEST_WAIT_S)
        message = would(step)
        self.console.note(f"run {run.id}: {message}")
        return RunTended(run.id, "open", message)

    def _failed(self, run: str, error: Exception, *, unexpected: bool = False) -> RunTended:
        what = f"{type(error).__name__}: {error}" if unexpected else str(error)
        text = f"run {run} could not be taken on: {what}"
        self.console.error(text)
        self._failures.append(text)
        return RunTended(run, "open", str(error))

    def _unreadable(self, why: str) -> None:
        if not self._readable:
            return
        self._readable = False
        text = (
            f"the store cannot be read, so only what is past its own time was removed, and no run taken on: {why}; "
            "run `offload tend` again once it can"
        )
        self.console.error(text)
        self._failures.append(text)
