"""Posterior of ln(actual / predicted) for the next training, given past ones.

The ratios are taken as normal with unknown mean and variance. Their conjugate prior is the normal-inverse-gamma
with mean 0, weight k0 = (sigma0 / tau0)^2, a0 = 2 and b0 = 2 sigma0^2, so the next ratio follows Student's t
(K. Murphy, "Conjugate Bayesian analysis of the Gaussian distribution", 2007, section 6). Simulated, its 80 %
interval covers 88 to 84 % for 0 to 10 runs; empirical quantiles cover 28 % with 2 runs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from gpu_offload.orchestrator.estimate.interval import Interval

UPPER = 0.9
"""`high` is this quantile and `low` its mirror, so the interval covers 80 %."""

Kind = Literal["cpu", "cpu-prior", "gpu", "gpus", "own", "pace", "installation"]
"""How a prediction was made: by steps on this machine, from a table for a CPU, a GPU or several, for code of the user's own
as if it were Ultralytics or a model of theirs as if it were yolov8s, or by the training's own steps; `installation` is of what a training needs installed."""

_SPREADS: dict[Kind, tuple[float, float]] = {
    "cpu": (0.06, 0.06),
    "cpu-prior": (0.12, 0.35),
    "gpu": (0.12, 0.25),
    "gpus": (0.12, 0.35),
    "own": (0.12, 1.0),
    "pace": (0.02, 0.018),
    "installation": (0.25, 0.7),
}
"""sigma0, from run to run of one machine and kind of training, and tau0, from one such kind to another.

`cpu` and `gpu` are fitted (see docs/estimate.md). CPUs of the same core count were a factor of 1.9 apart, which `cpu-prior`
covers. `gpus` adds what `gpu.SPREAD` says. `own` and `installation` are not measured: until a first training, they allow for
factors of about 5 and 3.
"""

NEGLIGIBLE_S = 1e-9

HALF_LIFE_DAYS = 90.0
"""After so many days a record counts half: releases of PyTorch and of runners' images come a few times a year."""

FEW_KEYS = 2.0
"""How many kinds of training the assumption of no bias outweighs, when they say what the next kind's will be."""


@dataclass(frozen=True, slots=True)
class HistoryKey:
    """What trainings share if one informs another's estimate. Pooling other hosts by GPU did not improve it; this did."""

    machine: str
    """An instance type, or a runner's kind (`cpu-4`)."""
    ultralytics: str
    """Minor version: `8.4`."""
    dataset: str
    """The dataset's path in the repository: a name that stays when the dataset grows."""
    family: str
    """`yolov8`, `yolo26-seg`: the model without its size."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A finished training.

    `predicted` is the *uncorrected* point estimate (`Estimate.point_after(epochs)` for the epochs that were
    trained), so that corrections do not correct one another; both in seconds.

    Raises:
        ValueError: a time is not above zero.
    """

    predicted: float
    actual: float
    key: HistoryKey | None = None
    age_days: float = 0.0
    """How long ago it ended: older ones count less."""
    installed: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Seconds of installing, which are in neither time; see `installation`."""
    rest: float | None = None
    """ln(actual / forecast) of what was left after the first steps; None where it was not forecast."""

    def __post_init__(self) -> None:
        if not (self.predicted > NEGLIGIBLE_S and self.actual > NEGLIGIBLE_S):
            raise ValueError(f"a ratio needs two times above zero, not {self.actual} of {self.predicted} s")
        if not (math.isfinite(self.predicted) and math.isfinite(self.actual)):
            raise ValueError("a ratio needs two finite times")

    @property
    def log(self) -> float:
        """ln(actual / predicted): 0.1 is 10 % longer than predicted."""
        return math.log(self.actual / self.predicted)

    @property
    def weight(self) -> float:
        """How much it counts, 1 for one of today: machines and releases change."""
        return math.pow(0.5, self.age_days / HALF_LIFE_DAYS)


def matching(history: Iterable[Ratio], key: HistoryKey) -> tuple[Ratio, ...]:
    """Return the trainings of the same key, in their order."""
    return tuple(ratio for ratio in history if ratio.key == key)


def shared_mean(history: Iterable[Ratio], key: HistoryKey) -> float:
    """Return the expected ln(actual / predicted) of a new kind of training, by other kinds on its machine.

    Each kind counts as one value, its mean shrunk to 0 as its own prior does, and all of them as `FEW_KEYS` less.
    """
    others: dict[HistoryKey, list[Ratio]] = {}
    for ratio in history:
        if ratio.key is not None and ratio.key != key and ratio.key.machine == key.machine:
            others.setdefault(ratio.key, []).append(ratio)
    means = [
        math.fsum(r.log * r.weight for r in ratios) / (math.fsum(r.weight for r in ratios) + 1)
        for ratios in others.values()
    ]
    return math.fsum(means) / (len(means) + FEW_KEYS)


@dataclass(frozen=True, slots=True)
class RatioPrediction:
    """The next ln(actual / predicted): Student's t, shifted and scaled."""

    mean: float
    scale: float
    freedom: float

    def quantile(self, p: float) -> float:
        """Return the value that a share `p` of outcomes stays below."""
        return self.mean + self.scale * student_t_quantile(p, self.freedom)

    def interval(self, seconds: float) -> Interval:
        """Return the 80 % interval around the median of predicted seconds. Raises ValueError, OverflowError."""
        low, likely, high = (seconds * math.exp(self.quantile(p)) for p in (1 - UPPER, 0.5, UPPER))
        return Interval(min(low, likely), likely, max(likely, high))


