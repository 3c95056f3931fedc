"""What the rule of `orchestrator.run.spot_policy` is worth: it plays real spot availability series in a harness.

    python -m benchmarks.deadline_policy HARNESS           # trainings of 48 h
    python -m benchmarks.deadline_policy HARNESS --short   # of 2 h and 8 h
    python -m benchmarks.deadline_policy HARNESS --zones east --fit-without east   # zones that the fit has not seen

HARNESS is the folder of a deadline harness: `harness.py` with `load_set`, `baselines`, `simulate`, `CONFIGS` and `SHORT`,
and `data/SET.json`, an availability series a zone. It gives the cost of Uniform Progress (UP; Wu et al., "Can't Be
Late", NSDI 2024) and of the optimum that knows the future (OPT). Printed is (UP - ours) / (UP - OPT) by job type, its
mean, and the misses. The harness keeps its baselines in a folder beside itself.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from benchmarks import spot_prior
from gpu_offload.orchestrator.run import availability
from gpu_offload.orchestrator.run.availability import Belief, Sighting, learn
from gpu_offload.orchestrator.run.spot_policy import Position, choose_market

Choice = Literal["spot", "on_demand", "none"]
HOUR = 3600.0


class Policy:
    """The product's decision behind the harness's interface, which counts in hours."""

    def __init__(self, job: dict[str, float]) -> None:
        self.job = job
        self.belief: Belief | None = None

    def decide(
        self,
        elapsed_h: float,
        progress_h: float,
        total_h: float,
        deadline_h: float,
        overhead_h: float,
        spot_available: bool,
        running_on: Choice,
        overhead_left_h: float = 0.0,
    ) -> Choice:
        """Return what runs in the next tick."""
        at = Position(
            left=(total_h - progress_h) * HOUR,
            until_deadline=(deadline_h - elapsed_h) * HOUR,
            whole=deadline_h * HOUR,
            work=total_h * HOUR,
            overhead=overhead_h * HOUR,
            pause=self.job["tick_h"] * HOUR,
            running=_MARKETS[running_on],
            spot_open=spot_available,
            spot_price=self.job["price_spot"] / self.job["price_on_demand"],
            pending=overhead_left_h * HOUR,
            belief=self.belief,
            now=elapsed_h * HOUR,
        )
        self.belief = learn(self.belief, Sighting(at.now, spot_available, watched=True))
        return _CHOICES[choose_market(at)]


_MARKETS: dict[Choice, Literal["spot", "on-demand"] | None] = {
    "none": None,
    "spot": "spot",
    "on_demand": "on-demand",
}
_CHOICES: dict[Literal["spot", "on-demand"] | None, Choice] = {m: c for c, m in _MARKETS.items()}


def measure(
    harness: ModuleType,
    name: str,
    jobs: Sequence[tuple[float, float, float]],
    zones: Sequence[str],
    *,
    full: bool,
    step: int = 1,
) -> tuple[float, int]:
    """Print a line a job type; return the mean share of the gap that is closed, and the misses."""
    gap_s, windows = harness.load_set(name, full)
    known: list[Any] = harness.baselines(name, gap_s, windows, jobs)
    chosen = [i for i, (zone, _, _) in enumerate(windows) if not zones or any(z in zone for z in zones)][
        ::step
    ]
    names = sorted({windows[i][0] for i in chosen})
    print(f"{name}: {len(chosen)} windows in {len(names)} zones: {', '.join(names)}")
    print(
        f"{'job h/deadline/overhead':24}{'UP $':>9}{'OPT $':>9}{'ours $':>9}{'closed':>9}{'misses':>8}{'worst +$':>12}"
    )
    shares, all_misses = [], 0
    for c, (total, deadline, overhead) in enumerate(jobs):
        job = {
            "total_h": total,
            "deadline_h": deadline,
            "overhead_h": overhead,
            "tick_h": gap_s / HOUR,
            "price_spot": harness.SPOT,
            "price_on_demand": harness.OD,
        }
        up = opt = ours = worst = 0.0
        misses = 0
        for i in chosen:
            series = windows[i][2].tolist()
            cost, end, _ = harness.simulate(series, gap_s, Policy(job).decide, total, deadline, overhead)
            misses += end is None or end > deadline + 1e-9
            worst = max(worst, cost - known[i][c][2])
            up, opt, ours = up + known[i][c][2], opt + known[i][c][3], ours + cost
        n = len(chosen)
        shares.append((up - ours) / (up - opt))
        all_misses += misses
        print(
            f"{f'{total}/{deadline}/{overhead}':24}{up / n:9.2f}{opt / n:9.2f}{ours / n:9.2f}"
            f"{100 * shares[-1]:7.1f} %{misses:8d}{worst:12.2f}"
        )
    mean = sum(shares) / len(shares)
    print(f"mean {100 * mean:.1f} % of the gap closed, {all_misses} misses")
    return mean, all_misses


def main() -> int:
    """Measure; 1 where a deadline was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("harness", type=Path)
    parser.add_argument("--set", default="dev", help="which series of the harness")
    parser.add_argument("--short", action="store_true", help="trainings of 2 h and 8 h")
    parser.add_argument("--sampled", action="store_true", help="fewer windows")
    parser.add_argument(
        "--fit-without",
        nargs="+",
        default=[],
        help="fit the prior without zones whose name contains one of these",
    )
    parser.add_argument("--step", type=int, default=1, help="play every STEP-th window only")
    parser.add_argument("--zones", nargs="*", default=[], help="only zones whose name contains one of these")
    arguments = parser.parse_args()
    spec = importlib.util.spec_from_file_location("harness", arguments.harness / "harness.py")
    if spec is None or spec.loader is None or not (arguments.harness / "harness.py").is_file():
        print(f"{arguments.harness} has no harness.py", file=sys.stderr)
        return 2
    harness = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(harness)
    if arguments.fit_without:
        rows = spot_prior.series(arguments.harness, arguments.set, arguments.fit_without)
        availability.HAZARDS, availability.EXPOSURES = spot_prior.fit(rows)
        availability.PRIOR = availability.transition()
    jobs = harness.SHORT if arguments.short else harness.CONFIGS
    _, misses = measure(
        harness, arguments.set, jobs, arguments.zones, full=not arguments.sampled, step=arguments.step
    )
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
