"""`offload sweep`: begins a sweep, or continues the one with the same definition, and reports it."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.offers.offer import Where
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.metrics import label
from gpu_offload.orchestrator.output.table import terminal_width
from gpu_offload.orchestrator.registry import alias as aliases
from gpu_offload.orchestrator.registry.manifest import CANDIDATE, STABLE, RegistryError
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.sweep.content import SweepReport
from gpu_offload.orchestrator.sweep.decision import SweepFailedError
from gpu_offload.orchestrator.sweep.driver import Driver
from gpu_offload.orchestrator.sweep.gather import gather_sweep
from gpu_offload.orchestrator.sweep.journal import SweepJournal
from gpu_offload.orchestrator.sweep.receipt import Receipt, places
from gpu_offload.orchestrator.sweep.record import NAME, Closed, SweepRecord
from gpu_offload.orchestrator.sweep.sampling import Tried
from gpu_offload.orchestrator.sweep.space import Space, Values, values_text
from gpu_offload.orchestrator.sweep.trainings import Trainings
from gpu_offload.orchestrator.workspace import Workspace

ID_LENGTH = 12
SAMPLED = 4
"""Trainings that a receipt plans, because different models and sizes take different times."""


@dataclass
class Sweep:
    """One `sweep` command. `arguments` are the options that give its processes the same configuration."""

    settings: Settings
    store: ObjectStore
    console: Console
    arguments: Sequence[str]
    on: Where = "auto"
    clock: Callable[[], float] = time.time

    def run(self, show_plan: Callable[[str], object] | None = None) -> SweepReport:
        """Run the sweep as far as its limits allow, after passing its receipt to `show_plan`; return its report.

        Raises SweepError: it cannot be run as configured; SweepFailedError: every trial failed; InterruptedRunError;
        DatasetError, PlanningError, StoreError.
        """
        driver = self._driver(self._trainings())
        record = driver.record
        if record.closed is None:
            if show_plan is not None:
                show_plan(self._receipt(driver).text(width=terminal_width()))
            driver.to_end()
        report = gather_sweep(self.store, self.settings.store, record.id, facts=driver.results.facts)
        if report.best is None:
            closed = report.record.closed
            raise SweepFailedError(
                f"no trial of {record.id} is complete: {closed.message if closed else 'it is open'}"
            )
        if self._proposed(report) == report.candidate:
            return report
        return gather_sweep(self.store, self.settings.store, record.id, facts=driver.results.facts)

    def _proposed(self, report: SweepReport) -> str | None:
        """Propose the best trial's model if it may become stable; return its version."""
        best, floor = report.best, self.settings.registry.worst
        score = best.score.mean if best is not None and best.score is not None else None
        sign = 1 if report.record.goal == "maximize" else -1
        if score is not None and floor is not None and sign * score < sign * floor:
            name = label(report.record.metric or "metric")
            self.console.warning(
                f"no candidate: the best trial's {name} {score:.4g} is worse than registry.floor {floor:g}"
            )
            return None
        try:
            return propose_best(self.store, report)
        except RegistryError as error:  # an earlier training of the same may be yanked or deleted by now
            self.console.warning(f"no candidate: {error}")
            return None

    def plan(self) -> Receipt:
        """Return the receipt; nothing is written or started. Raises as `run`."""
        return self._receipt(self._driver(self._trainings(), as_new=True))

    def _trainings(self) -> Trainings:
        trainings = Trainings(
            settings=self.settings,
            store=self.store,
            workspace=Workspace.of(self.settings.root),
            console=self.console,
            on=self.on,
            space=Space.of(self.settings.sweep),
        )
        trainings.check()
        return trainings

    def _driver(self, trainings: Trainings, *, as_new: bool = False) -> Driver:
        journal, fresh = SweepJournal(self.store), self._fresh(trainings)
        record = fresh if as_new else journal.open(fresh, lambda there: reopened(there, fresh))
        sweep = self.settings.sweep
        return Driver(
            record=record,
            trainings=trainings,
            journal=journal,
            console=self.console,
            arguments=self.arguments,
            parallel=sweep.parallel,
            prune=sweep.prune and bool(trainings.space.dimensions) and record.epochs > 1,
            clock=self.clock,
        )

    def _fresh(self, trainings: Trainings) -> SweepRecord:
        """Return the configured sweep, as if it began now."""
        sweep, limits, space, now = self.settings.sweep, self.settings.limits, trainings.space, self.clock()
        # Without the limits, so that higher ones continue the same sweep.
        definition = {
            "base": trainings.base_key,
            "space": space.as_written(),
            "seeds": space.seeds,
            "folds": space.folds,
            "metric": self.settings.registry.metric,
            "goal": self.settings.registry.goal,
        }
        text = json.dumps(definition, sort_keys=True, separators=(",", ":"), allow_nan=False)
        deadline = sweep.deadline or limits.deadline
        epochs = space.dimensions.get("epochs")
        return SweepRecord(
            id=NAME + hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH],
            space=space.as_written(),
            seeds=space.seeds,
            folds=space.folds,
            metric=self.settings.registry.metric,
            goal=self.settings.registry.goal,
            epochs=min(int(e) for e in epochs.ends) if epochs else self.settings.training.epochs,
            created_at=now,
            opened_at=now,
            trials=space.at_most(sweep.trials),
            budget_usd=limits.max_cost_usd if sweep.budget_usd is None else sweep.budget_usd,
            deadline_s=deadline.total_seconds(),
        )

    def _receipt(self, driver: Driver) -> Receipt:
        """Plan a few trainings of the sweep, and compute what its limits buy."""
        space = driver.trainings.space
        sampled: list[Values] = []
        while len(sampled) < SAMPLED:
            values = driver.trials.next_values([Tried(one, "running") for one in sampled])
            if values is None:
                break
            sampled.append(values)
        first = space.repetitions[0]
        plans = [driver.trainings.plan(values, first, calibrate=None).report for values in sampled or [{}]]
        view = driver.view()
        return Receipt(
            record=driver.record,
            space=space,
            places=places(plans, parallel=driver.parallel),
            done=sum(trial.end is not None for trial in view.trials),
            spent_usd=view.committed_usd,
            now=self.clock(),
        )


