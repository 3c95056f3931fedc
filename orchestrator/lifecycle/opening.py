"""Opens the run that a command drives: the open one of its training, or a new one."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from gpu_offload.errors import OffloadError
from gpu_offload.infra.github.repository import commit_of
from gpu_offload.infra.store.errors import CorruptObjectError, ObjectKeyError, ObjectMissingError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.lifecycle.new_run import run_record, spec_differences
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan.planned import Planned
from gpu_offload.orchestrator.plan.prerequisites import check_here, check_renting
from gpu_offload.orchestrator.run.experience import Experience
from gpu_offload.orchestrator.run.former_runs import read_experience
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError, NewerJournalError
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.record import RunRecord, StopRequest


class NothingFeasibleError(OffloadError):
    """No option fits the limits; nothing was started."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Opens runs of a planned training; `sweep` names the sweep that it belongs to."""

    planned: Planned
    store: ObjectStore
    console: Console
    clock: Callable[[], float]
    sweep: str | None = None

    def open_run(self, journal: Journal) -> tuple[RunRecord, bool]:
        """Return the open run of this training, or begin one; and whether it was begun here.

        An open run that would train something else is asked to stop, and returned; so is one that stays on a CPU where an
        instance is asked for.

        Raises NothingFeasibleError; OffloadError: what the training needs is missing.
        """
        # Looked up before the runs are: one that another driver begins meanwhile is found, or has the same id.
        fresh = journal.next_id(self.planned.training_key)
        earlier = journal.runs_of(self.planned.training_key)
        if earlier and journal.outcome(earlier[-1].id) is None:
            run = earlier[-1]
            driver = Lease(clock=self.clock).live_driver(self.store, run.id)
            if differences := spec_differences(self.planned, run):
                names = ", ".join(differences)
                self.console.warning(
                    f"ending run {run.id}: it would train something else than planned ({names})"
                )
                journal.request_stop(run.id, StopRequest(at=self.clock(), reason=f"not as planned: {names}"))
                journal.discard_result(run.id)  # a staged result counts before a stop
            elif self.planned.on == "ec2" and not run.is_rented and not driver:
                self.console.note(
                    f"ending run {run.id}, which stays on its CPU; another goes on from its checkpoint"
                )
                journal.request_stop(run.id, StopRequest(at=self.clock(), reason="it goes on on an instance"))
            else:
                self.console.stage(f"carrying on with run {run.id}{_left(journal, run)}")
            return run, False
        if not self.planned.candidates:
            decision = self.planned.report.decision
            raise NothingFeasibleError("\n  - ".join([decision.why, *decision.changes]))
        is_rented = any(candidate.offer.where == "ec2" for candidate in self.planned.candidates)
        if is_rented:
            check_renting(self.planned.settings, inputs=self.planned.inputs)
        if self.planned.candidates[0].offer.where == "cpu":
            check_here(self.planned.inputs)
        same = [r for r in reversed(earlier) if not spec_differences(self.planned, r)]
        previous = next((run for run in same if self._is_copied(journal, run, fresh)), None)
        record = run_record(
            self.planned,
            fresh,
            now=self.clock(),
            commit=commit_of(self.planned.settings.root),
            repository=os.environ.get("GITHUB_REPOSITORY"),
            resumes=previous.id if previous is not None else None,
            experience=read_experience(self.store, self.clock()) if is_rented else Experience(),
            sweep=self.sweep,
        )
        self.console.stage(f"beginning run {record.id}{_left(journal, record)}")
        return journal.begin(record), True

    def _is_copied(self, journal: Journal, earlier: RunRecord, fresh: str) -> bool:
        """Whether a new run has the checkpoint of an earlier one now; a damaged one is left out, and not tried for ever."""
        try:
            return journal.copy_checkpoint(earlier, fresh)
        except NewerJournalError:
            raise
        except (JournalError, CorruptObjectError, ObjectMissingError, ObjectKeyError) as error:
            self.console.warning(f"not continued from run {earlier.id}, whose checkpoint is damaged: {error}")
            return False


def _left(journal: Journal, run: RunRecord) -> str:
    """Say what an interrupted training has left; empty where it has no complete epoch."""
    try:
        kept = journal.checkpoint(run.id)
    except JournalError:
        return ""
    if kept is None:
        return ""
    done, of = kept.epochs_completed, run.spec.epochs
    before = f", which continues run {run.resumes}" if run.resumes else ""
    return f"{before}: {done} of {of} epochs are done, {max(0, of - done)} are left"
