"""Spot capacity in several places: where to launch next, and when to move.

A place is an instance type in a zone, with its own price and belief about capacity. `spot_policy` chooses the market by
all places together; this module chooses the place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_offload.orchestrator.run.availability import STEP_S, Belief

STAYS_STEPS = 12.0
"""How far ahead the chance of losing a place counts in its price: two hours."""


@dataclass(frozen=True, slots=True)
class Place:
    """Spot capacity in one place."""

    price: float
    """Of an hour of on-demand's work, relative to on-demand."""
    is_open: bool
    belief: Belief
    """What was seen of it, up to now."""

    @property
    def hazard(self) -> float:
        """Chance of losing an instance here within a step, in the mean over the next two hours."""
        return self.belief.hazard(STAYS_STEPS)

    def cost(self, overhead: float) -> float:
        """Expected price of an hour of work: a reclaim costs `overhead` seconds of on-demand's price, at most."""
        return self.price + self.hazard * overhead / STEP_S


def best_place(
    places: Sequence[Place], *, overhead: float, left: float = 0.0, running: int | None = None
) -> int | None:
    """Return the place to train in, None if none is open; places come in order of preference among equals.

    A running instance is moved only if that likely saves more than a change of machine costs (`overhead`, seconds),
    within the `left` seconds of work and the time that both places are expected to last.
    """
    order = [i for i, place in enumerate(places) if place.is_open]
    best = min(order, key=lambda i: places[i].cost(overhead), default=None)
    if running is None or best is None or best == running or not places[running].is_open:
        return best
    here, there = places[running], places[best]
    lasts = STEP_S / max(1e-6, here.hazard + there.hazard)
    saved = (here.cost(overhead) - there.cost(overhead)) * min(left, lasts)
    chance = there.belief.chance
    # A start there or, where that fails, another one here.
    return best if chance * saved > (chance * there.price + (1 - chance) * here.price) * overhead else running
