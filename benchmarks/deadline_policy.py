"""What the rule of `orchestrator.run.spot_policy` is worth: it plays real spot availability series in a harness.

    python -m benchmarks.deadline_policy HARNESS           # trainings of 48 h, zones and dates left out together
    python -m benchmarks.deadline_policy HARNESS --short   # of 2 h and 8 h
    python -m benchmarks.deadline_policy HARNESS --shipped # with the shipped prior, on all series

HARNESS is the folder of a deadline harness: `harness.py` with `load_set`, `baselines`, `simulate`, `CONFIGS` and `SHORT`,
and `data/SET.json`, an availability series a zone. It gives the cost of Uniform Progress (UP; Wu et al., "Can't Be
Late", NSDI 2024) and of the optimum that knows the future (OPT). The harness keeps its baselines in a folder beside itself.

Folds: `benchmarks.deadline_folds`. Printed by job type: (UP - ours) / (UP - OPT), the score 100 x (on-demand - ours) /
(on-demand - spot), misses, and the worst single job against UP; then the means, in which small and large overheads
weigh alike, and the worst fold.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from benchmarks.deadline_folds import FOLDS, fit, is_in, load
from gpu_offload.orchestrator.run.availability import Belief, Sighting, learn
from gpu_offload.orchestrator.run.position import Position, Standing
from gpu_offload.orchestrator.run.spot_policy import BREAKER_S, choose_market, uniform_progress

Choice = Literal["spot", "on_demand", "none"]
HOUR = 3600.0


class Policy:
    """The product's decision behind the harness's interface, which counts in hours."""

    def __init__(self, job: dict[str, float]) -> None:
        self.job = job
        self.belief: Belief | None = None
        self.paid = 0.0
        self.rival = Standing(job["total_h"] * HOUR)
        self.reclaims = list[float]()
        self.was: Choice = "none"

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
        if self.was == "spot" and running_on == "none":
            self.reclaims.append(elapsed_h * HOUR)
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
            paid=self.paid,
            rival=self.rival,
            reclaims=sum(elapsed_h * HOUR - when < BREAKER_S for when in self.reclaims),
        )
        self.belief = learn(self.belief, Sighting(at.now, spot_available, watched=True))
        choice = choose_market(at)
        step = {"overhead": at.overhead, "spot_price": at.spot_price}
        self.paid = at.standing.after(choice, at.pause, **step).paid
        other = at.of(self.rival)
        self.rival = other.standing.after(uniform_progress(other), at.pause, **step)
        self.was = _CHOICES[choice]
        return self.was


_MARKETS: dict[Choice, Literal["spot", "on-demand"] | None] = {
    "none": None,
    "spot": "spot",
    "on_demand": "on-demand",
}
_CHOICES: dict[Literal["spot", "on-demand"] | None, Choice] = {m: c for c, m in _MARKETS.items()}


SMALL_H = 0.05
"""Overheads above it are large."""

Job = tuple[float, float, float]


@dataclass(frozen=True)
class Row:
    """A job type on some windows: means in US dollars, shares in percent."""

    job: Job
    windows: int
    up: float
    opt: float
    ours: float
    score: float
    up_score: float
    misses: int
    worst: float

    @property
    def closed(self) -> float:
        """Share of the gap between UP and OPT."""
        return 100 * (self.up - self.ours) / (self.up - self.opt)


def measure(harness: ModuleType, jobs: Sequence[Job], chosen: Callable[[str], bool], step: int) -> list[Row]:
    """Play the chosen zones' windows, every `step`-th; return a row a job type."""
    gap_s, windows = harness.load_set("dev", True)
    known: list[Any] = harness.baselines("dev", gap_s, windows, jobs)
    played = [i for i, (zone, _, _) in enumerate(windows) if chosen(zone)][::step]
    rows = []
    for c, (total, deadline, overhead) in enumerate(jobs):
        job = {
            "total_h": total,
            "deadline_h": deadline,
            "overhead_h": overhead,
            "tick_h": gap_s / HOUR,
            "price_spot": harness.SPOT,
            "price_on_demand": harness.OD,
        }
        costs, misses = [], 0
        for i in played:
            series = windows[i][2].tolist()
            cost, end, _ = harness.simulate(series, gap_s, Policy(job).decide, total, deadline, overhead)
            misses += end is None or end > deadline + 1e-9
            costs.append(cost)
        up, opt = ([known[i][c][x] for i in played] for x in (2, 3))
        n, on_demand, spot = len(played), harness.OD * total, harness.SPOT * total
        ours = sum(costs) / n
        rows.append(
            Row(
                job=(total, deadline, overhead),
                windows=n,
                up=sum(up) / n,
                opt=sum(opt) / n,
                ours=ours,
                score=100 * (on_demand - ours) / (on_demand - spot),
                up_score=100 * (on_demand - sum(up) / n) / (on_demand - spot),
                misses=misses,
                worst=max(cost - other for cost, other in zip(costs, up, strict=True)),
            )
        )
    return rows


