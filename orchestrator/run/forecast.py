"""A run's expected and highest cost on EC2, and how long it waits for spot: the receipt's line."""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from gpu_offload.orchestrator.output.units import human_duration, human_money
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.candidates import fitting, steadiest
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.pace import extras_per_hour, start_of
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.relocation import MOVE_AFTER_S
from gpu_offload.orchestrator.run.run_position import position
from gpu_offload.orchestrator.run.spot_policy import choose, expected_costs, step_seconds


@dataclass(frozen=True, slots=True)
class Forecast:
    """Costs in US dollars, before the run begins."""

    expected: float
    """The mean over what spot capacity can do."""
    worst: float
    """What it costs at most, whatever spot does (`_worst`)."""
    begins_at: float
    """Unix seconds."""
    waits_until: float | None
    """The latest moment at which waiting for spot ends in on-demand, Unix seconds; None for no wait."""
    takes: float | None = None
    """The longest training, in seconds, with which the deadline is kept whatever spot does; None where the deadline is
    too close for any promise."""
    start: float = 0.0
    """The longest start-up, in seconds, with which it is kept."""

    @property
    def text(self) -> str:
        """Say it in two sentences: the forecast, and what is guaranteed."""
        if self.takes is None:
            return self._costs
        return (
            f"{self._costs} In time whatever spot does, while the training takes {human_duration(self.takes)} at most, a "
            f"start {human_duration(self.start)}, and max-cost-usd allows it."
        )

    @property
    def _costs(self) -> str:
        costs = f"Expected {human_money(self.expected)}, worst case {human_money(self.worst)}"
        if self.waits_until is None:
            return f"{costs}; where there is no spot, on demand at once."
        begins, until = (datetime.fromtimestamp(at, UTC) for at in (self.begins_at, self.waits_until))
        day = "" if begins.date() == until.date() else f"{until:%Y-%m-%d} "
        return f"{costs}; waits for spot until {day}{until:%H:%M} UTC at most, then on demand."


def forecast(run: RunRecord) -> Forecast | None:
    """Return the forecast of a run that can choose between spot and on-demand; None for any other."""
    observation = Observation(now=run.created_at, me="")
    run = run.model_copy(update={"value_of_time_usd_per_hour": 0.0})  # money alone
    steady = steadiest(run, observation)
    if steady is None or run.forced or run.candidates[0].offer.where != "ec2":
        return None
    if all(c.offer.market != "spot" for c in run.candidates):
        return None
    at = position(run, observation, steady, spot_open=True)
    likely = at.left * steady.seconds.likely / max(1.0, steady.seconds.high)
    at = replace(at, left=likely, work=likely)
    costs = expected_costs(at)
    first = choose(run.policy, at)
    # Steps are paid in full, in the plan and here, so that the ratio is right.
    step = step_seconds(at)
    whole = math.ceil((likely + at.overhead) / step - 1e-9) * step / 3600
    ratio = 1.0 if run.policy == "on-demand" or first is None else min(1.0, costs[first] / whole)
    on_demand = [c for c in run.candidates if c.offer.market == "on-demand"]
    closed = position(run, observation, steady, spot_open=False)
    waits_until = run.created_at + closed.patience if choose(run.policy, closed) is None else None
    late = replace(observation, now=waits_until or run.created_at)
    last = next((c for c in fitting(run, late, "on-demand") if c.offer.market == "on-demand"), steady)
    return Forecast(
        expected=ratio * min(_on_demand_usd(run, c, c.seconds.likely + at.overhead) for c in on_demand),
        worst=min(_worst(run, last, at.overhead, closed.slack), run.max_cost_usd),
        begins_at=run.created_at,
        waits_until=waits_until,
        takes=closed.left if closed.slack >= 0 else None,
        start=start_of(run, steady.offer),
    )


def _worst(run: RunRecord, last: Candidate, overhead: float, slack: float) -> float:
    """Return the highest cost of a run in US dollars, if its limits allow it.

    It assumes the whole training on demand on `last` at its upper time, with a change of machine each hour
    (`relocation.MOVE_AFTER_S`) and one more. A spot instance reclaimed in its first hour costs only volume and address,
    as long as there is slack; one that lasts longer costs less than on-demand for its work.
    """
    seconds = last.seconds.high
    changes = 1 + math.ceil(seconds / MOVE_AFTER_S)
    idle = max(0.0, slack) / 3600 * extras_per_hour(run, last.offer)
    return _on_demand_usd(run, last, seconds + changes * overhead) + idle


def _on_demand_usd(run: RunRecord, candidate: Candidate, seconds: float) -> float:
    return seconds / 3600 * (candidate.offer.usd_per_hour + extras_per_hour(run, candidate.offer))
