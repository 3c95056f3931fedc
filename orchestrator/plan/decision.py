"""The rule that decides where a training runs, from the time and the cost of each place. Pure.

The free CPU is the default. A GPU must be needed (the CPU's upper estimate is past its limit) or worth it (it saves
more of your hours than it costs, at your value of time). Nothing whose upper cost exceeds `max-cost-usd` is chosen. A
toss-up begins on the CPU and moves once its own steps show that it has to.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gpu_offload.orchestrator.cost.prices import VOLUME_GIB, expected_cost
from gpu_offload.orchestrator.estimate.installation import NOTHING
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import BackendName, Offer, Where
from gpu_offload.orchestrator.output.units import human_duration, human_money
from gpu_offload.orchestrator.plan.certainty import TOSS_UP, cheaper, within
from gpu_offload.orchestrator.plan.option import Decision, Limits, Obstacle, Option
from gpu_offload.orchestrator.plan.reasons import (
    changes_for_cpu,
    changes_for_worth,
    changes_to_fit_cpu,
    nothing_feasible,
    takes,
    why_begins_here,
    why_cpu,
    why_toss_up,
    why_worth,
)

SHOWN_S, SHOWN_SHARE = 180.0, 0.02
"""Seconds, plus a share of the training, after which its own steps have shown how long it takes and it can move."""

CI_LIMIT_S = 6 * 3600.0
"""Time limit of a job on a GitHub-hosted runner."""


def judge(
    offer: Offer,
    interval: Interval,
    limits: Limits,
    *,
    volume_gib: int = VOLUME_GIB,
    traffic_usd: float = 0.0,
    comparison: Interval = NOTHING,
) -> Option:
    """Compare a place with the limits: its upper time and its upper cost, volume and traffic included.

    The `comparison` with the model in use follows on this machine: it takes time, and costs nothing at the place.
    """
    likely, high = expected_cost(offer, interval, volume_gib=volume_gib, traffic_usd=traffic_usd)
    trained, interval = interval, interval + comparison
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
        trained=trained,
        comparison=comparison.likely,
        cost_likely=likely,
        cost_high=high,
        feasible=not faults,
        reason="; ".join(faults) or f"needs {longest} at most, within {name}",
    )


def decide(options: Sequence[Option], limits: Limits, *, epochs: int | None = None) -> Decision:
    """Choose a place by the rule (at most one is a CPU); if none is feasible, `changes` say what to do."""
    value = limits.value_of_time_usd_per_hour
    cpu = next((option for option in options if option.where == "cpu"), None)
    gpus = [option for option in options if option.where == "ec2" and option.feasible]
    best = min(gpus, key=lambda option: _preference(option, value), default=None)
    if cpu is not None and cpu.feasible:
        # What can be put off until the training shows what it takes need not be sure now.
        needed = TOSS_UP if _can_move(cpu, gpus, limits) else 0.5
        worth = [gpu for gpu in gpus if gpu.total(value) < cpu.total(value)]
        # At a half the likely times decide, whatever their ranges are.
        sure = [gpu for gpu in worth if _beats(gpu, cpu, value) >= needed or needed <= 0.5]
        if sure:
            best = min(sure, key=lambda option: _preference(option, value))
            why = why_worth(cpu, best, value)
            return Decision("ec2", best, why, changes_for_worth(cpu, gpus, needed), _beats(best, cpu, value))
        changes = changes_for_cpu(cpu, options, limits, epochs, needed)
        if best is not None and worth:
            certainty = _beats(best, cpu, value)
            why = why_toss_up(cpu, best, certainty)
            return Decision("cpu", cpu, why, changes, 1 - certainty, reversible=True)
        keeps = within(cpu.interval, limits.cpu_limit[0])
        certainty = keeps if best is None or value == 0 else min(keeps, _beats(cpu, best, value))
        return Decision("cpu", cpu, why_cpu(cpu, best, limits), changes, certainty)
    if best is not None:
        if cpu is not None and _may_make_it(cpu, best, limits) and _can_move(cpu, gpus, limits):
            certainty = within(cpu.interval, limits.cpu_limit[0])
            why = why_begins_here(cpu, best, certainty, limits)
            return Decision(
                "cpu", cpu, why, changes_to_fit_cpu(cpu, limits, epochs), certainty, reversible=True
            )
        because = f"this CPU {cpu.reason}" if cpu is not None else "there is no CPU to train on"
        why = f"A GPU is needed: {because}. {takes(best)}."
        fails = None if cpu is None or cpu.is_ruled_out else 1 - within(cpu.interval, limits.cpu_limit[0])
        return Decision("ec2", best, why, changes_to_fit_cpu(cpu, limits, epochs), fails)
    return nothing_feasible(options, limits, epochs)


def decide_for(
    on: Where,
    options: Sequence[Option],
    limits: Limits,
    blocked: Sequence[Obstacle],
    *,
    epochs: int,
    begins_here: bool,
    escalates: bool,
) -> Decision:
    """Decide between the options, or for the place `on`; `blocked` keeps instances from training.

    `begins_here`: an earlier plan chose this CPU, which a training that `escalates` leaves where it has to. `epochs` are
    those of the training, which has fewer where it continues a version.
    """
    possible = [option for option in options if option.where != "ec2" or not blocked]
    if begins_here:
        return begun_here(decide(possible, limits, epochs=epochs), possible[0], escalates=escalates)
    if on == "ec2" and blocked:
        why = f"cannot train on EC2: {'; '.join(fault.reason for fault in blocked)}."
        return Decision("none", None, why, tuple(fault.remedy for fault in blocked))
    if on != "auto":
        return forced(on, possible, limits, epochs=epochs)
    decision = decide(possible, limits, epochs=epochs)
    if blocked:
        wanted = "To rent a GPU: " + "; ".join(fault.remedy for fault in blocked) + "."
        decision = replace(decision, changes=(*decision.changes, wanted))
    return decision


def with_comparison(decision: Decision) -> Decision:
    """Say how much of the time follows the publication, where a run's own figures differ by that."""
    option = decision.option
    if option is None or human_duration(option.interval.likely) == human_duration(option.trained.likely):
        return decision
    after = f"About {human_duration(option.comparison)} of that compare the new model with stable, once it is published."
    return replace(decision, why=f"{decision.why} {after}")


