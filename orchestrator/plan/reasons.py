"""The sentences of a decision: why an option was chosen, and what would change that. Pure."""

import math
from collections.abc import Sequence

from gpu_offload.orchestrator.estimate.correction import INSTALLATION
from gpu_offload.orchestrator.output.units import human_duration, human_money
from gpu_offload.orchestrator.plan.certainty import turning_value
from gpu_offload.orchestrator.plan.option import Decision, Limits, Option

PER_EPOCH = ("training", "optimiser", "validation", "saving")
"""Parts of an estimate that grow with the epochs."""

SHOWN_DIGITS = 2
"""Digits of a number of epochs that an estimate allows; more would look exact."""


def takes(option: Option) -> str:
    """Return how long an option takes, in words."""
    time = f"{human_duration(option.interval.likely)}, at most {human_duration(option.interval.high)}"
    cost = (
        f"it costs {human_money(option.cost_likely)}, at most {human_money(option.cost_high)}"
        if option.cost_high
        else "it is free"
        if option.where == "cpu"
        else "what it costs is not counted"
    )
    name = option.offer.name
    subject = name if option.offer.is_rented else f"{name[0].upper()}{name[1:]}"
    return f"{subject} takes {time}; {cost}"


def why_cpu(cpu: Option, best: Option | None, limits: Limits) -> str:
    """Return why the CPU was chosen."""
    why = (
        f"The free CPU does it: {human_duration(cpu.interval.likely)} likely, "
        f"{human_duration(cpu.interval.high)} at most, within {limits.cpu_limit[1]}."
    )
    if best is None:
        return why
    saved = cpu.interval.likely - best.interval.likely
    if saved <= 0:
        return f"{why} {best.offer.name} would be no faster, its start-up included."
    value = limits.value_of_time_usd_per_hour
    offer = f"{best.offer.name} would save {human_duration(saved)} for {human_money(best.cost_likely)}"
    if value == 0:
        return f"{why} {offer}, but value-of-time-usd-per-hour is 0."
    return (
        f"{why} {offer}, but that is worth only {human_money(value * saved / 3600)} "
        f"at {human_money(value)} an hour of your time."
    )


def why_worth(cpu: Option, best: Option, value: float) -> str:
    """Return why a GPU is worth its price."""
    saved = cpu.interval.likely - best.interval.likely
    return (
        f"A GPU is worth it: it saves {human_duration(saved)}, worth {human_money(value * saved / 3600)} at "
        f"{human_money(value)} an hour, for {human_money(best.cost_likely)}. {takes(best)}."
    )


def why_begins_here(cpu: Option, best: Option, certainty: float, limits: Limits) -> str:
    """Return why a training that may not keep the CPU's limit begins there all the same."""
    return (
        f"A toss-up: this CPU needs {human_duration(cpu.interval.likely)}, at most "
        f"{human_duration(cpu.interval.high)}, and keeps {limits.cpu_limit[1]} with {certainty:.0%} probability. It begins here, "
        f"which costs nothing; if its own steps show that it will not make it, it moves to {best.offer.name} with its "
        f"checkpoint ({human_duration(best.interval.likely)}, {human_money(best.cost_likely)})."
    )


def why_toss_up(cpu: Option, best: Option, certainty: float) -> str:
    """Return why a GPU that may not be worth its price is not rented at once."""
    return (
        f"A toss-up: {best.offer.name} is worth its price with {certainty:.0%} probability. It begins on this CPU "
        f"({human_duration(cpu.interval.likely)} likely), which can be undone, and moves once its own steps show that the GPU is worth it."
    )


def _break_even(cpu: Option, gpus: Sequence[Option], certainty: float) -> tuple[float, Option] | None:
    """Return the least value of an hour at which a GPU surely beats the CPU, and which one; None where none is faster."""
    prices = [
        (gpu, gpu.cost_likely / max(gpu.interval.likely / 3600, 1e-9))
        for gpu in gpus
        if gpu.feasible and gpu.where == "ec2" and cpu.interval.likely > 0
    ]
    values = [(turning_value((gpu.interval, price), cpu.interval, certainty), gpu) for gpu, price in prices]
    pairs = [(value, gpu) for value, gpu in values if value is not None]
    return min(pairs, key=lambda pair: (pair[0], pair[1].offer.name), default=None)


def changes_for_worth(cpu: Option, gpus: Sequence[Option], certainty: float) -> tuple[str, ...]:
    """Return what would make the CPU the better choice; a GPU must beat it with so much certainty."""
    even = _break_even(cpu, gpus, certainty)
    if even is None or even[0] < 0.01:
        return ()
    return (f"Up to value-of-time-usd-per-hour = {_dollars_down(even[0])} the free CPU would do it.",)


