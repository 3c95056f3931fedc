"""`offload train`: from the settings to the published model, whoever began and wherever it trains."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gpu_offload.dataset.tree import materialise
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator import registry
from gpu_offload.orchestrator.accounting import Accounting
from gpu_offload.orchestrator.console import Console
from gpu_offload.orchestrator.drive import Drive
from gpu_offload.orchestrator.driver import Driver
from gpu_offload.orchestrator.interval import Interval
from gpu_offload.orchestrator.journal import Journal
from gpu_offload.orchestrator.planning import Planned
from gpu_offload.orchestrator.public_reading import public_address
from gpu_offload.orchestrator.quantity import human_duration, human_money
from gpu_offload.orchestrator.run import Candidate, Outcome, RunRecord
from gpu_offload.orchestrator.run_on_cpu import LocalTraining
from gpu_offload.orchestrator.workspace import Workspace

MANY_RUNS = 50
"""More runs than this for one command would be a fault of ours, not of the world."""


class TrainingFailedError(Exception):
    """The run ended without a model; the text says why and what to do."""


class NothingFeasibleError(Exception):
    """No option fits the limits; nothing was started."""


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What `offload train` did. `seconds` is wall time of this command, `cost_usd` what the run cost."""

    status: Literal["trained", "already_trained", "detached"]
    version: str
    run: str
    training_key: str
    sha256: str
    metrics: Mapping[str, float]
    seconds: float
    estimate: Interval | None
    cost_usd: float
    where: str = "cpu"
    model_url: str | None = None
    stable_moved: bool = False

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return asdict(self) | {"estimate": asdict(self.estimate) if self.estimate else None}