def predict(
    kind: Kind, logs: Sequence[float] = (), weights: Sequence[float] | None = None, *, prior: float = 0.0
) -> RatioPrediction:
    """Return the predictive distribution of the next log ratio, given those seen and their weights (0 to 1).

    `prior` is what is expected before any is seen (`shared_mean`).
    """
    sigma, tau = _SPREADS[kind]
    weights = [1.0] * len(logs) if weights is None else weights
    k0, a0, b0 = (sigma / tau) ** 2, 2.0, 2 * sigma**2
    n = math.fsum(weights)
    mean = math.fsum(w * x for w, x in zip(weights, logs, strict=True)) / n if n else prior
    scatter = math.fsum(w * (x - mean) ** 2 for w, x in zip(weights, logs, strict=True))
    k, a = k0 + n, a0 + n / 2
    b = b0 + scatter / 2 + k0 * n * (mean - prior) ** 2 / (2 * k)
    return RatioPrediction((k0 * prior + n * mean) / k, math.sqrt(b * (k + 1) / (a * k)), 2 * a)


@lru_cache(maxsize=256)
def student_t_quantile(p: float, freedom: float) -> float:
    """Return Student's t quantile of 0 < p < 1 to 1e-9, by bisection; `freedom` above 0. Raises ValueError."""
    if not (0 < p < 1 and freedom > 0):
        raise ValueError(f"no t quantile of {p} at {freedom} degrees of freedom")
    if p == 0.5:
        return 0.0
    if p < 0.5:
        return -student_t_quantile(1 - p, freedom)
    low, high = 0.0, 1.0
    while _student_t_cdf(high, freedom) < p:
        low, high = high, high * 2
    while high - low > 1e-9 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_t_cdf(middle, freedom) < p else (low, middle)
    return (low + high) / 2


def _student_t_cdf(t: float, freedom: float) -> float:
    """P(T <= t) for t >= 0: 1 - I_x(v/2, 1/2) / 2 with x = v / (v + t^2) (DLMF 8.17.22 for I)."""
    return 1 - _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) by its continued fraction."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x > (a + 1) / (a + b + 2):  # there the fraction of the mirrored function converges
        return 1 - front * _beta_fraction(b, a, 1 - x) / b
    return front * _beta_fraction(a, b, x) / a


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Evaluate DLMF 8.17.22's continued fraction by the modified Lentz method."""
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d or tiny)
    value = d
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return value
