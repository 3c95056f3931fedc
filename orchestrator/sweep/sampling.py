"""Chooses the next values, and computes what mattered, by Optuna over the trials in the store, without a database.

The study is rebuilt for each question, so that the answer depends only on the trials, the seed and the trial's number,
and a resumed sweep gets the same.
"""

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from gpu_offload.orchestrator.settings.dimension import Choice, Range, Scalar, stepped
from gpu_offload.orchestrator.settings.types import Goal
from gpu_offload.orchestrator.sweep.space import Space, Values

State = Literal["running", "complete", "pruned", "failed"]

DIGITS = 4
"""Significant digits of a value; more would only be harder to read."""

DRAWS = 20
"""Proposals of the sampler that may all be known, before the other combinations are searched in order."""

MOST_COUNTED = 10_000
"""Combinations up to which they are searched."""

LEAST_COMPLETE = 8
"""Complete trials below which importance is noise."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial for the sampler; `curve` has the values of its first training by epoch."""

    values: Mapping[str, Scalar]
    state: State
    score: float | None = None
    curve: tuple[tuple[int, float], ...] = ()


def ask(space: Space, tried: Sequence[Tried], *, seed: int, goal: Goal) -> Values | None:
    """Return new values for the next trial; None if every combination was tried.

    Running trials count as bad, so that two at once do not get similar values. `seed` decides every random choice.
    """
    known = {_key(one.values) for one in tried}
    if space.size is not None and len(known) >= space.size:
        return None
    for draw in range(DRAWS):
        # Primes keep the seeds of different sweeps, trials and draws apart.
        mixed = (seed * 1_000_003 + len(tried) * 1009 + draw) % 2**32
        sampler = optuna.samplers.TPESampler(seed=mixed, constant_liar=True)
        with quiet():
            study = _study(space, tried, goal, sampler)
            asked = study.ask(_distributions(space)).params
        values = {name: _rounded(space.dimensions[name], asked[name]) for name in space.dimensions}
        if _key(values) not in known:
            return values
    if space.size is not None and space.size <= MOST_COUNTED:
        return next((values for values in space.combinations() if _key(values) not in known), None)
    return values


def importance(space: Space, tried: Sequence[Tried], *, goal: Goal) -> dict[str, float]:
    """Return each dimension's share of what made trials good, the largest first; empty with too few trials.

    By PED-ANOVA (Watanabe, Bansal, Hutter 2023): how far the values of good trials are from those of all.
    """
    complete = [one for one in tried if one.state == "complete" and one.score is not None]
    if len(complete) < LEAST_COMPLETE or len(space.dimensions) < 2:
        return {}
    with quiet():
        study = _study(space, complete, goal, optuna.samplers.RandomSampler(seed=0))
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    return {name: float(share) for name, share in found.items()}


def _study(
    space: Space, tried: Sequence[Tried], goal: Goal, sampler: "optuna.samplers.BaseSampler"
) -> "optuna.Study":
    study = optuna.create_study(direction=goal, sampler=sampler)
    distributions = _distributions(space)
    states = {
        "running": TrialState.RUNNING,
        "complete": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }
    for one in tried:
        study.add_trial(
            create_trial(
                state=states[one.state],
                params=dict(one.values),
                distributions=distributions,
                value=one.score if one.state == "complete" else None,
                intermediate_values=dict(one.curve),
            )
        )
    return study


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    return {name: _distribution(dimension) for name, dimension in space.dimensions.items()}


def _distribution(dimension: Range | Choice) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    if dimension.whole:
        low, high = int(dimension.low), int(dimension.high)
        return IntDistribution(low, high, log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def _rounded(dimension: Range | Choice, value: Any) -> Scalar:
    """Return a value for a training: a whole number if the range asks for it, else with a few digits."""
    if isinstance(dimension, Choice):
        return value  # type: ignore[no-any-return]  # one of the values
    if dimension.whole:
        return int(value)
    if dimension.step is not None:
        return stepped(value)
    # Digits of the value or of the range, whichever is smaller: 10000..10001 has values between its ends, too.
    size = min(dimension.high - dimension.low, abs(value) or math.inf)
    places = DIGITS - 1 - math.floor(math.log10(size))
    return min(max(round(float(value), places), dimension.low), dimension.high)


def _key(values: Mapping[str, Scalar]) -> tuple[tuple[str, str], ...]:
    """Return the identity of a trial: 1, 1.0 and True are different values."""
    return tuple((name, repr(values[name])) for name in sorted(values))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's log and its notices of experimental features off the console."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
