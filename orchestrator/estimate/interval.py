"""A duration with its uncertainty: low, likely, high."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """Seconds: `low` is the 10 % quantile, `likely` the median, `high` the 90 % quantile.

    Raises:
        ValueError: a bound is negative or not a number, or the bounds are not in order.
    """

    low: float
    likely: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.likely <= self.high < math.inf:
            bounds = f"{self.low}, {self.likely}, {self.high}"
            raise ValueError(f"0 <= low <= likely <= high < infinity fails for {bounds}")

    def __add__(self, other: "Interval | float") -> "Interval":
        """Add seconds, or another interval bound by bound (as if both went well or badly together)."""
        o = other if isinstance(other, Interval) else Interval(other, other, other)
        return Interval(self.low + o.low, self.likely + o.likely, self.high + o.high)

    def scaled(self, factor: float) -> "Interval":
        """Return the interval of `factor` times as much work; the factor is not negative."""
        return Interval(self.low * factor, self.likely * factor, self.high * factor)

    def json(self) -> dict[str, float]:
        """Return the three bounds as the `seconds` object of `offload plan --json`, to a tenth of a second."""
        return {"low": round(self.low, 1), "likely": round(self.likely, 1), "high": round(self.high, 1)}
