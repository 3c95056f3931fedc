"""Where a training should run, and why: the rule, as a function of what each place costs in time and money.

The free CPU is the default arm. A GPU must be needed (the CPU's upper estimate is past its limit) or worth it (it
saves more of your hours than it costs, at the value that you put on them). Nothing whose upper cost exceeds
`max-cost-usd` is ever chosen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gpu_offload.orchestrator.cost import expected_cost
from gpu_offload.orchestrator.estimate import Estimate
from gpu_offload.orchestrator.interval import Interval
from gpu_offload.orchestrator.offers import Market, Offer
from gpu_offload.orchestrator.quantity import human_duration, human_money

CI_LIMIT_S = 6 * 3600.0
"""A job on a runner that GitHub hosts ends after so long."""

Where = Literal["cpu", "ec2", "none"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a training may take.

    Attributes:
        deadline_s: Seconds from now, for whatever place.
        max_cost_usd: No upper estimate may exceed it.
        value_of_time_usd_per_hour: What an hour less of waiting is worth; 0 rents only what is needed.
        ci_limit_s: Seconds that are left to this machine; None on a machine of one's own.

    Raises:
        ValueError: a limit is negative or no number.
    """

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

    def time_limit(self, where: Literal["cpu", "ec2"]) -> tuple[float, str]:
        """How long a place has: an instance outlives the job that launched it, but not the deadline."""
        return (
            self.cpu_limit
            if where == "cpu"
            else (self.deadline_s, f"the {human_duration(self.deadline_s)} deadline")
        )


@dataclass(frozen=True, slots=True)
class Option:
    """One place to train in, judged.

    Attributes:
        interval: From the command to the end, in seconds.
        reason: Why it is feasible or not, in words with numbers.
        basis: Where the estimate comes from.
        point: The estimate before history corrected it, in seconds; None where there was none to correct.
    """

    offer: Offer
    interval: Interval
    cost_likely: float
    cost_high: float
    feasible: bool
    reason: str
    basis: str
    point: float | None = None

    @property
    def where(self) -> Literal["cpu", "ec2"]:
        """On this CPU, or on EC2."""
        return self.offer.where

    @property
    def instance_type(self) -> str | None:
        """EC2's name of the machine."""
        return self.offer.instance_type

    @property
    def zone(self) -> str | None:
        """The availability zone, where the offer names one."""
        return self.offer.zone

    @property
    def region(self) -> str | None:
        """The region, on EC2."""
        return self.offer.region

    @property
    def market(self) -> Market | None:
        """Spot or on demand, on EC2."""
        return self.offer.market

    def total(self, value_of_time: float) -> float:
        """Its likely cost with your waiting priced in, in US dollars."""
        return self.cost_likely + value_of_time * self.interval.likely / 3600

    def json(self) -> dict[str, Any]:
        """Return the object that `offload plan --json` lists."""
        return {
            "where": self.where,
            "instance_type": self.instance_type,
            "zone": self.zone,
            "market": self.market,
            "seconds": self.interval.json(),
            "cost_usd": {"likely": round(self.cost_likely, 4), "high": round(self.cost_high, 4)},
            "feasible": self.feasible,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """Where to train. `option` is None exactly where `where` is `none`; `changes` says what would change it."""

    where: Where
    option: Option | None
    why: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanReport:
    """Everything that `offload plan` shows.

    Attributes:
        already_trained: The version that this very training yielded before.
        images: How many, by split (`train`, `val`, `test`).
        notes: On what the estimates rest, a sentence each.
    """

    fingerprint: str
    training_key: str
    already_trained: str | None
    images: Mapping[str, int]
    dataset_bytes: int
    options: tuple[Option, ...]
    decision: Decision
    notes: tuple[str, ...] = field(default=())

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
            "decision": {"where": self.decision.where, "why": self.decision.why},
        }


def judge(offer: Offer, estimate: Estimate | Interval, limits: Limits) -> Option:
    """Hold a place against the limits: its upper time and its upper cost must both be within them."""
    interval = estimate.interval if isinstance(estimate, Estimate) else estimate
    likely, high = expected_cost(offer, interval)
    limit, name = limits.time_limit(offer.where)
    longest = human_duration(interval.high)
    faults = []
    if interval.high > limit:
        needs = f"just over {longest}" if longest == human_duration(limit) else f"{longest} at most"
        faults.append(f"needs {needs}, past {name}")
    if high > limits.max_cost_usd:
        faults.append(
            f"may cost {human_money(high)}, more than max-cost-usd {human_money(limits.max_cost_usd)}"
        )
    return Option(
        offer=offer,
        interval=interval,
        cost_likely=likely,
        cost_high=high,
        feasible=not faults,
        reason="; ".join(faults) or f"needs {longest} at most, within {name}",
        basis=estimate.basis if isinstance(estimate, Estimate) else "given",
        point=estimate.point if isinstance(estimate, Estimate) else None,
    )


