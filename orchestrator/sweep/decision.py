"""Decides what a sweep does next, as a function of its trials: no input, output or clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from gpu_offload.errors import OffloadError
from gpu_offload.orchestrator.output.units import human_money
from gpu_offload.orchestrator.sweep.facts import TrainingFacts
from gpu_offload.orchestrator.sweep.journal import Trial
from gpu_offload.orchestrator.sweep.record import Closed, SweepRecord, TrialEnd, Why
from gpu_offload.orchestrator.sweep.space import values_text

FAILURES = 3
"""Failed trials, with none complete or pruned, that end a sweep: something is wrong with all of them."""


@dataclass(frozen=True, slots=True)
class TrainingView:
    """A training of a trial. `busy`: a process of this sweep works on it. `reserved_usd`: its cost, with what may follow."""

    facts: TrainingFacts
    busy: bool = False
    reserved_usd: float = 0.0
    by_sweep: bool = False
    """Whether the sweep's own limits cut it short; higher ones continue it."""

    @property
    def committed_usd(self) -> float:
        """What it has cost and may still cost."""
        return max(self.reserved_usd, self.facts.cost_usd + self.facts.limit_usd)

    @property
    def is_over(self) -> bool:
        """Whether it ended without a model and will not be continued."""
        return self.facts.status in {"failed", "stopped"} and not self.busy and not self.by_sweep


@dataclass(frozen=True, slots=True)
class TrialView:
    """A trial: its trainings in order, and its end, None while it is open."""

    number: int
    trainings: tuple[TrainingView, ...]
    end: TrialEnd | None = None


@dataclass(frozen=True, slots=True)
class SweepView:
    """A sweep at one moment. `exhausted`: every combination of values was tried."""

    trials: tuple[TrialView, ...]
    most_trials: int
    parallel: int
    now: float
    deadline_at: float
    prune: bool = True
    exhausted: bool = False

    @property
    def busy(self) -> int:
        """How many processes are running."""
        return sum(training.busy for trial in self.trials for training in trial.trainings)

    @property
    def committed_usd(self) -> float:
        """What the sweep has cost, with what its open runs may still cost."""
        return sum(training.committed_usd for trial in self.trials for training in trial.trainings)


SHARE = 2.0
"""A training may cost its upper estimate this many times; the rest of the budget is for the others."""


def allowance(budget_usd: float, committed_usd: float, most_usd: float) -> float:
    """Return what another training may cost at most: the rest of the budget, or its own limit if that is less."""
    return max(0.0, min(most_usd, budget_usd - committed_usd))


def reserve(allowed_usd: float, cost_high_usd: float) -> float:
    """Return what to set aside for a training: `SHARE` times its upper estimate, and at most its allowance."""
    return min(allowed_usd, SHARE * cost_high_usd)


@dataclass(frozen=True, slots=True)
class Complete:
    """Every training of a trial is published."""

    number: int


@dataclass(frozen=True, slots=True)
class Fail:
    """A training of a trial ended without a model."""

    number: int
    message: str


@dataclass(frozen=True, slots=True)
class StopRun:
    """Close the run of a trial that was pruned."""

    number: int
    training: int
    run: str


@dataclass(frozen=True, slots=True)
class StartTraining:
    """Start or continue a training, counted from 0."""

    number: int
    training: int


@dataclass(frozen=True, slots=True)
class NewTrial:
    """Choose values for another trial."""

    number: int


@dataclass(frozen=True, slots=True)
class Over:
    """There is nothing more to do."""

    why: str
    """`complete`, `deadline`, or `failed` where every trial failed."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Wait until a process ends or a limit is reached."""


Move = Complete | Fail | StopRun | StartTraining | NewTrial | Over | Idle


def next_move(sweep: SweepView) -> Move:
    """Decide what to do next. Total: every state of the trials has an answer."""
    # Ends come first: what is over must neither be started again nor hold a place.
    for trial in sweep.trials:
        if (move := _ending(trial)) is not None:
            return move
    if _hopeless(sweep.trials):
        return Idle() if sweep.busy else Over("failed")
    if sweep.now >= sweep.deadline_at:
        return Idle() if sweep.busy else Over("deadline")
    if sweep.busy >= sweep.parallel:
        return Idle()
    for trial in sweep.trials:
        if (index := _startable(trial, prune=sweep.prune)) is not None:
            return StartTraining(trial.number, index)
    # A new trial begins only if no open one can go on, so that the sampler knows as many results as possible.
    if len(sweep.trials) < sweep.most_trials and not sweep.exhausted:
        return NewTrial(len(sweep.trials) + 1)
    if sweep.busy:
        return Idle()
    return Over("failed" if all(t.end and t.end.state == "failed" for t in sweep.trials) else "complete")


def _ending(trial: TrialView) -> Move | None:
    """Return the move for a trial whose outcome is certain, None for any other trial."""
    if trial.end is not None:
        for index, training in enumerate(trial.trainings):
            if training.facts.status == "open" and training.facts.run is not None and not training.busy:
                return StopRun(trial.number, index, training.facts.run)
        return None
    ended = next((training for training in trial.trainings if training.is_over), None)
    if ended is not None:
        return Fail(trial.number, ended.facts.message)
    if all(training.facts.status == "published" and not training.busy for training in trial.trainings):
        return Complete(trial.number)
    return None


def _startable(trial: TrialView, *, prune: bool) -> int | None:
    """Return the training to start next. With pruning, the others begin only after the first one is published."""
    if trial.end is not None:
        return None
    for index, training in enumerate(trial.trainings):
        if training.facts.status != "published" and not training.busy:
            return index
        if index == 0 and prune and training.facts.status != "published":
            return None
    return None


def _hopeless(trials: Sequence[TrialView]) -> bool:
    """Whether at least `FAILURES` trials have ended, all of them failed."""
    ended = [trial for trial in trials if trial.end is not None]
    failed = [trial for trial in ended if trial.end is not None and trial.end.state == "failed"]
    return len(failed) >= FAILURES and len(failed) == len(ended)


class SweepFailedError(OffloadError):
    """Every trial failed."""


def closing_of(
    record: SweepRecord, why: str, trials: Sequence[Trial], *, exhausted: bool, now: float
) -> Closed:
    """Return how a sweep is closed, for `why`: `budget`, `deadline`, `complete` or `failed`.

    Raises SweepFailedError for `failed`; the sweep stays open.
    """
    if why == "failed":
        first = next(trial for trial in trials if trial.end and trial.end.state == "failed")
        message = first.end.message if first.end else ""
        raise SweepFailedError(
            f"every trial of {record.id} failed; trial {first.record.number} "
            f"({values_text(first.record.values)}): {message}"
        )
    left = f"what is left of {human_money(record.budget_usd)} buys no other training"
    messages = {
        "budget": f"{left}; a higher --budget-usd continues it",
        "deadline": "the time is up; a longer --deadline continues it",
        "complete": f"{len(trials)} trials" + (", every combination" if exhausted else ""),
    }
    return Closed(at=now, why=cast("Why", why), message=messages[why])
