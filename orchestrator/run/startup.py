"""How long an instance takes to start: a distribution, learned from former runs for each instance type."""

import math
from collections.abc import Sequence

START_S = 300.0
"""What another instance costs in time before it trains: boot, set-up, download (`estimate.gpu`); 95 % take less."""

SIGMA, WORTH = 0.35, 4.0
"""The prior: spread of the logarithm of a start-up, and its weight in measurements."""

Z95 = 1.645


def start_seconds(measured: Sequence[float]) -> float:
    """Return the seconds within which 95 % of an instance type's start-ups stay, given measured ones.

    Start-ups are lognormal, with a normal prior of the logarithm that gives START_S without measurements.
    """
    mean, spread = _logarithm(measured)
    return math.exp(mean + Z95 * spread)


def usual_start_seconds(measured: Sequence[float]) -> float:
    """Return the median of the same."""
    return math.exp(_logarithm(measured)[0])


def _logarithm(measured: Sequence[float]) -> tuple[float, float]:
    """Return mean and spread of the logarithm of the next start-up."""
    # The prior counts like WORTH measurements, in the mean and in the spread.
    prior = math.log(START_S) - Z95 * SIGMA * math.sqrt(1 + 1 / WORTH)
    logs = [math.log(max(1.0, seconds)) for seconds in measured]
    worth = WORTH + len(logs)
    mean = (WORTH * prior + sum(logs)) / worth
    squares = WORTH * (SIGMA**2 + (prior - mean) ** 2) + sum((value - mean) ** 2 for value in logs)
    return mean, math.sqrt(squares / worth * (1 + 1 / worth))
