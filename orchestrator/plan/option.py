"""Options of a plan, their limits, and the decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gpu_offload.orchestrator.estimate.correction import GUESS, Estimate
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import BackendName, Market, Offer
from gpu_offload.orchestrator.output.units import human_duration
from gpu_offload.orchestrator.registry.semver import version_text

COMPARISON = "comparison with stable"
"""The part of a breakdown that follows the publication."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a training may take. Raises ValueError: a limit is negative or no number."""

    deadline_s: float
    max_cost_usd: float
    value_of_time_usd_per_hour: float = 0.0
    ci_limit_s: float | None = None

    def __post_init__(self) -> None:
        values = (self.deadline_s, self.max_cost_usd, self.value_of_time_usd_per_hour, self.ci_limit_s or 0.0)
        if not all(value >= 0 for value in values):
            raise ValueError(f"limits are not below zero: {values}")

    @property
    def cpu_limit(self) -> tuple[float, str]:
        """How long this CPU has, in seconds, and what sets that."""
        if self.ci_limit_s is not None and self.ci_limit_s < self.deadline_s:
            return self.ci_limit_s, f"the {human_duration(self.ci_limit_s)} limit of a CI job"
        return self.deadline_s, f"the {human_duration(self.deadline_s)} deadline"

    def time_limit(self, where: BackendName) -> tuple[float, str]:
        """How long a place has: an instance outlives the job that launched it, but not the deadline."""
        # An instance trains by itself when the job that launched it has ended.
        if where == "ec2":
            return self.deadline_s, f"the {human_duration(self.deadline_s)} deadline"
        return self.cpu_limit


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reason why no instance can train, and its remedy."""

    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Option:
    """One place to train in, judged."""

    offer: Offer
    interval: Interval
    """From the command to the end, in seconds."""
    trained: Interval
    """From the command to the published model: what the time of a run is compared with."""
    cost_likely: float
    cost_high: float
    feasible: bool
    reason: str
    """Why it is feasible or not, in words with numbers."""
    is_ruled_out: bool = False
    """Whether a training cannot run there at all, however much time and money it may take."""
    basis: str = "given"
    """Where the estimate comes from."""
    point: float | None = None
    """The estimate before history corrected it, in seconds, without installing; None where there was none to correct."""
    breakdown: Mapping[str, float] = field(default_factory=dict)
    """Its seconds by part."""
    installation: Interval | None = None
    """What of the interval is for installing; None where nothing has to be."""
    comparison: float = 0.0
    """Seconds that the comparison with the model in use takes after publication, likely."""

    @property
    def where(self) -> BackendName:
        """On this CPU, on EC2, or on a Ray cluster."""
        return self.offer.where

    @property
    def market(self) -> Market | None:
        """Spot or on demand, on EC2."""
        return self.offer.market

    def with_estimate(self, estimate: Estimate) -> "Option":
        """Return it with the parts of the estimate that its interval is from."""
        return replace(
            self,
            basis=estimate.basis,
            point=estimate.point,
            breakdown={**estimate.breakdown, **({COMPARISON: self.comparison} if self.comparison else {})},
            installation=estimate.installation,
        )

    def ruled_out(self, reasons: Sequence[str]) -> "Option":
        """Return it as a place where a training cannot run, for these reasons."""
        return replace(self, feasible=False, is_ruled_out=True, reason="; ".join(reasons))

    def total(self, value_of_time: float) -> float:
        """Its likely cost with your waiting priced in, in US dollars."""
        return self.cost_likely + value_of_time * self.interval.likely / 3600

    def json(self) -> dict[str, Any]:
        """Return the object that `offload plan --json` lists."""
        return {
            "where": self.where,
            "instance_type": self.offer.instance_type,
            "zone": self.offer.zone,
            "market": self.market,
            "seconds": self.interval.json(),
            "cost_usd": {"likely": round(self.cost_likely, 4), "high": round(self.cost_high, 4)},
            "feasible": self.feasible,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """Where to train."""

    where: Literal["cpu", "ec2", "ray", "none"]
    option: Option | None
    """None exactly where `where` is `none`."""
    why: str
    changes: tuple[str, ...] = ()
    """What would change it."""
    certainty: float | None = None
    """The probability that it is right: that the CPU keeps its limit, or that the place costs less than the other,
    waiting included. None where there was nothing to choose."""
    reversible: bool = False
    """Whether it is a toss-up that begins on the CPU, and moves to a GPU once the training shows that it has to."""


@dataclass(frozen=True, slots=True)
class PlanReport:
    """Everything that `offload plan` shows."""

    fingerprint: str
    training_key: str
    already_trained: str | None
    """The version that the same training yielded before."""
    images: Mapping[str, int]
    """How many, by split (`train`, `val`, `test`)."""
    dataset_bytes: int
    options: tuple[Option, ...]
    decision: Decision
    notes: tuple[str, ...] = field(default=())
    """On what the estimates rest, a sentence each."""
    forecast: str = ""
    """Expected cost and worst case of a run that chooses between spot and on-demand."""
    semver: str | None = None
    """The number of the version that the same training yielded before."""

    @property
    def is_guess(self) -> bool:
        """Whether the chosen place's time is a guess, from which no probability follows."""
        return self.decision.option is not None and self.decision.option.basis == GUESS

    @property
    def certainty(self) -> float | None:
        """The probability that the decision is right; None where there was nothing to choose, or its time is a guess."""
        return None if self.is_guess else self.decision.certainty

    @property
    def trained_name(self) -> str:
        """The version that the same training yielded before, as it is named in a sentence."""
        return version_text(self.already_trained or "", self.semver)

    def json(self) -> dict[str, Any]:
        """Return the object of `offload plan --json`; docs/plan.md describes it."""
        return {
            "fingerprint": self.fingerprint,
            "training_key": self.training_key,
            "already_trained": self.already_trained,
            "dataset": {
                "images": {split: self.images.get(split, 0) for split in ("train", "val", "test")},
                "bytes": self.dataset_bytes,
            },
            "options": [option.json() for option in self.options],
            "decision": {
                "where": self.decision.where,
                "why": self.decision.why,
                "certainty": None if self.certainty is None else round(self.certainty, 3),
                "reversible": self.decision.reversible,
            },
            "forecast": self.forecast,
        }
