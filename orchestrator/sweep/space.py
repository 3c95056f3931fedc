"""The search space of a sweep: dimensions, seeds and folds, and how a choice of values becomes settings."""

import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpu_offload.orchestrator.settings.dimension import (
    Choice,
    Range,
    Scalar,
    parse_dimension,
    path_of,
    values_of,
)
from gpu_offload.orchestrator.settings.sections import SweepSettings

DEFAULT_TRIALS = 20

Values = dict[str, Scalar]


@dataclass(frozen=True, slots=True)
class Space:
    """The dimensions of a sweep by name, and the repetitions of each choice of values."""

    dimensions: Mapping[str, Range | Choice]
    seeds: int = 1
    """Trainings with different seeds."""
    folds: int = 1
    """Parts of the dataset that validate in turn; 1: the configured split."""

    @classmethod
    def of(cls, settings: SweepSettings) -> "Space":
        """Return the space of a configuration, with its dimensions in order of their names."""
        return cls.written(settings.__pydantic_extra__ or {}, settings.seed, settings.folds)

    @classmethod
    def written(cls, dimensions: Mapping[str, Any], seeds: int, folds: int) -> "Space":
        """Parse a space whose dimensions are written as in the configuration. Raises PydanticCustomError."""
        return cls({name: parse_dimension(dimensions[name]) for name in sorted(dimensions)}, seeds, folds)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether values fit these dimensions: a finite number for each range."""
        return set(values) == set(self.dimensions) and all(
            isinstance(dimension, Choice) or _is_in_range(dimension, values[name])
            for name, dimension in self.dimensions.items()
        )

    @property
    def repetitions(self) -> tuple[tuple[int, int | None], ...]:
        """The trainings of a trial: the number added to the configured seed, and the fold, counted from 1."""
        folds: list[int | None] = [None] if self.folds == 1 else list(range(1, self.folds + 1))
        return tuple((seed, fold) for seed in range(self.seeds) for fold in folds)

    @property
    def size(self) -> int | None:
        """The number of combinations; None for infinitely many."""
        size = 1
        for dimension in self.dimensions.values():
            if dimension.count is None:
                return None
            size *= dimension.count
        return size

    def at_most(self, trials: int | None) -> int:
        """Return the trials of a sweep at most: the wanted number (None: the default), or all combinations if fewer."""
        wanted = trials or DEFAULT_TRIALS
        return wanted if self.size is None else min(self.size, wanted)

    def combinations(self) -> Iterator[Values]:
        """Yield every trial of a finite space."""
        names = list(self.dimensions)
        for values in itertools.product(*(values_of(self.dimensions[name]) for name in names)):
            yield dict(zip(names, values, strict=True))

    def as_written(self) -> dict[str, str | tuple[Scalar, ...]]:
        """Return the dimensions as `written` takes them."""
        return {n: d.values if isinstance(d, Choice) else str(d) for n, d in self.dimensions.items()}


def words(values: Mapping[str, Scalar], *, base_seed: int, seed: int, fold: str | None) -> list[str]:
    """Return a training's values as arguments of `--set`; `seed` is added to the configured one."""
    found = [f"{'.'.join(path_of(name))}={json.dumps(value)}" for name, value in sorted(values.items())]
    if seed:
        found.append(f"training.seed={base_seed + seed}")
    return found + ([f"dataset.split.fold={fold}"] if fold is not None else [])


def values_text(values: Mapping[str, Scalar]) -> str:
    """Return values in a line: `lr0 0.0031, model yolo11n.yaml`."""
    return ", ".join(f"{name} {shown(value)}" for name, value in sorted(values.items())) or "as configured"


def shown(value: Scalar) -> str:
    """Return a value for people."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_in_range(dimension: Range, value: object) -> bool:
    # In Python a bool is an int, and an int can exceed every float.
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max and (value > 0 or not dimension.log)