def begun_here(decision: Decision, cpu: Option, *, escalates: bool) -> Decision:
    """Begin on this CPU, as an earlier plan on perhaps another machine said; the training's own steps show whether it stays.

    A training that `escalates` moves from a sure place, too.
    """
    if decision.where == "none" or (decision.where == "cpu" and (decision.reversible or escalates)):
        return decision
    why = decision.why if decision.where == "cpu" else f"An earlier plan begins it here. {decision.why}"
    return replace(decision, where="cpu", option=cpu, why=why, certainty=None, reversible=True)


def _beats(first: Option, second: Option, value: float) -> float:
    """Return the probability that an option costs less than another, waiting included."""

    def priced(option: Option) -> tuple[Interval, float]:
        hours = max(option.interval.likely, 1e-9) / 3600
        return option.interval, option.cost_likely / hours + value

    return cheaper(priced(first), priced(second))


def _may_make_it(cpu: Option, best: Option, limits: Limits) -> bool:
    """Whether the CPU more likely than not keeps its limit, and no GPU is worth more than that."""
    value = limits.value_of_time_usd_per_hour
    in_time = cpu.interval.likely <= limits.cpu_limit[0]
    return in_time and not cpu.is_ruled_out and cpu.total(value) <= best.total(value)


def _can_move(cpu: Option, gpus: Sequence[Option], limits: Limits) -> bool:
    """Whether a GPU still keeps the deadline after the CPU's first steps have shown how long it takes."""
    shown = SHOWN_S + SHOWN_SHARE * cpu.interval.likely
    return any(shown + gpu.interval.high <= limits.deadline_s for gpu in gpus)


def forced(
    where: BackendName, options: Sequence[Option], limits: Limits, *, epochs: int | None = None
) -> Decision:
    """Decide for the place that `--on` names. A time limit may be exceeded where the run can resume, `max-cost-usd` never."""
    those = [option for option in options if option.where == where]
    feasible = [option for option in those if option.feasible]
    best = min(
        feasible, key=lambda option: _preference(option, limits.value_of_time_usd_per_hour), default=None
    )
    if best is not None:
        return Decision(
            where,
            best,
            f"Chosen with `--on {where}`. {takes(best)}.",
            (f"Without `--on {where}` the rule decides.",),
        )
    late = next((o for o in those if where != "ec2" and not o.is_ruled_out), None)
    if late is not None:
        why = (
            f"Chosen with `--on {where}`, although it {late.reason}: it would stop there and can be resumed."
        )
        return Decision(where, late, why, changes_to_fit_cpu(late, limits, epochs) if where == "cpu" else ())
    if not those:
        remedy = ("Allow other types or regions in [ec2].",) if where == "ec2" else ()
        return Decision("none", None, f"Nothing fits `--on {where}`: there is no such offer.", remedy)
    return nothing_feasible(those, limits, epochs)


def _preference(option: Option, value: float) -> tuple[Any, ...]:
    return (
        option.total(value),
        option.cost_high,
        option.interval.likely,
        option.market != "spot",
        # Last, so that equal offers give the same decision in any order.
        option.offer.name,
    )
