"""Decides whether a trial is worth its remaining epochs: asynchronous successive halving, by Optuna's pruner.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning": at 1/9 and 1/3 of the epochs a trial continues
if it is among the best third of those that got there before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna

from gpu_offload.orchestrator.settings.types import Goal
from gpu_offload.orchestrator.sweep.sampling import quiet

FACTOR = 3


@dataclass(frozen=True, slots=True)
class Point:
    """The value of a trial after an epoch (counted from 1), and when it came, Unix seconds."""

    at: float
    epoch: int
    value: float


def pruned_at(curves: Mapping[int, Sequence[Point]], number: int, *, epochs: int, goal: Goal) -> Point | None:
    """Return the point after which a trial is not worth continuing, None if it is; `epochs`: of the shortest training."""
    with quiet():
        pruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=max(1, round(epochs / FACTOR**2)), reduction_factor=FACTOR, min_early_stopping_rate=0
        )
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(direction=goal, pruner=pruner, sampler=sampler)
        trials = {n: study.ask() for n in sorted(curves)}
        # In order of time, so that a decision depends only on what was known then.
        points = sorted((p.at, n, p.epoch, p) for n, curve in curves.items() for p in curve)
        for _, n, epoch, point in points:
            if epoch >= epochs and n == number:
                continue  # its epochs are spent
            trials[n].report(point.value, epoch)
            if trials[n].should_prune() and n == number:
                return point
    return None
