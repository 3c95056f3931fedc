"""Means and intervals of repeated trainings: what a difference between two trials is worth."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""The 97.5 % quantile of Student's t by degrees of freedom, from 1 to 30."""


@dataclass(frozen=True, slots=True)
class Score:
    """A trial's mean over its trainings; `low` and `high` are its 95 % interval, None for a single training."""

    mean: float
    low: float | None = None
    high: float | None = None


def score_of(values: Sequence[float]) -> Score:
    """Return the mean of one or more values, with Student's 95 % interval where there are several."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Score(mean)
    half = t_975(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Score(mean, mean - half, mean + half)


def t_975(freedom: int) -> float:
    """Return Student's 97.5 % quantile; beyond 30 degrees of freedom by the first term of its expansion."""
    if freedom <= len(T_975):
        return T_975[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * freedom)


Repetition = tuple[int, int | None]


def differs(one: Mapping[Repetition, float], other: Mapping[Repetition, float]) -> bool | None:
    """Whether two trials differ by more than their seeds and folds do, 95 % certain; None if that cannot be decided.

    Trainings of the same seed and fold are compared: what a seed or fold does to both cancels out.
    """
    differences = [one[repetition] - other[repetition] for repetition in one if repetition in other]
    if len(differences) < 2:
        return None
    score = score_of(differences)
    return bool(score.low is not None and score.high is not None and (score.low > 0 or score.high < 0))
