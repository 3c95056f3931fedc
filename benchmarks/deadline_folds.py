"""Folds of the deadline benchmarks: zones and dates left out together.

A fold is played on the zones of one side of the country in one part of the year, with a prior that is fitted on the other side
in the other part.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from benchmarks import spot_prior
from gpu_offload.orchestrator.run import availability, expected_cost

EARLY, LATE = ("a23/", "p1/"), ("n4/", "n16/")
"""Series of February to April and of August to September 2023."""
FOLDS = {
    f"{side}, {name}": ((side, parts), (other, rest))
    for side, other in (("east", "west"), ("west", "east"))
    for name, parts, rest in (("spring", EARLY, LATE), ("summer", LATE, EARLY))
}
"""By name: what is played, and what the prior is fitted on; each a side and the prefixes of its series."""


def load(folder: Path) -> ModuleType:
    """Return the harness of a folder. Raises FileNotFoundError where there is none."""
    spec = importlib.util.spec_from_file_location("harness", folder / "harness.py")
    if spec is None or spec.loader is None or not (folder / "harness.py").is_file():
        raise FileNotFoundError(f"{folder} has no harness.py")
    harness = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(harness)
    return harness


def fit(harness: Path, chosen: Callable[[str], bool]) -> None:
    """Let the product use a prior that is fitted on the chosen zones."""
    rows = [states for zone, states in spot_prior.traces(harness, "dev").items() if chosen(zone)]
    availability.HAZARDS, availability.EXPOSURES = spot_prior.fit(rows)
    availability.PRIOR = availability.transition()
    expected_cost.solve.cache_clear()


def is_in(zone: str, side: str, parts: tuple[str, ...]) -> bool:
    """Whether a zone is on a side, in a part of the year."""
    return side in zone and zone.startswith(parts)
