"""What several zones at once are worth to a training with a deadline, on simultaneous availability series.

    python -m benchmarks.deadline_zones HARNESS [--group a23/] [--windows 40]

HARNESS as in `benchmarks.deadline_policy`; its series whose names begin with the group are of the same time. Every
policy sees the capacity of its zones at each step of ten minutes. Billing is EC2's: by the second, a minute at least,
and nothing for a spot instance that is reclaimed within its first hour. Printed is the mean cost in the best single zone,
with all of them, and of spot from begin to end, below which only free first hours lead.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import spot_prior
from benchmarks.deadline_policy import HOUR
from gpu_offload.orchestrator.cost.prices import FIRST_HOUR_S, LEAST_BILLED_S
from gpu_offload.orchestrator.run.availability import STEP_S, Belief, Sighting, learn
from gpu_offload.orchestrator.run.places import Place, best_place
from gpu_offload.orchestrator.run.position import Position
from gpu_offload.orchestrator.run.spot_policy import BREAKER_S, choose_market

USD_PER_HOUR = 3.06
PRICE = 0.9731 / USD_PER_HOUR
"""Of p3.2xlarge, as in the harness: on demand, and spot relative to that."""


@dataclass
class Machine:
    """What runs: a zone's spot instance, or on-demand (None)."""

    zone: str | None
    since: float
    pending: float


@dataclass
class Player:
    """Our policy over some zones. Times are seconds."""

    work: float
    deadline: float
    overhead: float
    prices: Mapping[str, float]
    beliefs: dict[str, Belief | None] = field(default_factory=dict)
    whole: Belief | None = None
    reclaims: list[tuple[str | None, float]] = field(default_factory=list)

    def choose(
        self, now: float, left: float, is_open: Mapping[str, bool], machine: Machine | None
    ) -> tuple[bool, str | None]:
        """Return whether a machine runs in the next step, and in which zone; None is on-demand."""
        names = list(self.prices)
        for zone in names:
            self.beliefs[zone] = learn(self.beliefs.get(zone), Sighting(now, is_open[zone], watched=True))
        places = [Place(self.prices[z], is_open[z], self.beliefs[z]) for z in names]  # type: ignore[arg-type]
        here = names.index(machine.zone) if machine and machine.zone else None
        best = best_place(places, overhead=self.overhead, left=left, running=here)
        at = Position(
            left=left,
            until_deadline=self.deadline - now,
            whole=self.deadline,
            work=self.work,
            overhead=self.overhead,
            pause=STEP_S,
            running=None if machine is None else "spot" if machine.zone else "on-demand",
            spot_open=best is not None,
            spot_price=places[best].price if best is not None else min(self.prices.values()),
            pending=machine.pending if machine else 0.0,
            reclaims=max(
                Counter(z for z, when in self.reclaims if now - when < BREAKER_S).values(), default=0
            ),
            belief=self.whole,
            now=now,
        )
        self.whole = learn(self.whole, Sighting(now, best is not None, watched=True))
        market = choose_market(at)
        if market != "spot":
            return market == "on-demand", None
        if here is not None and at.slack < self.overhead:
            best = here
        return True, names[best] if best is not None else None


def play(
    player: Player, series: Mapping[str, Sequence[int]], *, price: float = USD_PER_HOUR
) -> tuple[float, float | None]:
    """Return what a training costs, in US dollars, and when it is done, in seconds; None for never."""
    machine: Machine | None = None
    done, usd, step = 0.0, 0.0, 0

    def pay(ended: float, *, reclaimed: bool = False) -> float:
        if machine is None or (reclaimed and ended - machine.since < FIRST_HOUR_S):
            return 0.0
        rate = player.prices[machine.zone] if machine.zone else 1.0
        return max(LEAST_BILLED_S, ended - machine.since) / HOUR * rate * price

    length = min(map(len, series.values()))
    while step < length:
        now = step * STEP_S
        is_open = {zone: bool(states[step]) for zone, states in series.items()}
        if machine is not None and machine.zone is not None and not is_open[machine.zone]:
            usd += pay(now, reclaimed=True)
            player.reclaims.append((machine.zone, now))
            machine = None
        runs, zone = player.choose(now, player.work - done, is_open, machine)
        if not runs:
            usd += pay(now)
            machine = None
        elif machine is None or machine.zone != zone:
            usd += pay(now)
            machine = Machine(zone, now, player.overhead)
        if machine is not None:
            trained = STEP_S - min(STEP_S, machine.pending)
            if done + trained >= player.work - 1e-6:
                end = now + min(STEP_S, machine.pending) + player.work - done
                return usd + pay(end), end
            done, machine.pending = done + trained, max(0.0, machine.pending - STEP_S)
        step += 1
    return usd, None


def main() -> int:
    """Measure; 1 where a deadline was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("harness", type=Path)
    parser.add_argument("--group", default="a23/")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    all_series = {
        zone: [int(state) for state in states]
        for zone, states in spot_prior.traces(arguments.harness, "dev").items()
        if zone.startswith(arguments.group)
    }
    jobs = [(48, 52, 0.05), (48, 52, 0.2), (48, 70, 0.05), (48, 70, 0.2)]
    length = min(map(len, all_series.values()))
    dice = random.Random(arguments.seed)
    starts = [dice.randrange(length - 430) for _ in range(arguments.windows)]
    print(f"{len(starts)} windows of {len(all_series)} zones: {', '.join(all_series)}")
    misses = 0
    for work, deadline, overhead in jobs:
        means = {}
        for name, zones in [*((z, [z]) for z in all_series), ("all zones", list(all_series))]:
            total = 0.0
            for start in starts:
                window = {z: all_series[z][start : start + 430] for z in zones}
                player = Player(work * HOUR, deadline * HOUR, overhead * HOUR, dict.fromkeys(zones, PRICE))
                usd, end = play(player, window)
                misses += end is None or end > deadline * HOUR + 1e-3
                total += usd
            means[name] = total / len(starts)
        together = means.pop("all zones")
        best = min(means, key=lambda zone: means[zone])
        least = (work + overhead) * PRICE * USD_PER_HOUR
        print(
            f"{work}/{deadline}/{overhead}: best single zone {best} ${means[best]:.2f}, all zones ${together:.2f}: "
            f"{100 * (1 - together / means[best]):.1f} % below (spot from begin to end: ${least:.2f}, "
            f"{100 * (1 - least / means[best]):.1f} %); misses {misses}",
            flush=True,
        )
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
