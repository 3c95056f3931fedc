"""A dimension of a sweep as the configuration writes it: a range of numbers, or a list of values."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from gpu_offload.orchestrator.settings.fault import wrong

Scalar = bool | int | float | str

SETTINGS = frozenset({"model", "epochs", "image-size", "batch", "init-from"})
"""Dimensions that are settings of [training]; every other one is a hyperparameter."""

MAX_CHECKED = 300
"""Values of a range that are checked one by one."""

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"(log\s+)?({_NUMBER})\s*\.\.\s*({_NUMBER})(?:\s+step\s+({_NUMBER}))?")
REMEDY = 'write "0.1..0.9", "8..64", "log 1e-4..1e-1", "0..1 step 0.25", or a list of at least two values'


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where both were written so."""

    low: float
    high: float
    log: bool = False
    """Whether each factor of ten is as likely as another."""
    step: float | None = None
    """The distance of two values; None for any, or for every whole number."""
    whole: bool = False

    @property
    def ends(self) -> tuple[Scalar, Scalar]:
        """The lowest and the highest value, of the type that the setting takes."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    @property
    def count(self) -> int | None:
        """How many values it has; None for infinitely many."""
        step = self.step or (1.0 if self.whole else None)
        # In floating point (0.3 - 0) / 0.1 is a little less than 3.
        return None if step is None else math.floor((self.high - self.low) / step + 1e-9) + 1

    def __str__(self) -> str:
        low, high = self.ends
        step = f" step {self.step:g}" if self.step is not None else ""
        return f"{'log ' if self.log else ''}{low}..{high}{step}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values."""

    values: tuple[Scalar, ...]

    @property
    def ends(self) -> tuple[Scalar, ...]:
        """Every value."""
        return self.values

    @property
    def count(self) -> int:
        """How many values it has."""
        return len(self.values)

    def __str__(self) -> str:
        return ", ".join(str(value) for value in self.values)


def path_of(name: str) -> tuple[str, ...]:
    """Return the path of the setting that a dimension changes."""
    setting = name.replace("_", "-")
    return ("training", setting) if setting in SETTINGS else ("training", "hyperparameters", name)


def values_of(dimension: Range | Choice) -> Iterator[Scalar]:
    """Yield every value of a finite dimension."""
    if isinstance(dimension, Choice):
        yield from dimension.values
        return
    low, step = dimension.ends[0], dimension.step or 1
    for i in range(dimension.count or 0):
        yield int(low) + i * int(step) if dimension.whole else stepped(dimension.low + i * step)


def sample(dimension: Range | Choice) -> tuple[Scalar, ...]:
    """Return the values by which a dimension is checked: all that are few, else the ends and one between."""
    if dimension.count is not None:
        found = tuple(islice(values_of(dimension), MAX_CHECKED))
        return found if len(found) == dimension.count else (*found, dimension.ends[-1])
    low, high = (float(end) for end in dimension.ends)
    return low, float(f"{low + (high - low) / math.pi:.3g}"), high


def stepped(value: float) -> float:
    """Return a number of steps without the error of their sum: 0.3 and not 0.30000000000000004."""
    return float(f"{value:.12g}")


def parse_dimension(value: object) -> Range | Choice:
    """Read a dimension. Raises PydanticCustomError with a remedy."""
    if isinstance(value, list | tuple):
        return _choice(value)
    if isinstance(value, dict):
        raise wrong("is a table", "write its names directly below [sweep]")
    if not isinstance(value, str):
        raise wrong(f"{value!r} is one value, and a sweep tries several", REMEDY)
    match = _RANGE.fullmatch(value.strip())
    if match is None:
        raise wrong(f"{value!r} is no range", REMEDY)
    log, low, high, step = bool(match[1]), float(match[2]), float(match[3]), match[4]
    whole = all(re.fullmatch(r"[+-]?\d+", part) for part in (match[2], match[3], step or "1"))
    if not all(map(math.isfinite, (low, high, float(step or 1)))):
        raise wrong(f"{value!r} is not finite", REMEDY)
    if low >= high:
        raise wrong(f"{value!r} does not rise", f"write the lower end first: {match[3]}..{match[2]}")
    if log and low <= 0:
        raise wrong(f"{value!r}: a logarithm needs a low end above 0", "write for example log 1e-4..1e-1")
    if log and step:
        raise wrong(f"{value!r} has a step, which a logarithmic range cannot have", "remove log or the step")
    if step and not 0 < float(step) <= high - low:
        raise wrong(f"{value!r}: the step must be above 0 and at most the width", REMEDY)
    return Range(low, high, log, float(step) if step else None, whole)


def _choice(value: "list[Any] | tuple[Any, ...]") -> Choice:
    for one in value:
        if not isinstance(one, bool | int | float | str) or (
            isinstance(one, float) and not math.isfinite(one)
        ):
            raise wrong(f"{one!r} is neither text, finite number, true nor false", REMEDY)
    # By their text, because 1, 1.0 and true are equal in Python and different in a setting.
    if len({repr(one) for one in value}) < len(value):
        raise wrong("a value is there twice", "remove one")
    if len(value) < 2:
        raise wrong("it has fewer than two values, and a sweep tries several", REMEDY)
    return Choice(tuple(value))


def check_dimension(value: object) -> object:
    """Validate a dimension, and keep it as it is written."""
    parse_dimension(value)
    return tuple(value) if isinstance(value, list) else value