def reopened(there: SweepRecord, fresh: SweepRecord) -> SweepRecord:
    """Return a sweep with the present limits; one that is over is opened again if they allow more than before."""
    update: dict[str, object] = {
        "trials": fresh.trials,
        "budget_usd": fresh.budget_usd,
        "deadline_s": fresh.deadline_s,
    }
    closed = there.closed
    if closed is not None and _allows_more(closed, there, fresh):
        # Only the time until it was closed counts against the deadline.
        used = 0.0 if closed.why == "complete" else closed.at - there.opened_at
        update |= {"closed": None, "opened_at": fresh.opened_at - used}
    return there.model_copy(update=update)


def _allows_more(closed: Closed, there: SweepRecord, fresh: SweepRecord) -> bool:
    """Whether the present limits allow more than the one that closed a sweep."""
    if closed.why == "budget":
        return fresh.budget_usd > there.budget_usd
    if closed.why == "deadline":
        return there.opened_at + fresh.deadline_s > closed.at
    return fresh.trials > there.trials


def propose_best(store: ObjectStore, report: SweepReport) -> str | None:
    """Move `candidate` to the best trial's model; return its version, None if there is none or it is stable."""
    best = report.best
    if best is None or best.best is None or best.score is None:
        return None
    stable = aliases.alias_of(store, STABLE)
    if stable is not None and stable.version == best.best:
        return None
    score, metric = best.score, report.record.metric or ""
    interval = "" if score.low is None else f" ({score.low:.4g} to {score.high:.4g})"
    aliases.move(
        store,
        CANDIDATE,
        best.best,
        cause="publish",
        why=f"the best of {report.count('complete')} trials of {report.record.id}: {label(metric)} "
        f"{score.mean:.4g}{interval} with {values_text(best.values)}",
        evidence={
            "metric": metric,
            "new": score.mean,
            "low": score.low,
            "high": score.high,
            "trainings": len(best.scores),
            "equals": list(report.equals),
            "method": "sweep",
        },
    )
    return best.best
