"""How sure a decision is, by the intervals that it rests on: values in, values out."""

import math
from statistics import NormalDist

from gpu_offload.orchestrator.estimate.interval import Interval

NORMAL = NormalDist()
UPPER = NORMAL.inv_cdf(0.9)

TOSS_UP = 0.8
"""Below this probability of being right, a decision is a toss-up."""

STEPS = 40
"""Quantiles of each time that are compared with each other."""


def within(interval: Interval, limit: float) -> float:
    """Return the probability that a time is within a limit, 0 to 1.

    A time is taken as log-normal on either side of its median, so that it has the interval's bounds.
    """
    if limit <= 0 or interval.likely <= 0:
        return 0.0 if limit < interval.likely else 1.0
    distance = math.log(limit / interval.likely)
    bound = interval.high if distance > 0 else interval.low
    spread = abs(math.log(max(bound, 1e-9) / interval.likely)) / UPPER
    if spread < 1e-9:
        return 1.0 if distance >= 0 else 0.0
    return NORMAL.cdf(distance / spread)


def quantile(interval: Interval, p: float) -> float:
    """Return the time that a share `p` of outcomes stays below, strictly between 0 and 1."""
    place = NORMAL.inv_cdf(p)
    bound = interval.high if place > 0 else interval.low
    if interval.likely <= 0 or bound <= 0:
        return interval.likely
    return interval.likely * math.exp(abs(place) / UPPER * math.log(bound / interval.likely))


def cheaper(first: tuple[Interval, float], second: tuple[Interval, float]) -> float:
    """Return the probability that the first of two places costs less than the second, 0 to 1.

    Args:
        first: Its time, and what an hour of it costs: money and waiting, in US dollars.
        second: The same, independent of the first.
    """
    points = [(i + 0.5) / STEPS for i in range(STEPS)]
    costs = [[quantile(interval, p) * rate for p in points] for interval, rate in (first, second)]
    wins = sum((a < b) + 0.5 * (a == b) for a in costs[0] for b in costs[1])
    return wins / STEPS**2
