"""`offload train`: trains and publishes what a plan says, in a new run or the open one."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from gpu_offload.errors import OffloadError
from gpu_offload.infra.aws.errors import CredentialsError, DeniedError
from gpu_offload.infra.store.errors import StoreDeniedError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.backends.standby import Standby
from gpu_offload.orchestrator.lifecycle.controllers import controller_of, tree_of
from gpu_offload.orchestrator.lifecycle.opening import Opening
from gpu_offload.orchestrator.lifecycle.train_report import TrainReport
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.units import human_duration
from gpu_offload.orchestrator.plan.decision import CI_LIMIT_S
from gpu_offload.orchestrator.plan.planned import Planned
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.difference import record_data
from gpu_offload.orchestrator.registry.evaluation import Judge
from gpu_offload.orchestrator.registry.index import entry_of
from gpu_offload.orchestrator.registry.manifest import STABLE, Manifest, model_key
from gpu_offload.orchestrator.registry.publish import why_candidate
from gpu_offload.orchestrator.registry.revert import Revert
from gpu_offload.orchestrator.registry.stores import check_conditional_writes, public_address
from gpu_offload.orchestrator.run.backend import InterruptedRunError
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.record import Outcome, RunRecord
from gpu_offload.orchestrator.workspace import Workspace

MANY_RUNS = 50
"""Limit of the runs that one command drives: each of them ended for another reason."""


class TrainingFailedError(OffloadError):
    """The run ended without a model."""


@dataclass
class Training:
    """One `train` command; `detach` leaves once an instance trains by itself, `sweep` names the sweep it is for.

    With `launched_later` a later job launches what the training needs: it begins here, and this command leaves it then.
    """

    planned: Planned
    store: ObjectStore
    workspace: Workspace
    console: Console
    detach: bool = False
    launched_later: bool = False
    sweep: str | None = None
    lease: Lease | None = None
    standby: Standby | None = None
    clock: Callable[[], float] = time.time
    moves: str = ""
    """Why it moves to the instance of a later job; empty where it does not."""
    _followed: str | None = None
    """The driver whose run this command followed to its end."""

    def run(self) -> TrainReport:
        """Train and publish, or report that it was done.

        Raises NothingFeasibleError: nothing was started; TrainingFailedError: no model; InterruptedRunError: the run
        stays open.
        """
        began = self.clock()
        done = publish.manifest_of(self.store, self.planned.version)
        if done is not None:
            self._close_runs()
            return self._already_trained(done)
        check_conditional_writes(self.planned.settings, self.store)
        with contextlib.suppress(StoreDeniedError):  # an older role may not; then git shows what changed
            record_data(self.store, self.planned.fingerprint, self.planned.snapshot)
        journal = Journal(self.store)
        self._forget_closed(journal)
        opening = Opening(self.planned, self.store, self.console, self.clock, self.sweep)
        lease = self.lease or Lease(clock=self.clock)
        outcome, run = Outcome(status="failed", at=began), None
        for _ in range(MANY_RUNS):
            record, is_new = opening.open_run(journal)
            if record.id == (run.id if run else None):
                break
            run = record
            ended = self._drive(run, lease)
            if ended is None:
                return self._detached(run)
            outcome = ended
            # The open run of an earlier command may have passed its deadline before this command, or train something
            # else: then a new run begins. A failure that this command saw happen would only happen again.
            failed_now = outcome.status == "failed" and began < run.deadline_at
            if outcome.status == "published" or is_new or failed_now:
                break
        if run is None or outcome.status != "published":
            raise TrainingFailedError(f"run {run.id if run else '?'} {outcome.status}: {outcome.message}")
        return self._published(run)

    def _forget_closed(self, journal: Journal) -> None:
        """Remove the files of runs that are over: a later run resumes from the checkpoint in the store."""
        for run in self.workspace.runs():
            with contextlib.suppress(JournalError):  # what a newer version wrote is its own
                if journal.outcome(run) is not None:
                    self.workspace.forget_run(run)

    def _close_runs(self) -> None:
        """Close the runs of a training that is published: a driver was killed before it could, and nothing is billed."""
        journal = Journal(self.store)
        unbilled = journal.index.unbilled_ids()
        for run in journal.runs_of(self.planned.training_key):
            if journal.outcome(run.id) is not None and run.id not in unbilled:
                continue
            self.console.stage(f"closing run {run.id}, whose model is published")
            try:
                self._drive(run, self.lease or Lease(clock=self.clock))
            except (InterruptedRunError, CredentialsError, DeniedError) as error:
                self.console.note(f"left to `offload tend`, which has access to EC2: {error}")

    def _drive(self, run: RunRecord, lease: Lease) -> Outcome | None:
        leaves = self.detach or self.launched_later
        if job_ends_first(run, detach=leaves, environment=os.environ, now=self.clock()):
            self.console.warning(
                f"this job ends after {human_duration(CI_LIMIT_S)}, and the run's deadline is later: use --detach (the "
                "action's input `detach`) and a scheduled `offload tend`, or a shorter limits.deadline"
            )
        rented = was_rented(Journal(self.store), run)
        if self.launched_later and rented:
            self.moves = "it has moved to an instance before"
            return None
        asked_for = tuple(c for c in run.candidates if c.offer.where == self.planned.on)
        # A driver of a run on this CPU would not see its earlier instances.
        if asked_for and not (self.planned.on == "cpu" and rented):
            run = run.model_copy(update={"candidates": asked_for})
        controller = controller_of(
            self.planned.settings,
            self.store,
            run,
            self.console,
            lease=lease,
            planned=self.planned,
            workspace=self.workspace,
            standby=self.standby,
            detach=self.detach,
            launched_later=self.launched_later,
            clock=self.clock,
        )
        outcome = controller.to_end()
        if self.launched_later:
            self.moves = controller.detached_reason or ""
        self._followed = controller.bystander.driver
        return outcome

    def _detached(self, run: RunRecord) -> TrainReport:
        return TrainReport(
            status="moves" if self.moves else "detached",
            version=run.version,
            run=run.id,
            training_key=run.training_key,
            sha256="",
            metrics={},
            seconds=round(self.clock() - run.created_at, 3),
            estimate=run.estimate,
            cost_usd=0.0,
            where="cpu" if self.moves else "ec2",
        )

    def _already_trained(self, manifest: Manifest) -> TrainReport:
        for file in manifest.files:
            there = self.store.stat(model_key(manifest.version, file.name))
            if there is None or there.size != file.size:
                size = "missing" if there is None else f"{there.size:,} bytes, not {file.size:,}"
                self.console.warning(
                    f"version {manifest.version} is damaged: {file.name} is {size}; `offload train --repair` heals it"
                )
        if self.sweep is not None:
            return self._report("already_trained", manifest, stable_moved=False)
        tree = tree_of(self.planned, self.workspace)
        judge = Judge(self.store, self.planned.settings.registry, self.console, tree)
        training = Journal(self.store).open_commits(but=manifest.version)
        revert = Revert(self.store, self.planned.settings, self.console, training)
        moved = revert.complete(manifest, judge.rules())
        return self._report("already_trained", manifest, stable_moved=moved)

    def _published(self, run: RunRecord) -> TrainReport:
        manifest = publish.manifest_of(self.store, run.version)
        if manifest is None:
            raise TrainingFailedError(f"run {run.id} says that {run.version} is published, and it is not")
        self.workspace.forget_run(run.id)
        if self.sweep is None:  # its other trainings may use them
            self.workspace.forget_trees(but=run.fingerprint)
        stable = publish.alias_of(self.store, STABLE)
        moved = stable is not None and stable.version == manifest.version
        status: Literal["trained", "already_trained"] = "already_trained" if self._followed else "trained"
        return self._report(status, manifest, stable_moved=moved)

    def _report(
        self, status: Literal["trained", "already_trained"], manifest: Manifest, *, stable_moved: bool
    ) -> TrainReport:
        entry = entry_of(publish.versions(self.store), manifest.version)
        return TrainReport(
            status=status,
            version=manifest.version,
            run=manifest.run,
            training_key=manifest.training_key,
            sha256=manifest.model.sha256,
            metrics=manifest.metrics,
            seconds=manifest.seconds.actual,
            estimate=manifest.seconds.estimated,
            revised=manifest.seconds.revised,
            cost_usd=manifest.cost_usd,
            where=manifest.where,
            semver=entry.semver if entry else None,
            candidate=why_candidate(self.store, manifest.version),
            model_url=public_address(
                self.planned.settings, self.store, model_key(manifest.version, manifest.model.name)
            ),
            stable_moved=stable_moved,
            file=manifest.model.name,
            followed=self._followed,
        )


def was_rented(journal: Journal, run: RunRecord) -> bool:
    """Whether an open run has had an instance, which only a driver with access to EC2 can see."""
    rented = any(attempt.record.offer.where == "ec2" for attempt in journal.attempts(run.id))
    return rented and journal.outcome(run.id) is None


def job_ends_first(run: RunRecord, *, detach: bool, environment: Mapping[str, str], now: float) -> bool:
    """Whether GitHub ends a job that starts now before the run's deadline, while it drives an instance."""
    hosted = environment.get("RUNNER_ENVIRONMENT") == "github-hosted"
    return hosted and not detach and run.is_rented and run.deadline_at - now > CI_LIMIT_S
