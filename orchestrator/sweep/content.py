"""A sweep's report as one value: trials with intervals, importance, cost and what pruning saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpu_offload.orchestrator.settings.dimension import Scalar
from gpu_offload.orchestrator.sweep.record import SweepRecord
from gpu_offload.orchestrator.sweep.statistics import Repetition, Score, differs


@dataclass(frozen=True, slots=True)
class TrialReport:
    """A trial: `scores` by seed and fold; `seconds` and `cost_usd` of all its trainings."""

    number: int
    values: Mapping[str, Scalar]
    state: str
    message: str = ""
    scores: Mapping[Repetition, float] = field(default_factory=dict)
    score: Score | None = None
    value: float | None = None
    """The score of a complete trial, the last value of a pruned one."""
    best: str | None = None
    runs: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    trainings: int = 1
    known: int = 0
    """How many of its trainings were published before the sweep began."""
    epochs: int = 0
    """Completed epochs, of `of` in the trainings that began."""
    of: int = 0
    where: str = ""
    seconds: float = 0.0
    cost_usd: float = 0.0
    saved_seconds: float = 0.0
    """What pruning saved, estimated from its own epochs and those of the other trials."""
    saved_usd: float = 0.0

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {
            "number": self.number,
            "values": dict(self.values),
            "state": self.state,
            "message": self.message,
            "score": None
            if self.score is None
            else {"mean": self.score.mean, "low": self.score.low, "high": self.score.high},
            "scores": [{"seed": seed, "fold": fold, "value": v} for (seed, fold), v in self.scores.items()],
            "value": self.value,
            "epochs": self.epochs,
            "of": self.of,
            "where": self.where,
            "seconds": round(self.seconds, 3),
            "cost_usd": round(self.cost_usd, 6),
            "known": self.known,
            "saved": {"seconds": round(self.saved_seconds, 3), "cost_usd": round(self.saved_usd, 6)},
            "runs": list(self.runs),
            "versions": list(self.versions),
        }


@dataclass(frozen=True, slots=True)
class SweepReport:
    """A sweep, over or not."""

    record: SweepRecord
    trials: tuple[TrialReport, ...]
    importance: Mapping[str, float] = field(default_factory=dict)
    candidate: str | None = None

    @property
    def status(self) -> str:
        """`open`, or why it is over: `complete`, `budget`, `deadline`."""
        return self.record.closed.why if self.record.closed else "open"

    @property
    def ranked(self) -> tuple[TrialReport, ...]:
        """Complete trials, the best first; then pruned ones, the furthest first; then the rest."""
        sign = -1 if self.record.goal == "maximize" else 1
        order = {"complete": 0, "pruned": 1}

        def key(trial: TrialReport) -> tuple[Any, ...]:
            value = trial.score.mean if trial.score is not None else trial.value
            rank = order.get(trial.state, 2)
            far = -trial.epochs if rank == 1 else 0
            return (rank, far, sign * value if value is not None else 0.0, trial.number)

        return tuple(sorted(self.trials, key=key))

    @property
    def where(self) -> str:
        """The places where its trials were trained."""
        return ", ".join(dict.fromkeys(trial.where for trial in self.trials if trial.where))

    @property
    def best(self) -> TrialReport | None:
        """The best complete trial; None where there is none."""
        first = next(iter(self.ranked), None)
        return first if first is not None and first.state == "complete" else None

    @property
    def equals(self) -> tuple[int, ...]:
        """The complete trials that do not differ from the best by more than seeds and folds do."""
        best = self.best
        if best is None:
            return ()
        others = (trial for trial in self.ranked if trial.state == "complete" and trial is not best)
        return tuple(trial.number for trial in others if differs(best.scores, trial.scores) is False)

    @property
    def cost_usd(self) -> float:
        """What all trials cost."""
        return sum(trial.cost_usd for trial in self.trials)

    @property
    def seconds(self) -> float:
        """What all trainings took, one after the other."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def saved_seconds(self) -> float:
        """What pruning saved."""
        return sum(trial.saved_seconds for trial in self.trials)

    @property
    def saved_usd(self) -> float:
        """What pruning saved."""
        return sum(trial.saved_usd for trial in self.trials)

    def count(self, state: str) -> int:
        """Return how many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)

    def json(self) -> dict[str, Any]:
        """Return everything as one JSON object; docs/sweep.md describes it."""
        record, best = self.record, self.best
        return {
            "sweep": record.id,
            "status": self.status,
            "message": record.closed.message if record.closed else "",
            "metric": record.metric,
            "goal": record.goal,
            "space": dict(record.space),
            "seeds": record.seeds,
            "folds": record.folds,
            "limits": {
                "trials": record.trials,
                "budget_usd": record.budget_usd,
                "deadline_at": record.deadline_at,
            },
            "trials": [trial.json() for trial in self.trials],
            "ranking": [trial.number for trial in self.ranked if trial.state == "complete"],
            "best": best.number if best else None,
            "equals": list(self.equals),
            "candidate": self.candidate,
            "importance": dict(self.importance),
            "seconds": round(self.seconds, 3),
            "cost_usd": round(self.cost_usd, 6),
            "saved": {"seconds": round(self.saved_seconds, 3), "cost_usd": round(self.saved_usd, 6)},
        }


def saved(trial: TrialReport, others: Sequence[TrialReport]) -> tuple[float, float]:
    """Return the seconds and US dollars that pruning a trial saved.

    These are the remaining epochs of its first training at its own pace, and its other trainings at the average of
    complete trials.
    """
    if trial.state != "pruned" or not trial.epochs:
        return 0.0, 0.0
    whole = trial.seconds / trial.epochs * trial.of
    left = whole - trial.seconds
    complete = [one for one in others if one.state == "complete" and one.seconds > 0]
    a_training = (
        sum(one.seconds for one in complete) / sum(one.trainings for one in complete) if complete else whole
    )
    seconds = max(0.0, left) + a_training * (trial.trainings - 1)
    price = trial.cost_usd / trial.seconds if trial.seconds else 0.0
    return seconds, seconds * price
