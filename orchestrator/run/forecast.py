"""A run's expected and highest cost on EC2, and how long it waits for spot: the receipt's line."""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from gpu_offload.orchestrator.output.units import human_money
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.candidates import fitting, steadiest
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.pace import extras_per_hour
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.run_position import position
from gpu_offload.orchestrator.run.spot_policy import choose, expected_costs, step_seconds


@dataclass(frozen=True, slots=True)
class Forecast:
    """Costs in US dollars, before the run begins.

    Attributes:
        expected: The mean over what spot capacity can do.
        worst: The upper end of the time on the on-demand instance that the run would take last, after two starts that
            came to nothing; never above max-cost-usd.
        begins_at: Unix seconds.
        waits_until: The latest moment at which waiting for spot ends in on-demand, Unix seconds; None for no wait.
    """

    expected: float
    worst: float
    begins_at: float
    waits_until: float | None

    @property
    def text(self) -> str:
        """Say it in a sentence."""
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
    worst = _on_demand_usd(run, last, last.seconds.high + 2 * at.overhead)
    return Forecast(
        expected=ratio * min(_on_demand_usd(run, c, c.seconds.likely + at.overhead) for c in on_demand),
        worst=min(worst, run.max_cost_usd) if run.max_cost_usd > 0 else worst,
        begins_at=run.created_at,
        waits_until=waits_until,
    )


def _on_demand_usd(run: RunRecord, candidate: Candidate, seconds: float) -> float:
    return seconds / 3600 * (candidate.offer.usd_per_hour + extras_per_hour(run, candidate.offer))
