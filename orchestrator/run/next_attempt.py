"""Which attempt is opened next, or why none is."""

from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.run.candidates import fresh_refusals
from gpu_offload.orchestrator.run.liveness import fruitless_attempts, stillborn_attempts
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.outlook import Outlook
from gpu_offload.orchestrator.run.pace import fits
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.step import Finish, OpenAttempt, Step, Wait

START_TRIES = 2
"""How many instances in a row may fail to become ready or to start the training: a broken one is replaced once."""


def open_next(at: Outlook) -> Step:
    """Open the next attempt, wait for one, or end the run."""
    run, seen = at.run, at.seen
    fruitless = fruitless_attempts(seen)
    if fruitless >= run.max_attempts:
        return Finish("failed", f"{fruitless} attempts in a row completed no epoch")
    stillborn = stillborn_attempts(seen)
    if len(stillborn) >= START_TRIES:
        return Finish("failed", f"{len(stillborn)} instances in a row never trained: {stillborn[-1].message}")
    if at.candidate is not None:
        offer = at.candidate.offer
        return OpenAttempt(len(seen.attempts) + 1, offer, _expiry(run, seen, offer))
    if at.wait is not None:
        return Wait(60.0, at.wait)
    unfit = not any(fits(run, seen, candidate) for candidate in run.candidates)
    if any(not end.quota for end in fresh_refusals(seen)) and not unfit:
        return Wait(60.0, "every offer was refused a moment ago")
    refusals = [a.end for a in seen.attempts if a.end is not None and a.end.reason == "refused"]
    last = f"; the last refusal: {refusals[-1].message}" if refusals else ""
    kept = f"; {seen.epochs_completed} of {run.spec.epochs} epochs are kept" if seen.epochs_completed else ""
    return Finish("failed", f"no offer is left that fits the deadline and max-cost-usd{last}{kept}")


def _expiry(run: RunRecord, observation: Observation, offer: Offer) -> float:
    """When money or time ends an attempt: the absolute time that the instance itself enforces."""
    if offer.usd_per_hour <= 0:
        return run.deadline_at
    affordable = (run.max_cost_usd - observation.spent_usd) / offer.usd_per_hour * 3600
    return min(run.deadline_at, observation.now + affordable)
