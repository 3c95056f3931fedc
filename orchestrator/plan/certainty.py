"""The certainty of a decision, from the intervals of the estimates that it is based on. Pure."""

import math
from bisect import bisect_left, bisect_right
from functools import lru_cache
from statistics import NormalDist

from gpu_offload.orchestrator.estimate.interval import Interval

# An interval goes from the 10th to the 90th percentile of a time.
NORMAL = NormalDist()
UPPER = NORMAL.inv_cdf(0.9)

TOSS_UP = 0.8
"""Below this probability of being right, a decision is a toss-up."""

STEPS = 25
"""Quantiles of each time that are compared with each other."""

EQUAL = 1e-9
"""Relative difference of two costs that is none."""


def within(interval: Interval, limit: float) -> float:
    """Return the probability that a time is within a limit, 0 to 1: log-normal on either side of its median."""
    if limit <= 0 or interval.likely <= 0:
        return 0.0 if limit < interval.likely else 1.0
    distance = math.log(limit) - math.log(interval.likely)
    bound = interval.high if distance >= 0 else interval.low
    spread = abs(math.log(max(bound, 1e-9) / interval.likely)) / UPPER
    if spread < 1e-9:
        return 1.0 if distance >= 0 else 0.0
    return NORMAL.cdf(distance / spread)


def quantile(interval: Interval, p: float) -> float:
    """Return the quantile of a time: a share `p` of outcomes, strictly between 0 and 1, takes less."""
    place = NORMAL.inv_cdf(p)
    bound = interval.high if place > 0 else interval.low
    if interval.likely <= 0 or bound <= 0:
        return interval.likely
    return interval.likely * math.exp(abs(place) / UPPER * math.log(bound / interval.likely))


# One plan asks for the same pair several times: which place, how sure, and what would change it.
@lru_cache(maxsize=64)
def ratios(first: Interval, second: Interval) -> tuple[float, ...]:
    """Return the distribution of one time relative to another, independent one, as equally likely values in order."""
    points = [(i + 0.5) / STEPS for i in range(STEPS)]
    above, below = ([quantile(interval, p) for p in points] for interval in (first, second))
    return tuple(sorted(a / max(b, 1e-9) for a in above for b in below))


def cheaper(first: tuple[Interval, float], second: tuple[Interval, float]) -> float:
    """Return the probability that the first place costs less; each is its time and its USD per hour, waiting included."""
    if first[1] <= 0 or second[1] <= 0:
        return 1.0 if first[1] < second[1] else 0.5 if first[1] == second[1] else 0.0
    found, limit = ratios(first[0], second[0]), second[1] / first[1]
    # What is equal, but for rounding, counts half for each place.
    below, above = bisect_left(found, limit * (1 - EQUAL)), bisect_right(found, limit * (1 + EQUAL))
    return (below + above) / 2 / len(found)


def turning_value(gpu: tuple[Interval, float], cpu: Interval, certainty: float) -> float | None:
    """Return the value of an hour (USD) above which a GPU is worth it with that certainty; None if it never is.

    `gpu` is its time and its price in USD per hour, `cpu` the time of a free CPU. At a certainty of one half the likely
    times decide.
    """
    found = ratios(gpu[0], cpu)
    share = gpu[0].likely / max(cpu.likely, 1e-9)
    if certainty > 0.5:
        share = max(share, found[min(len(found) - 1, math.ceil(certainty * len(found)) - 1)])
    return gpu[1] * share / (1 - share) if share < 1 else None
