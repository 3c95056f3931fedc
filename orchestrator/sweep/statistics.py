"""Means and intervals of repeated trainings, and whether two trials differ."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpu_offload.orchestrator.estimate.posterior import student_t_quantile


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
    # 0.975 leaves 2.5 % on each side.
    half = student_t_quantile(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Score(mean, mean - half, mean + half)


Repetition = tuple[int, int | None]


def differs(one: Mapping[Repetition, float], other: Mapping[Repetition, float]) -> bool | None:
    """Whether two trials differ by more than their seeds and folds do, 95 % certain; None with too few trainings.

    Trainings of the same seed and fold are compared in pairs, so that their common effect cancels out.
    """
    differences = [one[repetition] - other[repetition] for repetition in one if repetition in other]
    if len(differences) < 2:
        return None
    score = score_of(differences)
    return bool(score.low is not None and score.high is not None and (score.low > 0 or score.high < 0))
