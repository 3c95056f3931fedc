"""Whether the constants of the policy's bounds carry over: they are chosen inside each fold, on what it is fitted on.

    python -m benchmarks.deadline_constants HARNESS [--short]

HARNESS as in `benchmarks.deadline_policy`, folds as in `benchmarks.deadline_folds`. For each fold, every setting of `SETTINGS` is played on the series that
the fold's prior is fitted on, every third window of them; the one with the highest mean share, of those whose worst job stays
within `MOST_USD` of Uniform Progress, then plays the fold. Printed is each fold with its choice, and the worst fold.
"""

import argparse
import itertools
import sys
from pathlib import Path

from benchmarks.deadline_folds import FOLDS, fit, is_in, load
from benchmarks.deadline_policy import Row, means, measure, show
from gpu_offload.orchestrator.run import position, spot_policy

SETTINGS = tuple(itertools.product((0.4, 0.8, 1.2), (0.03, 0.06, 0.12)))
"""`CHANGES_PER_HOUR` and `REGRET`."""

MOST_USD = 15.0
"""What a job may cost above Uniform Progress."""


def use(setting: tuple[float, float]) -> None:
    """Let the policy use a setting of its constants."""
    position.CHANGES_PER_HOUR, spot_policy.REGRET = setting


def worth(rows: list[Row]) -> float:
    """Return what a setting is chosen by: its mean share, if no job is too dear and none is missed."""
    sound = all(row.misses == 0 and row.worst <= MOST_USD for row in rows)
    return means(rows)[0] if sound else float("-inf")


def main() -> int:
    """Measure; 1 where a deadline was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("harness", type=Path)
    parser.add_argument("--short", action="store_true", help="trainings of 2 h and 8 h")
    arguments = parser.parse_args()
    harness = load(arguments.harness)
    jobs = harness.SHORT if arguments.short else harness.CONFIGS
    shares: dict[str, float] = {}
    misses = 0
    for name, (played, fitted) in FOLDS.items():
        fit(arguments.harness, lambda zone, fitted=fitted: is_in(zone, *fitted))
        found = {}
        for setting in SETTINGS:
            use(setting)
            found[setting] = worth(
                measure(harness, jobs, lambda zone, fitted=fitted: is_in(zone, *fitted), 3)
            )
        best = max(found, key=lambda setting: found[setting])
        use(best)
        rows = measure(harness, jobs, lambda zone, played=played: is_in(zone, *played), 1)
        show(f"{name}, changes an hour {best[0]}, regret {best[1]}", rows)
        shares[name] = means(rows)[0]
        misses += sum(row.misses for row in rows)
    worst = min(shares, key=lambda name: shares[name])
    print(f"worst fold: {worst}, {shares[worst]:.1f} %; {misses} misses")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