def means(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Return the mean share of small and large overheads, weighted alike, and each of the two, in percent."""
    small, large = (
        [row.closed for row in rows if (row.job[2] > SMALL_H) == is_large] for is_large in (False, True)
    )
    means = sum(small) / len(small), sum(large) / len(large)
    return sum(means) / 2, *means


def show(name: str, rows: Sequence[Row]) -> None:
    """Print a fold."""
    print(f"{name}: {rows[0].windows} windows")
    print(
        f"{'  job h/deadline/overhead':26}{'UP $':>9}{'OPT $':>9}{'ours $':>9}{'closed':>9}{'score':>8}",
        end="",
    )
    print(f"{'misses':>8}{'worst +$':>10}")
    for row in rows:
        print(f"{'  {}/{}/{}'.format(*row.job):26}{row.up:9.2f}{row.opt:9.2f}{row.ours:9.2f}", end="")
        print(f"{row.closed:7.1f} %{row.score:8.1f}{row.misses:8d}{row.worst:10.2f}")
    print("  mean {:.1f} %, small overhead {:.1f} %, large {:.1f} %".format(*means(rows)), flush=True)


def main() -> int:
    """Measure; 1 where a deadline was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("harness", type=Path)
    parser.add_argument("--short", action="store_true", help="trainings of 2 h and 8 h")
    parser.add_argument("--shipped", action="store_true", help="play all series with the shipped prior")
    parser.add_argument("--step", type=int, default=1, help="play every STEP-th window only")
    arguments = parser.parse_args()
    try:
        harness = load(arguments.harness)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    jobs = harness.SHORT if arguments.short else harness.CONFIGS
    folds = {}
    if arguments.shipped:
        folds["all series, shipped prior"] = measure(harness, jobs, lambda _zone: True, arguments.step)
    for name, (played, fitted) in FOLDS.items() if not arguments.shipped else ():
        fit(arguments.harness, lambda zone, fitted=fitted: is_in(zone, *fitted))
        folds[name] = measure(harness, jobs, lambda zone, played=played: is_in(zone, *played), arguments.step)
    for name, rows in folds.items():
        show(name, rows)
    worst = min(folds, key=lambda name: means(folds[name])[0])
    every = [row for rows in folds.values() for row in rows]

    def mean_of(name: str) -> float:
        return sum(getattr(row, name) * row.windows for row in every) / sum(row.windows for row in every)

    print(
        "worst fold: {}, {:.1f} % (small overhead {:.1f} %, large {:.1f} %)".format(
            worst, *means(folds[worst])
        )
    )
    print(
        f"all folds: {means(every)[0]:.1f} %, score {mean_of('score'):.1f} (UP {mean_of('up_score'):.1f}), ",
        end="",
    )
    misses = sum(row.misses for row in every)
    print(f"worst job +${max(row.worst for row in every):.2f} against UP, {misses} misses")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
