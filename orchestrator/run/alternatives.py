"""What other policies would have paid for a run, on the observed spot capacity: rows of its bill."""

from collections.abc import Sequence
from decimal import Decimal

from gpu_offload.orchestrator.cost.bill import MICRO, Alternative
from gpu_offload.orchestrator.run.capacity import seen_capacity
from gpu_offload.orchestrator.run.hindsight import capacity_steps, optimum, to_end
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.pace import extras_per_hour
from gpu_offload.orchestrator.run.position import Position
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.spot_policy import on_demand, uniform_progress
from gpu_offload.orchestrator.run.startup import usual_start_seconds

OPTIMUM = "the optimum in hindsight"
NOTE = "on the spot capacity that was seen"


def policy_alternatives(
    run: RunRecord, attempts: Sequence[ObservedAttempt], now: float, *, paid: Decimal
) -> tuple[Alternative, ...]:
    """Return what on-demand only, Uniform Progress and the optimum in hindsight would have paid until `now` (Unix
    seconds).

    Empty if the run had no choice between spot and on-demand, or no epoch was measured on an instance. `paid`, in US
    dollars, caps the optimum of a run that is over.
    """
    measured = [a for a in attempts if a.heartbeat and a.heartbeat.seconds_per_epoch and a.host]
    spot = [c for c in run.candidates if c.offer.market == "spot"]
    if not measured or not spot or run.forced:
        return ()
    last = measured[-1]
    kind = last.record.offer.instance_type
    steady = next(
        (c for c in run.candidates if c.offer.market == "on-demand" and c.offer.instance_type == kind), None
    )
    seconds = last.heartbeat.seconds_per_epoch if last.heartbeat else None
    if steady is None or not seconds:
        return ()
    hourly = steady.offer.usd_per_hour + extras_per_hour(run, steady.offer)
    own = min(
        (c.offer for c in spot if c.offer.instance_type == kind), key=lambda o: o.usd_per_hour, default=None
    )
    if own is None:
        return ()
    finished = any(a.end is not None and a.end.reason == "finished" for a in attempts)
    completed = max(a.epochs_completed for a in measured)
    # Early stopping ends a training before its last epoch.
    work = (completed if finished else run.spec.epochs) * seconds
    whole = max(1.0, run.deadline_at - run.created_at)
    at = Position(
        left=work,
        until_deadline=whole,
        whole=whole,
        work=work,
        overhead=usual_start_seconds(run.experience.start_seconds.get(kind or "", ())) + seconds / 2,
        pause=0.0,
        running=None,
        spot_open=False,
        spot_price=(own.usd_per_hour + extras_per_hour(run, own)) / hourly,
    )
    is_up = capacity_steps(seen_capacity(attempts, now), run.created_at, now)
    costs = {
        "on-demand only": to_end(on_demand, at, is_up),
        "Uniform Progress": to_end(uniform_progress, at, is_up),
        OPTIMUM: optimum(at, is_up),
    }
    if all(a.end is not None for a in attempts):
        costs[OPTIMUM] = min(costs[OPTIMUM], float(paid) / hourly * 3600)
    return tuple(
        Alternative(label, Decimal(value / 3600 * hourly).quantize(MICRO), NOTE)
        for label, value in costs.items()
        if value < float("inf")
    )
