"""Spot capacity as a Markov chain whose hazards a run learns from what it observes.

The state is up or down, and its age in steps of ten minutes. The older a state, the less likely it changes. A
multiplier scales the hazards of each direction, with a gamma prior of mean 1; each observed step updates it, and old
evidence fades.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEP_S = 600.0
AGES = (1, 2, 3, 6, 12, 24, 48, 96)
"""Last age of each bucket, in steps; one more bucket holds what is older."""
BUCKETS = len(AGES) + 1

# Fitted by `python -m benchmarks.spot_prior HARNESS` on 19 availability series of V100 instances on AWS in
# 2023, resampled to ten minutes (data of Wu et al., "Can't Be Late", NSDI 2024).
HAZARDS = (
    (0.2591, 0.2364, 0.1601, 0.1181, 0.0744, 0.0499, 0.0361, 0.0241, 0.0092),
    (0.2468, 0.2052, 0.1334, 0.1139, 0.0613, 0.0360, 0.0222, 0.0184, 0.0071),
)
"""Chance of a change within a step: down to up, then up to down, by bucket of age."""
EXPOSURES = (
    (2442.0, 1805.0, 1377.0, 3033.0, 3931.0, 4628.0, 4281.0, 3394.0, 4020.0),
    (2442.0, 1836.0, 1456.0, 3321.0, 4551.0, 5956.0, 7114.0, 7592.0, 13338.0),
)
"""Steps seen in each bucket: how likely each age is where nothing is known of it."""

EVIDENCE = 6.0
"""Weight of a multiplier's prior, in observed changes."""
KEPT_PER_STEP = 0.99
"""Weight that evidence keeps after a step in which capacity was seen: half after eleven hours."""
KEPT_UNSEEN = 0.9993
"""The same of a step in which nothing was seen: half after a week. A zone keeps its character for weeks."""

IS_UP = np.arange(2 * BUCKETS) >= BUCKETS
"""States by bucket: down first, then up."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen of spot capacity at a time (seconds). `watched`: it had not changed since the sighting before."""

    at: float
    is_up: bool
    watched: bool = False


@dataclass(frozen=True, slots=True)
class Belief:
    """What is known of capacity at a time."""

    at: float
    states: Array
    """Probability of each state, shape (2 * BUCKETS,)."""
    changes: tuple[float, float] = (0.0, 0.0)
    """Changes seen from down and from up, faded."""
    expected: tuple[float, float] = (0.0, 0.0)
    """Changes that the prior's hazards would have given in the same steps, faded."""

    @classmethod
    def first(cls, at: float, *, is_up: bool) -> Self:
        """Return the belief after a first sighting."""
        return cls(at, _given(np.array(EXPOSURES).reshape(-1), is_up=is_up))

    @classmethod
    def unknown(cls, at: float) -> Self:
        """Return what is likely of a place that was never seen."""
        steps = np.array(EXPOSURES).reshape(-1)
        return cls(at, steps / steps.sum())

    def unseen_until(self, at: float) -> "Belief":
        """Return what is likely at a later time, if nothing is seen until then."""
        steps = round((at - self.at) / STEP_S)
        if steps <= 0:
            return self
        kept = KEPT_UNSEEN**steps
        return Belief(
            at,
            self.states @ np.linalg.matrix_power(PRIOR, steps),
            (kept * self.changes[0], kept * self.changes[1]),
            (kept * self.expected[0], kept * self.expected[1]),
        )

    @property
    def multipliers(self) -> tuple[float, float]:
        """How many times more often capacity changes than the prior says, from down and from up: posterior means."""
        down, up = (
            (EVIDENCE + seen) / (EVIDENCE + due)
            for seen, due in zip(self.changes, self.expected, strict=True)
        )
        return down, up

    @property
    def chance(self) -> float:
        """Probability that capacity is up."""
        return float(self.states[IS_UP].sum())

    def hazard(self, steps: float = 1.0) -> float:
        """Chance that capacity which is up is lost within a step, in the mean over the next `steps`."""
        _, up = self.multipliers
        chances = np.minimum(1.0, np.array(HAZARDS[1]) * up)
        ages = self.states[IS_UP]
        total = float(ages.sum())
        if total <= 0:
            ages, total = np.array(EXPOSURES[1]), sum(EXPOSURES[1])
        # Ages are averaged after the power: what is old already will more likely last.
        stays = (1 - chances) ** steps
        return float(1 - (ages @ stays / total) ** (1 / steps))

    def after(self, sighting: Sighting) -> "Belief":
        """Return the belief with one more sighting, not older than the last one."""
        steps = round((sighting.at - self.at) / STEP_S)
        if steps <= 0:
            return replace(self, states=_given(self.states, is_up=sighting.is_up))
        if steps > 1 and not sighting.watched:
            belief = self.unseen_until(sighting.at)
            return replace(belief, states=_given(belief.states, is_up=sighting.is_up))
        belief, was_up = self, self.is_up
        for step in range(steps):
            belief = belief._step(is_up=sighting.is_up if step == steps - 1 else was_up)
        return replace(belief, at=sighting.at)

    @property
    def is_up(self) -> bool:
        """Whether capacity was up at the last sighting."""
        return self.chance > 0.5

    def _step(self, *, is_up: bool) -> "Belief":
        was_up = int(self.is_up)
        changes = [KEPT_PER_STEP * value for value in self.changes]
        expected = [KEPT_PER_STEP * value for value in self.expected]
        expected[was_up] += float(self.states @ np.array(HAZARDS).reshape(-1))
        changes[was_up] += was_up != is_up
        states = _given(self.states @ PRIOR, is_up=is_up)
        return Belief(self.at, states, (changes[0], changes[1]), (expected[0], expected[1]))


def learn(belief: Belief | None, sighting: Sighting) -> Belief:
    """Return a belief with one more sighting; None is to know nothing yet."""
    return Belief.first(sighting.at, is_up=sighting.is_up) if belief is None else belief.after(sighting)


def transition(down: float = 1.0, up: float = 1.0) -> Array:
    """Return the chance of each state after a step, shape (2 * BUCKETS, 2 * BUCKETS), by multipliers of the hazards.

    Within a bucket of several ages the age is unknown: it leaves the bucket with a chance of one in the bucket's width.
    """
    widths = np.diff((0, *AGES), append=np.inf)
    chances = 1 - (1 - np.array(HAZARDS)) ** np.array([[down], [up]])
    matrix = np.zeros((2 * BUCKETS, 2 * BUCKETS))
    for side in (0, 1):
        for bucket in range(BUCKETS):
            state, chance, on = side * BUCKETS + bucket, chances[side, bucket], 1 / widths[bucket]
            matrix[state, (1 - side) * BUCKETS] += chance
            # The last bucket has no end: its width is infinite, so `on` is 0.
            matrix[state, state] += (1 - chance) * (1 - on)
            matrix[state, side * BUCKETS + min(bucket + 1, BUCKETS - 1)] += (1 - chance) * on
    return matrix


def _given(states: Array, *, is_up: bool) -> Array:
    kept = states * (IS_UP if is_up else ~IS_UP)
    total = float(kept.sum())
    # The belief excluded what was seen: it is worth nothing, and the usual ages count.
    if total <= 0:
        return _given(np.array(EXPOSURES).reshape(-1), is_up=is_up)
    result: Array = kept / total
    return result


PRIOR = transition()
"""The chain of the prior itself."""
