"""What other policies would have paid for a training, on the observed spot capacity."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gpu_offload.orchestrator.offers.offer import Market
from gpu_offload.orchestrator.run.availability import STEP_S, Array, Sighting
from gpu_offload.orchestrator.run.capacity import Seen
from gpu_offload.orchestrator.run.position import Position, Standing

Running = dict[tuple[str, int], Array]
"""Costs by the work left, of a machine in a market with the `k`-th pending overhead."""


def capacity_steps(seen: Sequence[Seen], begin: float, end: float) -> list[bool]:
    """Return whether any place had spot capacity, for each step of `STEP_S` from `begin` to `end` (Unix seconds).

    A sighting counts until the place's next one, the first also before it. No sighting means no capacity.
    """
    by_place: dict[str, list[Sighting]] = {}
    for place, sighting in seen:
        by_place.setdefault(place, []).append(sighting)
    steps = max(0, math.ceil((end - begin) / STEP_S - 1e-6))
    is_up = [False] * steps
    for sightings in by_place.values():
        known, following = sightings[0].is_up, 0
        for step in range(steps):
            while following < len(sightings) and sightings[following].at <= begin + step * STEP_S:
                known = sightings[following].is_up
                following += 1
            is_up[step] = is_up[step] or known
    return is_up


def replay(policy: Callable[[Position], Market | None], at: Position, is_up: Sequence[bool]) -> Standing:
    """Return where a training that starts at `at` would stand under a policy, given spot capacity by step."""
    standing = at.standing
    for step, spot_open in enumerate(is_up):
        if standing.left <= 0:
            break
        now = replace(
            at,
            until_deadline=at.until_deadline - step * STEP_S,
            spot_open=spot_open,
            now=at.now + step * STEP_S,
        ).of(standing)
        standing = now.standing.after(policy(now), STEP_S, overhead=at.overhead, spot_price=at.spot_price)
    return standing


def to_end(policy: Callable[[Position], Market | None], at: Position, is_up: Sequence[bool]) -> float:
    """Return what a training would pay under a policy, in on-demand seconds; no spot is assumed after `is_up`."""
    steps = math.ceil((at.until_deadline + at.overhead) / STEP_S)
    padded = [*is_up, *[False] * max(0, steps - len(is_up))]
    return replay(policy, at, padded).paid


def optimum(at: Position, is_up: Sequence[bool], *, grid: int = 10) -> float:
    """Return the least that a training could have paid with all spot capacity known, in on-demand seconds.

    Dynamic programming over steps to the deadline, work left and what runs; exact up to `grid` points of work per step.
    """
    unit = STEP_S / grid
    work, overhead = math.ceil(at.left / unit - 1e-6), math.ceil(at.overhead / unit - 1e-6)
    steps, tail = divmod(math.floor(at.until_deadline / unit + 1e-6), grid)
    up = [*is_up, *[False] * (steps + 1)][: steps + 1]
    pendings = [max(0, overhead - grid * k) for k in range(overhead // grid + 2)]
    points = np.arange(work + 1)
    # From the deadline backwards, where only a finished training is not too late.
    idle = np.where(points == 0, 0.0, np.inf)
    running: Running = {(market, k): idle for market in ("spot", "on-demand") for k in range(len(pendings))}
    for is_open, units in [(up[steps], tail), *((is_open, grid) for is_open in reversed(up[:steps]))]:

        def run(market: str, k: int, units: int = units, running: Running = running) -> Array:
            """Return the cost of running for a step with a pending overhead, by the work left."""
            price = at.spot_price if market == "spot" else 1.0
            trained = max(0, units - pendings[k])
            after = running[market, min(k + 1, len(pendings) - 1)]
            later = np.concatenate([np.zeros(min(trained, work + 1)), after[: max(0, work + 1 - trained)]])
            busy = np.minimum(units, pendings[k] + points) / grid
            cost: Array = np.where(points == 0, 0.0, later + busy * price)
            return cost

        starts = [idle, run("on-demand", 0), *([run("spot", 0)] if is_open else [])]
        best: Array = np.minimum.reduce(starts)
        running = {
            (market, k): np.minimum(best, run(market, k)) if market == "on-demand" or is_open else best
            for market, k in running
        }
        idle = best
    return float(idle[work]) * STEP_S
