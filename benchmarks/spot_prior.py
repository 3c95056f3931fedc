"""Fit the prior of `orchestrator.run.availability` to availability series.

    python -m benchmarks.spot_prior HARNESS                     # print the shipped table
    python -m benchmarks.spot_prior HARNESS --without east      # fit without the zones whose name contains this

HARNESS is the folder of a deadline harness with `data/SET.json`: {"gap_seconds": 600, "traces": {zone: "0110..."}}.
A hazard is changes over steps in its bucket, drawn towards the mean of its direction by 20 steps.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from gpu_offload.orchestrator.run import availability

PSEUDO_STEPS = 20.0

Rows = tuple[tuple[float, ...], tuple[float, ...]]


def fit(series: Iterable[str]) -> tuple[Rows, Rows]:
    """Return hazards and steps seen, each from down and from up, by bucket of age."""
    changes = [[0.0] * availability.BUCKETS for _ in range(2)]
    steps = [[0.0] * availability.BUCKETS for _ in range(2)]
    for states in series:
        age = 1
        for state, following in zip(map(int, states), map(int, states[1:]), strict=False):
            bucket = sum(age > last for last in availability.AGES)
            steps[state][bucket] += 1
            changes[state][bucket] += state != following
            age = 1 if state != following else age + 1

    def hazards(side: int) -> tuple[float, ...]:
        mean = sum(changes[side]) / sum(steps[side])
        return tuple(
            (seen + PSEUDO_STEPS * mean) / (due + PSEUDO_STEPS)
            for seen, due in zip(changes[side], steps[side], strict=True)
        )

    return (hazards(0), hazards(1)), (tuple(steps[0]), tuple(steps[1]))


def traces(harness: Path, name: str) -> dict[str, str]:
    """Return a set's series by zone."""
    found: dict[str, str] = json.loads((harness / "data" / f"{name}.json").read_text())["traces"]
    return found


def series(harness: Path, name: str, without: Sequence[str]) -> list[str]:
    """Return the series of the zones whose name contains none of `without`."""
    return [s for zone, s in traces(harness, name).items() if not any(part in zone for part in without)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("harness", type=Path)
    parser.add_argument("--set", default="dev")
    parser.add_argument("--without", nargs="*", default=[])
    arguments = parser.parse_args()
    hazards, steps = fit(series(arguments.harness, arguments.set, arguments.without))
    for name, rows in (("HAZARDS", hazards), ("EXPOSURES", steps)):
        print(f"{name} = (")
        for row in rows:
            print(f"    ({', '.join(f'{value:.4f}' for value in row)}),")
        print(")")


if __name__ == "__main__":
    main()