def changes_for_cpu(
    cpu: Option, options: Sequence[Option], limits: Limits, epochs: int | None, certainty: float
) -> tuple[str, ...]:
    """Return what would make a GPU the better choice; it must beat the CPU with so much certainty."""
    changes = []
    even = _break_even(cpu, options, certainty)
    if even is not None:
        option = even[1]
        changes.append(
            f"Above value-of-time-usd-per-hour = {_dollars_up(even[0])} {option.offer.name} would do it "
            f"in {human_duration(option.interval.likely)} for {human_money(option.cost_likely)}."
        )
    limit, name = limits.cpu_limit
    if cpu.interval.high > 0:
        times = limit / cpu.interval.high
        more = f"{times:.1f}" if times < 10 else f"{times:.0f}"
        size = (
            f"about {_epochs_within(limit, cpu, epochs)} epochs" if epochs else f"{more} times as much work"
        )
        changes.append(f"With more than {size} it would no longer fit {name}, and a GPU would be needed.")
    return tuple(changes)


def changes_to_fit_cpu(cpu: Option | None, limits: Limits, epochs: int | None) -> tuple[str, ...]:
    """Return what would make the CPU fit; empty where nothing sensible would."""
    if cpu is None or cpu.is_ruled_out:
        return ()
    changes = []
    limit, name = limits.cpu_limit
    longest = cpu.interval.high
    if longest > limits.deadline_s and (limits.ci_limit_s is None or longest <= limits.ci_limit_s):
        changes.append(f"With a deadline of {_minutes_up(longest)} this CPU could do it.")
    share = limit / longest if longest else 0.0
    if epochs and (fewer := _epochs_within(limit, cpu, epochs)) >= 1:
        changes.append(f"With about {fewer} epochs instead of {epochs} this CPU would do it.")
    elif share >= 0.05:
        changes.append(f"With {share:.0%} of the work this CPU would do it, within {name}.")
    return tuple(changes)


def nothing_feasible(options: Sequence[Option], limits: Limits, epochs: int | None) -> Decision:
    """Return why no option is feasible."""
    if not options:
        return Decision("none", None, "There is no place to train in: no CPU, and no offer from EC2.", ())
    cpu = next((option for option in options if option.where == "cpu"), None)
    gpus = [option for option in options if option.where == "ec2"]
    changes = list(changes_to_fit_cpu(cpu, limits, epochs))
    reasons = [f"this CPU {cpu.reason}"] if cpu is not None else []
    possible = [o for o in gpus if not o.is_ruled_out]
    in_time = [o for o in possible if o.interval.high <= limits.deadline_s]
    nearest = min(
        in_time or possible or gpus,
        key=lambda o: (0 if in_time else o.interval.high, o.cost_high, o.offer.name),
        default=None,
    )
    if nearest is not None:
        reasons.append(f"{nearest.offer.name} {nearest.reason}")
    if nearest is not None and possible:
        needed = [] if in_time else [f"a deadline of {_minutes_up(nearest.interval.high)}"]
        if nearest.cost_high > limits.max_cost_usd:
            needed.append(f"max-cost-usd = {_dollars_up(nearest.cost_high)}")
        changes.append(f"With {' and '.join(needed)} {nearest.offer.name} could do it.")
    if all(option.is_ruled_out for option in options):
        changes.append("Change the setting that rules these places out; more time or money does not help.")
    else:
        changes.append("Fewer epochs, a smaller image-size or a smaller model make any place fit sooner.")
    return Decision("none", None, f"Nothing fits: {'; '.join(reasons)}.", tuple(changes))


def _epochs_within(limit: float, option: Option, epochs: int) -> int:
    """Return how many epochs fit a limit by their upper time; installing, start and end take the same for any number."""
    installing = option.installation.high if option.installation else 0.0
    parts = {name: seconds for name, seconds in option.breakdown.items() if name != INSTALLATION}
    growing = (
        math.fsum(parts.get(name, 0.0) for name in PER_EPOCH) / math.fsum(parts.values()) if parts else 1.0
    )
    each = (option.interval.high - installing) * growing / epochs
    fitting = math.floor(epochs + (limit - option.interval.high) / each) if each > 0 else epochs
    return fitting - fitting % int(10 ** max(0, len(str(fitting)) - SHOWN_DIGITS))


def _dollars_up(usd: float) -> str:
    """Write a limit that is surely enough: whole cents, rounded up."""
    # Rounded before it is rounded up: 0.07 * 100 is a little more than 7.
    return f"{math.ceil(round(usd * 100, 6)) / 100:.2f}"


def _dollars_down(usd: float) -> str:
    return f"{math.floor(round(usd * 100, 6)) / 100:.2f}"


def _minutes_up(seconds: float) -> str:
    """Write a limit as a setting takes it, `7h20m`, rounded up so that it is surely enough."""
    hours, minutes = divmod(math.ceil(round(seconds / 60, 6)), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or not hours else "")