def decide(options: Sequence[Option], limits: Limits, *, epochs: int | None = None) -> Decision:
    """Choose a place by the rule.

    Args:
        options: Judged by these limits; at most one is a CPU.
        limits: They hold the value of time.
        epochs: Of the training, so that advice can be given in epochs.

    Returns:
        The decision; its option is one of the feasible ones, or there is none and `changes` says what to do.
    """
    value = limits.value_of_time_usd_per_hour
    cpu = next((option for option in options if option.where == "cpu"), None)
    gpus = [option for option in options if option.where == "ec2" and option.feasible]
    best = min(gpus, key=lambda option: _preference(option, value), default=None)
    if cpu is not None and cpu.feasible:
        if best is not None and best.total(value) < cpu.total(value):
            return Decision("ec2", best, _why_worth(cpu, best, value), _changes_worth(cpu, gpus))
        return Decision("cpu", cpu, _why_cpu(cpu, best, limits), _changes_cpu(cpu, options, limits, epochs))
    if best is not None:
        because = f"this CPU {cpu.reason}" if cpu is not None else "there is no CPU to train on"
        why = f"A GPU is needed: {because}. {_takes(best)}."
        return Decision("ec2", best, why, _to_fit_cpu(cpu, limits, epochs))
    return _nothing(options, limits, epochs)


def forced(
    where: Literal["cpu", "ec2"], options: Sequence[Option], limits: Limits, *, epochs: int | None = None
) -> Decision:
    """Obey `--on cpu` or `--on ec2`.

    The CPU may go past its time limit, because it leaves a state to resume from; nothing may cost more than
    `max-cost-usd`.
    """
    those = [option for option in options if option.where == where]
    feasible = [option for option in those if option.feasible]
    best = min(
        feasible, key=lambda option: _preference(option, limits.value_of_time_usd_per_hour), default=None
    )
    if best is not None:
        said = f"`--on {where}` says so"
        return Decision(
            where, best, f"{said}. {_takes(best)}.", (f"Without `--on {where}` the rule decides.",)
        )
    late = next((o for o in those if where == "cpu" and o.cost_high <= limits.max_cost_usd), None)
    if late is not None:
        why = f"`--on cpu` says so, although it {late.reason}: it would stop there and can be resumed."
        return Decision("cpu", late, why, _to_fit_cpu(late, limits, epochs))
    if not those:
        return Decision("none", None, f"`--on {where}` says so, but there is no such offer.", ())
    return _nothing(those, limits, epochs)


def _preference(option: Option, value: float) -> tuple[Any, ...]:
    return (
        option.total(value),
        option.cost_high,
        option.interval.likely,
        option.market != "spot",
        option.offer.name,
    )


def _takes(option: Option) -> str:
    time = f"{human_duration(option.interval.likely)}, at most {human_duration(option.interval.high)}"
    cost = (
        f"costs {human_money(option.cost_likely)}, at most {human_money(option.cost_high)}"
        if option.cost_high
        else "is free"
    )
    subject = "This CPU" if option.where == "cpu" else option.offer.name
    return f"{subject} takes {time}; it {cost}"


def _saved(cpu: Option, gpu: Option) -> float:
    return cpu.interval.likely - gpu.interval.likely


def _why_cpu(cpu: Option, best: Option | None, limits: Limits) -> str:
    free = "the free CPU" if cpu.cost_high == 0 else "this CPU"
    why = (
        f"{free[0].upper()}{free[1:]} does it: {human_duration(cpu.interval.likely)} likely, "
        f"{human_duration(cpu.interval.high)} at most, within {limits.cpu_limit[1]}."
    )
    if best is None:
        return why
    saved = _saved(cpu, best)
    if saved <= 0:
        return f"{why} {best.offer.name} would be no faster, its start-up included."
    value = limits.value_of_time_usd_per_hour
    extra = human_money(best.cost_likely - cpu.cost_likely)
    offer = f"{best.offer.name} would save {human_duration(saved)} for {extra}"
    if value == 0:
        return f"{why} {offer}, but value-of-time-usd-per-hour is 0."
    return (
        f"{why} {offer}, but that is worth only {human_money(value * saved / 3600)} "
        f"at {human_money(value)} an hour of your time."
    )


def _why_worth(cpu: Option, best: Option, value: float) -> str:
    extra = best.cost_likely - cpu.cost_likely
    saved = _saved(cpu, best)
    if saved <= 0:
        return f"A GPU is cheaper than this CPU by {human_money(-extra)}. {_takes(best)}."
    return (
        f"A GPU is worth it: it saves {human_duration(saved)}, worth {human_money(value * saved / 3600)} at "
        f"{human_money(value)} an hour, for {human_money(extra)}. {_takes(best)}."
    )


