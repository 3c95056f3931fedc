"""Spot, on-demand or wait: how a training keeps its deadline at the least expected cost.

Slack is the time that can still be lost before only on-demand, started at once and never reclaimed, keeps the deadline.
Waiting and changes of machine use it up; training does not. `allowed` permits only what leaves slack in the worst case.
So the deadline is kept whatever spot does, as long as the position holds: the rest takes `left` at most, a change of
machine `overhead` at most, on-demand is refused for `margin` in all at most, and a wait is checked again after `pause`.
`bounded` follows Uniform Progress where the excess over its cost would grow too large. Of what both allow, the choice
with the least expected cost wins (`expected_cost`), by the observed capacity (`availability`).

docs/deadline.md explains the numbers, what a run puts in, and what the policy is worth.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from gpu_offload.orchestrator.offers.offer import Market
from gpu_offload.orchestrator.run.availability import STEP_S, Sighting, learn
from gpu_offload.orchestrator.run.expected_cost import Job, solve
from gpu_offload.orchestrator.run.position import Position

REGRET, REGRET_S = 0.06, 3600.0
"""What a training can cost above Uniform Progress before it does what that would do: a share of the training on demand,
or an hour of it where that is more."""

BEHIND = 0.4
"""Share by which an hour of work that Uniform Progress is ahead counts above an hour on demand."""

BREAKER, BREAKER_S = 3, 3600.0
"""Number of reclaims in one place, and the seconds within which they occur, after which spot is left alone."""

LEVELS = 7
MOST = 3.3
"""Multipliers of hazards are rounded to one of these levels between 1 / MOST and MOST."""

MOST_STEPS = 512
"""A longer time to the deadline is planned in longer steps."""


def allowed(at: Position, *, reserve: float = 0.0) -> tuple[Market | None, ...]:
    """Return the choices after which on-demand still keeps the deadline, whatever spot does. On-demand is always one.

    Worst cases: a wait brings nothing; spot is lost just when its overhead is done. A machine past its overhead loses
    only time in which it also trains. `reserve` is slack, in seconds, that waiting leaves.
    """
    choices: list[Market | None] = ["on-demand"]
    if at.spot_open and (at.running == "spot" or at.slack >= at.overhead):
        choices.append("spot")
    if at.running is None and not at.spot_open and at.slack - at.pause >= reserve:
        choices.append(None)
    return tuple(choices)


def on_demand(_at: Position) -> Market | None:
    """Return on-demand: what spot is compared with."""
    return "on-demand"


def greedy(at: Position) -> Market | None:
    """Return spot where there is some, and wait for it as long as the deadline allows."""
    safe = allowed(at)
    return "spot" if "spot" in safe else None if None in safe else "on-demand"


def uniform_progress(at: Position) -> Market | None:
    """Return the choice of Uniform Progress (Wu et al., "Can't Be Late", NSDI 2024).

    Spot where there is some; on-demand while the training is behind the straight line from beginning to deadline, and
    until spot is available and two overheads would not put it behind again. The two safety nets near the deadline are
    the paper's.
    """
    pace = at.work / at.whole
    done, elapsed = at.work - at.left, at.whole - at.until_deadline
    choice: Market | None = "spot" if at.spot_open else "on-demand" if done < elapsed * pace - 1e-6 else None
    if at.running == "on-demand" and (not at.spot_open or (elapsed + 2 * at.overhead) * pace >= done - 1e-6):
        choice = "on-demand"
    # In whole steps, as the paper: a step that has begun is used up.
    steps = math.floor(at.until_deadline / STEP_S + 1e-6)
    if math.ceil((at.left + 2 * at.overhead) / STEP_S - 1e-6) >= steps and at.running != "spot":
        choice = "on-demand"
    if math.ceil((at.left + at.overhead) / STEP_S - 1e-6) >= steps:
        choice = "spot" if at.running == "spot" and at.pending < 1e-3 else "on-demand"
    return choice


def bounded(at: Position, choices: tuple[Market | None, ...]) -> tuple[Market | None, ...]:
    """Return those choices after which the training can still come out near Uniform Progress.

    Its excess is what it paid more so far, plus the work that Uniform Progress is ahead, priced a little above
    on-demand. If no choice keeps this within `REGRET`, the choice of Uniform Progress counts.
    """
    if at.rival is None or len(choices) == 1:
        return choices
    rival = at.rival if at.spot_open else at.rival.reclaimed()
    other = uniform_progress(at.of(rival)) if rival.left > 0 else None
    theirs = rival.after(other, at.pause, overhead=at.overhead, spot_price=at.spot_price)

    def regret(choice: Market | None) -> float:
        ours = at.standing.after(choice, at.pause, overhead=at.overhead, spot_price=at.spot_price)
        behind = ours.left - theirs.left
        regret = ours.paid - theirs.paid + behind * (1 + BEHIND if behind > 0 else at.spot_price)
        if theirs.running not in {None, ours.running}:
            regret += at.overhead * (at.spot_price if theirs.running == "spot" else 1.0)
        return regret + (ours.pending - theirs.pending if ours.running else 0.0)

    limit = max(REGRET * at.work, REGRET_S)
    # One step ahead: `at.pause` is when the next decision is made.
    near = tuple(choice for choice in choices if regret(choice) <= limit)
    return near or ((other,) if other in choices else (min(choices, key=regret),))


NAMED: dict[str, Callable[[Position], Market | None]] = {
    "uniform-progress": uniform_progress,
    "greedy": greedy,
    "on-demand": on_demand,
}
"""Alternatives to the default policy, by their names in the setting `ec2.policy`."""


def choose(policy: str, at: Position) -> Market | None:
    """Return where to train now by a policy; where that would risk the deadline, on-demand. None is to wait for spot."""
    if policy not in NAMED:
        return choose_market(at)
    choice = NAMED[policy](at)
    return choice if choice in allowed(at) else "on-demand"


def choose_market(at: Position) -> Market | None:
    """Return where to train now; None to wait for spot. A position with slack is never left for one without."""
    if at.reclaims >= BREAKER and at.running != "spot":
        at = replace(at, spot_open=False)
    choices = bounded(at, allowed(at, reserve=at.reserve))
    if len(choices) == 1:
        return choices[0]
    costs = expected_costs(at)
    return min(choices, key=lambda choice: costs[choice])


def step_seconds(at: Position) -> float:
    """Return the length of a planned step."""
    return STEP_S * max(1, math.ceil(at.whole / STEP_S / MOST_STEPS))


def expected_costs(at: Position) -> dict[Market | None, float]:
    """Return the expected cost of each choice, in hours of on-demand."""
    step = step_seconds(at)
    belief = learn(at.belief, Sighting(at.now, at.spot_open))
    down, up = belief.multipliers
    longer = step / STEP_S
    work = max(at.work, at.left) / step
    job = Job(
        # Rounded up, so that a run whose estimate moves a little is not solved again.
        work=_round_up(work),
        steps=max(1, math.ceil(max(at.whole, at.until_deadline) / step)),
        overhead=max(1, round(at.overhead / step * 10)) / 10,
        spot_price=round(at.spot_price, 2),
        floor=round(at.floor, 2),
        multipliers=(_level(down) * longer, _level(up) * longer),
        grid=10 if work <= 60 else 1,
    )
    costs = solve(job).costs(
        steps=max(1, round(at.until_deadline / step)),
        left=at.left / step,
        states=belief.states,
        running=at.running,
        pending=at.pending / step,
    )
    return {choice: cost * step / 3600 for choice, cost in costs.items()}


def _level(multiplier: float) -> float:
    """Return the nearest of the levels: a table is solved for each."""
    half = (LEVELS - 1) / 2
    level = round(math.log(max(multiplier, 1e-9)) / math.log(MOST) * half)
    return float(MOST ** (max(-half, min(half, level)) / half))


def _round_up(work: float) -> int:
    """Return work in whole steps, rounded up to two significant digits."""
    whole = max(1, math.ceil(work - 1e-9))
    unit = 10 ** max(0, len(str(whole)) - 2)
    return int(math.ceil(whole / unit) * unit)
