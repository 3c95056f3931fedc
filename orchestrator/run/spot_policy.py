"""Spot, on-demand or wait: how a training keeps its deadline at the least expected cost.

A training has *slack*: the time that may still be lost before only on-demand, started at once and never reclaimed,
keeps the deadline. Waiting uses it up, and so does every change of machine; training on either market does not. A guard
allows only what leaves slack in the worst case, so the deadline is kept whatever spot does. Of what it allows, the
cheapest in expectation is chosen (`expected_cost`), by what the run has seen of spot capacity (`availability`).

See docs/deadline.md for where the numbers come from and what the policy is worth.
"""

import math
from dataclasses import dataclass

from gpu_offload.orchestrator.offers.offer import Market
from gpu_offload.orchestrator.run.availability import STEP_S, Belief, Sighting, learn
from gpu_offload.orchestrator.run.expected_cost import Job, solve

FLOOR = 0.5
"""Share of the slack at the beginning that waiting may not use, in proportion to the time left; it bounds bad luck."""

LEVELS = 7
MOST = 3.3
"""Multipliers of hazards are rounded to one of so many levels between 1 / MOST and MOST."""

MOST_STEPS = 512
"""A longer time to the deadline is planned in longer steps."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a training with checkpoints stands. Times are seconds.

    Attributes:
        left: What is left to train, on either market.
        until_deadline: From now.
        whole: From the beginning of the run to its deadline.
        work: The whole training.
        overhead: From a launch to where the training goes on, and what is trained again then.
        pause: How long a wait lasts before this is asked again.
        running: The market of the machine that trains, None where none does.
        spot_open: Whether there is spot capacity, as far as is known.
        spot_price: Of an hour, relative to on-demand.
        pending: Overhead of the running machine that is still ahead.
        belief: What earlier sightings say about spot capacity; None where there are none.
        now: On the clock of the belief.
    """

    left: float
    until_deadline: float
    whole: float
    work: float
    overhead: float
    pause: float
    running: Market | None
    spot_open: bool
    spot_price: float = 0.33
    pending: float = 0.0
    belief: Belief | None = None
    now: float = 0.0

    @property
    def slack(self) -> float:
        """What may be lost before on-demand has to be started; below zero it is too late to start anything."""
        return self.until_deadline - self.left - self.overhead

    @property
    def reserve(self) -> float:
        """The slack that waiting may not use."""
        spare = max(0.0, self.whole - self.work - self.overhead)
        return FLOOR * spare * self.until_deadline / self.whole


def allowed(at: Position) -> tuple[Market | None, ...]:
    """Return the choices after which on-demand still keeps the deadline, whatever spot does. On-demand is always one.

    Worst cases: nothing comes of a wait; spot is lost just when its overhead is done. A machine that is past its
    overhead loses nothing but time that it also trains in.
    """
    choices: list[Market | None] = ["on-demand"]
    if at.spot_open and (at.running == "spot" or at.slack >= at.overhead):
        choices.append("spot")
    if at.running is None and not at.spot_open and at.slack - at.pause >= at.reserve:
        choices.append(None)
    return tuple(choices)


def choose_market(at: Position) -> Market | None:
    """Return where to train now; None is to wait for spot.

    The deadline is kept where it could be: a position with slack is never left for one without, whatever spot does.
    """
    choices = allowed(at)
    if len(choices) == 1:
        return choices[0]
    costs = expected_costs(at)
    return min(choices, key=lambda choice: costs[choice])


def expected_costs(at: Position) -> dict[Market | None, float]:
    """Return the expected cost of each choice, in hours of on-demand."""
    step = STEP_S * max(1, math.ceil(at.whole / STEP_S / MOST_STEPS))
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
        floor=FLOOR,
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
