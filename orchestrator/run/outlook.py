"""What follows from one observation of a run, computed once for one decision."""

from dataclasses import dataclass

from gpu_offload.orchestrator.offers.offer import Market
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.candidates import (
    first_market,
    fitting,
    moving_to_spot,
    steadiest,
    waiting_for_spot,
)
from gpu_offload.orchestrator.run.liveness import absence, awaits_reclaim, verdict
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt, ObservedInstance
from gpu_offload.orchestrator.run.pace import overrun
from gpu_offload.orchestrator.run.record import EndReason, RunRecord


@dataclass(frozen=True, slots=True)
class Outlook:
    """A run, an observation of it, and what follows from the two.

    Attributes:
        current: The open attempt.
        mine: Its instances.
        market: The market whose candidates come first; None while the run waits for spot.
        candidate: The best candidate for another attempt.
        wait: Why the run waits for spot instead.
        ended: Why the open attempt is over: a reason and a sentence.
        reclaim: Whether AWS is about to take the open attempt's instance back for free.
        overrun: Why the open attempt will not finish within its limits, nine in ten certain.
        doubt: The same, more likely than not.
    """

    run: RunRecord
    seen: Observation
    current: ObservedAttempt | None
    mine: tuple[ObservedInstance, ...]
    market: Market | None
    candidate: Candidate | None
    wait: str | None
    ended: tuple[EndReason, str] | None
    reclaim: bool
    overrun: str | None
    doubt: str | None

    @classmethod
    def of(cls, run: RunRecord, observation: Observation) -> "Outlook":
        """Return what follows from an observation of a run."""
        current = observation.current
        rented = current if current is not None and current.record.offer.where == "ec2" else None
        mine = observation.instances_of(current.record.number) if current is not None else ()
        steady = steadiest(run, observation)
        market = first_market(run, observation, steady)
        return cls(
            run=run,
            seen=observation,
            current=current,
            mine=mine,
            market=market,
            candidate=next(fitting(run, observation, market), None),
            wait=waiting_for_spot(run, observation, steady)
            if market is None and steady is not None
            else None,
            ended=_ended(run, observation, rented, mine) if rented is not None else None,
            reclaim=rented is not None and awaits_reclaim(observation, rented, mine),
            overrun=overrun(run, observation, current) if current is not None else None,
            doubt=overrun(run, observation, current, likely=True) if current is not None else None,
        )


def _ended(
    run: RunRecord, observation: Observation, current: ObservedAttempt, mine: tuple[ObservedInstance, ...]
) -> tuple[EndReason, str] | None:
    over = verdict(observation, current, mine)
    if over is None and (why := moving_to_spot(run, observation, current)) is not None:
        return "moved", why
    return over or absence(observation, current, mine)
