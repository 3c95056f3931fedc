"""What a run on EC2 may be expected to cost, at most, and how long it waits for spot: the receipt's line."""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from gpu_offload.orchestrator.output.units import human_money
from gpu_offload.orchestrator.run.candidates import steadiest
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.pace import extras_per_hour
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.run_position import position
from gpu_offload.orchestrator.run.spot_policy import choose, expected_costs, step_seconds


@dataclass(frozen=True, slots=True)
class Forecast:
    """Costs in US dollars, before the run begins.

    Attributes:
        expected: The mean over what spot capacity may do.
        worst: The upper end of the time on demand, after two starts that came to nothing; never above max-cost-usd.
        waits_until: The latest moment at which waiting for spot ends in on-demand, Unix seconds; None for no wait.
    """

    expected: float
    worst: float
    waits_until: float | None

    @property
    def text(self) -> str:
        """Say it in a sentence."""
        costs = f"Expected {human_money(self.expected)}, worst case {human_money(self.worst)}"
        if self.waits_until is None:
            return f"{costs}; where there is no spot, on demand at once."
        until = datetime.fromtimestamp(self.waits_until, UTC)
        return f"{costs}; waits for spot until {until:%H:%M} UTC at most, then on demand."


def forecast(run: RunRecord) -> Forecast | None:
    """Return the forecast of a run that may choose between spot and on-demand; None for any other."""
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
    hourly = steady.offer.usd_per_hour + extras_per_hour(run, steady.offer)
    # Steps are paid in full, in the plan and here, so that the ratio is right.
    step = step_seconds(at)
    whole = math.ceil((likely + at.overhead) / step - 1e-9) * step / 3600
    ratio = 1.0 if run.policy == "on-demand" or first is None else min(1.0, costs[first] / whole)
    worst = (steady.seconds.high + 2 * at.overhead) / 3600 * hourly
    closed = position(run, observation, steady, spot_open=False)
    waits = choose(run.policy, closed) is None
    return Forecast(
        expected=ratio * (likely + at.overhead) / 3600 * hourly,
        worst=min(worst, run.max_cost_usd) if run.max_cost_usd > 0 else worst,
        waits_until=run.created_at + closed.patience if waits else None,
    )