def _break_even(cpu: Option, gpus: Sequence[Option]) -> tuple[float, Option] | None:
    """Return the least value of an hour at which a GPU beats the CPU, and which one; None where none is faster."""
    pairs = [
        (max(0.0, gpu.cost_likely - cpu.cost_likely) / _saved(cpu, gpu) * 3600, gpu)
        for gpu in gpus
        if gpu.feasible and gpu.where == "ec2" and _saved(cpu, gpu) > 0
    ]
    return min(pairs, key=lambda pair: (pair[0], pair[1].offer.name), default=None)


def _changes_worth(cpu: Option, gpus: Sequence[Option]) -> tuple[str, ...]:
    even = _break_even(cpu, gpus)
    if even is None or even[0] < 0.01 or any(gpu.cost_likely < cpu.cost_likely for gpu in gpus):
        return ()
    return (f"Up to value-of-time-usd-per-hour = {_dollars_down(even[0])} the free CPU would do it.",)


def _changes_cpu(
    cpu: Option, options: Sequence[Option], limits: Limits, epochs: int | None
) -> tuple[str, ...]:
    changes = []
    even = _break_even(cpu, options)
    if even is not None:
        option = even[1]
        changes.append(
            f"Above value-of-time-usd-per-hour = {_dollars_up(even[0])} {option.offer.name} would do it "
            f"in {human_duration(option.interval.likely)} for {human_money(option.cost_likely)}."
        )
    limit, name = limits.cpu_limit
    if cpu.interval.high > 0:
        times = limit / cpu.interval.high
        size = (
            f"about {math.floor(epochs * times)} epochs" if epochs else f"{_times(times)} times as much work"
        )
        changes.append(f"With more than {size} it would no longer fit {name}, and a GPU would be needed.")
    return tuple(changes)


def _to_fit_cpu(cpu: Option | None, limits: Limits, epochs: int | None) -> tuple[str, ...]:
    """Say what would let the CPU do it; empty where nothing sensible would."""
    if cpu is None or cpu.cost_high > limits.max_cost_usd:
        return ()
    changes = []
    limit, name = limits.cpu_limit
    longest = cpu.interval.high
    if longest > limits.deadline_s and (limits.ci_limit_s is None or longest <= limits.ci_limit_s):
        changes.append(f"With a deadline of {_minutes_up(longest)} this CPU could do it.")
    share = limit / longest if longest else 0.0
    if epochs and math.floor(epochs * share) >= 1:
        changes.append(
            f"With about {math.floor(epochs * share)} epochs instead of {epochs} this CPU would do it."
        )
    elif share >= 0.05:
        changes.append(f"With {share:.0%} of the work this CPU would do it, within {name}.")
    return tuple(changes)


def _nothing(options: Sequence[Option], limits: Limits, epochs: int | None) -> Decision:
    if not options:
        return Decision("none", None, "There is no place to train in: no CPU, and no offer from EC2.", ())
    cpu = next((option for option in options if option.where == "cpu"), None)
    gpus = [option for option in options if option.where == "ec2"]
    changes = list(_to_fit_cpu(cpu, limits, epochs))
    reasons = [f"this CPU {cpu.reason}"] if cpu is not None else []
    if gpus:
        in_time = [o for o in gpus if o.interval.high <= limits.deadline_s]
        if in_time:
            nearest = min(in_time, key=lambda o: (o.cost_high, o.offer.name))
            changes.append(
                f"With max-cost-usd = {_dollars_up(nearest.cost_high)} {nearest.offer.name} could do it."
            )
        else:
            nearest = min(gpus, key=lambda o: (o.interval.high, o.cost_high, o.offer.name))
            money = (
                f" and max-cost-usd = {_dollars_up(nearest.cost_high)}"
                if nearest.cost_high > limits.max_cost_usd
                else ""
            )
            changes.append(
                f"With a deadline of {_minutes_up(nearest.interval.high)}{money} "
                f"{nearest.offer.name} could do it."
            )
        reasons.append(f"{nearest.offer.name} {nearest.reason}")
    changes.append("Fewer epochs, a smaller image-size or a smaller model make any place fit sooner.")
    return Decision("none", None, f"Nothing fits: {'; '.join(reasons)}.", tuple(changes))


def _times(factor: float) -> str:
    return f"{factor:.1f}" if factor < 10 else f"{factor:.0f}"


def _dollars_up(usd: float) -> str:
    """Write a limit that is surely enough: whole cents, rounded up."""
    return f"{math.ceil(round(usd * 100, 6)) / 100:.2f}"


def _dollars_down(usd: float) -> str:
    return f"{math.floor(round(usd * 100, 6)) / 100:.2f}"


def _minutes_up(seconds: float) -> str:
    """Write a limit as a setting takes it, `7h20m`, rounded up so that it is surely enough."""
    hours, minutes = divmod(math.ceil(round(seconds / 60, 6)), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or not hours else "")
