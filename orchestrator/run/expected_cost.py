"""The least expected cost of a training that must finish by a deadline, by dynamic programming.

State: steps until the deadline, work left, what runs (nothing, spot or on-demand, with its overhead still pending) and
the state of spot capacity. Each step is paid in full. Where slack is used up, on-demand to the end is all that remains.
Costs are in units of an on-demand step.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gpu_offload.orchestrator.offers.offer import Market
from gpu_offload.orchestrator.run.availability import IS_UP, Array, transition

Values = NDArray[np.float32]
NEVER = np.float32(1e6)
"""The cost of what is not allowed. Not infinite: infinity times a probability of 0 is no number."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to finish by when. Times are in steps of `availability.STEP_S`."""

    work: int
    """The most work that can be left."""
    steps: int
    overhead: float
    """Work that a start or a change of machine costs."""
    spot_price: float
    """Relative to on-demand."""
    floor: float
    """Slack at the beginning that waiting must not use, in proportion to the time left."""
    multipliers: tuple[float, float]
    """Of the hazards, from down and from up."""
    grid: int
    """Points per step of work."""


@dataclass(frozen=True, slots=True)
class Table:
    """Expected costs of a job. `values[k]` has shape (1 + 2 * len(pending), states, points of work), k steps left."""

    job: Job
    pending: tuple[float, ...]
    chances: Array
    values: tuple[Values, ...]

    def costs(
        self, *, steps: int, left: float, states: Array, running: Market | None, pending: float
    ) -> dict[Market | None, float]:
        """Return the expected cost of each choice for the next step, if all later ones are optimal.

        `steps` until the deadline (at least 1) and work `left` are in steps; `states` are the probabilities of capacity
        now; `pending` is the overhead still ahead of the machine that runs in the market `running`.
        """
        ahead = states @ self.chances
        values = self.values[min(steps, self.job.steps) - 1]
        stays = len(self.pending)

        def at(mode: int, weights: Array, work: float) -> float:
            point = min(max(work * self.job.grid, 0.0), values.shape[2] - 1)
            low = min(int(point), values.shape[2] - 2)
            part = point - low
            column = values[mode, :, low] * (1 - part) + values[mode, :, low + 1] * part
            return float(weights @ column)

        def run(overhead: float, price: float, *, spot: bool) -> float:
            work = left - (1 - min(1.0, overhead))
            if work <= 0:
                return price
            mode = 1 + _nearest(self.pending, overhead - 1)
            if not spot:
                return price + at(stays + mode, ahead, work)
            return price + at(mode, ahead * IS_UP, work) + at(0, ahead * ~IS_UP, work)

        spot = pending if running == "spot" else self.job.overhead
        steady = pending if running == "on-demand" else self.job.overhead
        return {
            None: at(0, ahead, left),
            "spot": run(spot, self.job.spot_price, spot=True),
            "on-demand": run(steady, 1.0, spot=False),
        }


@lru_cache(maxsize=16)
def solve(job: Job) -> Table:
    """Return the expected costs of a job; a second or less, for two days of work."""
    pending = _pending(job.overhead)
    chances = transition(*job.multipliers)
    into_up = (chances * IS_UP).astype(np.float32)
    into_down = (chances * ~IS_UP).astype(np.float32)
    work = np.arange(job.work * job.grid + 1) / job.grid
    table = [_on_demand_only(work, job.overhead, pending)]
    spare = job.floor * max(0.0, job.steps - job.work - job.overhead)
    up = IS_UP[:, None]
    for steps in range(1, job.steps + 1):
        later = table[-1]
        lost = into_down @ later[0]
        wait = into_up @ later[0] + lost
        slack = steps - work - job.overhead
        # 1e-9 and the like: sums of tenths must not miss a bound by their rounding.
        waits = np.where(slack - 1 >= spare * steps / job.steps - 1e-9, wait, NEVER)
        on_spot = [into_up @ later[1 + i] + lost for i in range(len(pending))]
        steady = [(into_up + into_down) @ later[1 + len(pending) + i] for i in range(len(pending))]
        first = _nearest(pending, job.overhead - 1)
        to_steady = _run(steady[first], job.overhead, 1.0, job.grid)
        to_spot = np.where(
            up & (slack - min(1.0, job.overhead) >= -1e-9),
            _run(on_spot[first], job.overhead, job.spot_price, job.grid),
            NEVER,
        )
        without_spot = np.minimum(waits, to_steady)
        new = [np.minimum(without_spot, to_spot)]
        for overhead in pending:
            # Past its overhead a machine loses only time in which it also trains, so it needs no slack.
            goes_on = (
                up & (slack - min(1.0, overhead) >= -1e-9) if overhead else np.broadcast_to(up, wait.shape)
            )
            stay = _run(on_spot[_nearest(pending, overhead - 1)], overhead, job.spot_price, job.grid)
            new.append(np.minimum(without_spot, np.where(goes_on, stay, NEVER)))
        for overhead in pending:
            stay = _run(steady[_nearest(pending, overhead - 1)], overhead, 1.0, job.grid)
            new.append(np.minimum(to_spot, stay))
        values = np.stack(new).astype(np.float32)
        values[..., 0] = 0  # without work left nothing is paid, whatever runs
        table.append(values)
    return Table(job, pending, chances, tuple(table))


def _pending(overhead: float) -> tuple[float, ...]:
    whole = int(np.ceil(overhead - 1 - 1e-9))
    return (0.0, *(overhead - step for step in range(1, whole + 1)))


def _nearest(pending: tuple[float, ...], value: float) -> int:
    return min(range(len(pending)), key=lambda i: abs(pending[i] - max(0.0, value)))


def _on_demand_only(work: Array, overhead: float, pending: tuple[float, ...]) -> Values:
    """Return the cost of on-demand to the end, which slack always allows for."""
    ahead = [overhead] * (1 + len(pending)) + list(pending)
    rows = np.stack([np.ceil(work + o - 1e-9) * (work > 0) for o in ahead])
    return np.repeat(rows[:, None, :], len(IS_UP), axis=1).astype(np.float32)


def _run(later: Values, overhead: float, price: float, grid: int) -> Values:
    """Return the cost of running for a step: its price, and what is left to do afterwards."""
    points = (1 - min(1.0, overhead)) * grid
    whole, part = int(points + 1e-9), points - int(points + 1e-9)
    result = np.zeros_like(later)
    width = later.shape[-1] - whole
    if part < 1e-6:
        result[..., whole:] = later[..., :width]
    else:
        result[..., whole + 1 :] = (1 - part) * later[..., 1:width] + part * later[..., : width - 1]
        result[..., whole] = (1 - part) * later[..., 0]
    result += price
    result[..., 0] = 0
    return result