@dataclass
class Training:
    """One `train` command. With `detach` it leaves the run once an instance trains by itself."""

    planned: Planned
    store: ObjectStore
    workspace: Workspace
    console: Console
    detach: bool = False
    driver: Driver | None = None
    clock: Callable[[], float] = time.time

    def run(self) -> TrainReport:
        """Train and publish, or say that it was done.

        Raises:
            NothingFeasibleError: the plan found nothing that fits; nothing was started.
            TrainingFailedError: the run ended without a model.
            InterruptedRunError: this process was told to end; the run stays open.
        """
        began = self.clock()
        done = registry.manifest_of(self.store, self.planned.version)
        if done is not None:
            return self._already_trained(done, began)
        journal = Journal(self.store)
        driver = self.driver or Driver()
        outcome, run = Outcome(status="failed", at=began), None
        for _ in range(MANY_RUNS):
            record, is_new = self._open_run(journal)
            if record.id == (run.id if run else None):
                break
            run = record
            ended = self._drive(run, journal, driver)
            if ended is None:
                return self._detached(run, began)
            outcome = ended
            # An open run of an earlier command may have been past its deadline before we came: its
            # checkpoint is good, and a new run carries on from there.
            if outcome.status == "published" or is_new:
                break
        if run is None or outcome.status != "published":
            raise TrainingFailedError(f"run {run.id if run else '?'} {outcome.status}: {outcome.message}")
        return self._published(run, began)

    def _open_run(self, journal: Journal) -> tuple[RunRecord, bool]:
        """Return the open run of this training, or begin one; and whether we began it."""
        # Looked up before the runs are: one that another driver begins meanwhile is found, or has this very id.
        fresh = journal.next_id(self.planned.training_key)
        earlier = journal.runs_of(self.planned.training_key)
        if earlier and journal.outcome(earlier[-1].id) is None:
            run = earlier[-1]
            self.console.stage(f"carrying on with run {run.id}")
            return run, False
        if not self.planned.candidates:
            raise NothingFeasibleError(self.planned.report.decision.why)
        if is_rented(self.planned.candidates):
            from gpu_offload.orchestrator.renting import check_renting

            check_renting(self.planned.settings)
        previous = next((r.id for r in reversed(earlier) if journal.checkpoint(r.id) is not None), None)
        record = self.planned.run_record(
            fresh,
            now=self.clock(),
            commit=commit_of(self.planned.settings.root),
            repository=os.environ.get("GITHUB_REPOSITORY"),
            resumes=previous,
        )
        if previous is not None:
            journal.copy_checkpoint(previous, record.id)
        self.console.stage(f"beginning run {record.id}")
        return journal.begin(record), True

    def _drive(self, run: RunRecord, journal: Journal, driver: Driver) -> Outcome | None:
        planned = self.planned

        def renew() -> object:
            return driver.claim(self.store, run.id)

        def tree() -> Path:
            return materialise(planned.snapshot, self.workspace.tree(planned.fingerprint))

        cpu = LocalTraining(
            tree=tree,
            work=self.workspace.work,
            store=planned.settings.store_ref(),
            console=self.console,
            renew=renew,
            weights=lambda: planned.weights_path,
            model_file=planned.model_file,
        )
        cloud = None
        if is_rented(run.candidates):
            from gpu_offload.orchestrator.renting import rented_training

            cloud = rented_training(
                planned.settings,
                journal,
                self.console,
                renew=renew,
                tree=tree,
                weights=planned.weights_path,
                project=planned.project,
            )
        accounting = Accounting(self.store, planned.settings.store)
        drive = Drive(
            run,
            journal,
            driver,
            cpu,
            self.console,
            cloud=cloud,
            clock=self.clock,
            detach=self.detach,
            cost=accounting.spent,
            settle=accounting.settle,
        )
        return drive.to_end()

    def _detached(self, run: RunRecord, began: float) -> TrainReport:
        return TrainReport(
            status="detached",
            version=run.version,
            run=run.id,
            training_key=run.training_key,
            sha256="",
            metrics={},
            seconds=round(self.clock() - began, 3),
            estimate=run.estimate,
            cost_usd=0.0,
            where="ec2",
        )

    def _already_trained(self, manifest: registry.Manifest, began: float) -> TrainReport:
        moved = registry.complete(self.store, manifest, again=True)
        return self._report("already_trained", manifest, began, stable_moved=moved)

    def _published(self, run: RunRecord, began: float) -> TrainReport:
        manifest = registry.manifest_of(self.store, run.version)
        if manifest is None:
            raise TrainingFailedError(f"run {run.id} says that {run.version} is published, and it is not")
        self.workspace.forget_run(run.id)
        self.workspace.forget_trees(but=run.fingerprint)
        return self._report("trained", manifest, began, stable_moved=True)

    def _report(
        self,
        status: Literal["trained", "already_trained"],
        manifest: registry.Manifest,
        began: float,
        *,
        stable_moved: bool,
    ) -> TrainReport:
        return TrainReport(
            status=status,
            version=manifest.version,
            run=manifest.run,
            training_key=manifest.training_key,
            sha256=manifest.model.sha256,
            metrics=manifest.metrics,
            seconds=round(self.clock() - began, 3),
            estimate=manifest.seconds.estimated,
            cost_usd=manifest.cost_usd,
            where=manifest.where,
            model_url=public_address(self.planned.settings, self.store, registry.model_key(manifest.version)),
            stable_moved=stable_moved,
        )


def is_rented(candidates: Sequence[Candidate]) -> bool:
    """Whether any of a run's offers is an instance."""
    return any(candidate.offer.where == "ec2" for candidate in candidates)


def commit_of(folder: Path) -> str | None:
    """Return the commit that is checked out, None outside a git repository."""
    command = ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def trained_text(report: TrainReport) -> str:
    """Return what `offload train` did, for a person."""
    if report.status == "detached":
        return (
            f"run {report.run} trains by itself; `offload attach {report.run}`, the same command again, or the next "
            "`offload tend` collects and publishes it"
        )
    score = "  ".join(f"{k} {v:.3f}" for k, v in sorted(report.metrics.items()) if k in _SHOWN)
    if report.status == "already_trained":
        moved = "; stable points at it again" if report.stable_moved else ""
        return f"already trained: version {report.version}{moved} (key {report.training_key[:16]})  {score}".rstrip()
    estimate = f", {human_duration(report.estimate.likely)} were likely" if report.estimate else ""
    where = "this CPU" if report.where == "cpu" else report.where
    return (
        f"published version {report.version}  {score}\n"
        f"trained on {where} in {human_duration(report.seconds)}{estimate}; cost {human_money(report.cost_usd)}; "
        f"sha256 {report.sha256[:16]}"
    )


_SHOWN = ("map50", "map50_95", "top1")
