"""Which attempt is opened next, or why none is."""

import math

from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.liveness import alike_ends, fruitless_attempts
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.outlook import Outlook
from gpu_offload.orchestrator.run.pace import budget, extras_per_hour, goes_to_its_limit, seconds_left
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.refusals import REFUSAL_LASTS_S, passing_refusals
from gpu_offload.orchestrator.run.step import Finish, OpenAttempt, Step, Wait

SLACK = 1.5
"""Multiple of its high estimate for which a training is affordable at the highest spot price."""

HEADROOM = 1.1
"""Lower bound of the highest spot price, relative to the current price."""

ALIKE_ENDS = 2
"""Attempts that can end alike without progress: a broken instance is replaced once."""


def open_next(at: Outlook) -> Step:
    """Open the next attempt, wait for one, or end the run."""
    run, seen = at.run, at.seen
    fruitless = fruitless_attempts(seen)
    if fruitless >= run.max_attempts:
        return Finish("failed", f"{fruitless} attempts in a row completed no epoch")
    # What repeats itself without progress is not rented again: it only costs more.
    alike = alike_ends(seen)
    if alike and alike[-1].reason == "expired":
        return Finish(
            "failed", f"{alike[-1].message} before an epoch was completed, and less is left for another try"
        )
    if len(alike) >= ALIKE_ENDS:
        return Finish("failed", f"{len(alike)} attempts ended alike without progress: {alike[-1].message}")
    refusals = [a.end for a in seen.attempts if a.end is not None and a.end.reason == "refused"]
    hopeless = next((end for end in refusals if end.for_good == "run"), None)
    if hopeless is not None:
        return Finish("failed", hopeless.message)
    if at.candidate is not None:
        offer, highest = at.candidate.offer, _max_price(run, seen, at.candidate)
        expiry = _expiry(run, seen, offer, highest)
        return OpenAttempt(len(seen.attempts) + 1, offer, expiry, highest)
    if at.wait is not None:
        return Wait(60.0, at.wait)
    passing = passing_refusals(run, seen)
    if passing:
        minutes = max(1, round((min(end.at for end in passing) + REFUSAL_LASTS_S - seen.now) / 60))
        return Wait(60.0, f"every offer was refused; asking again in {minutes} min: {passing[-1].message}")
    # What was refused fitted the limits.
    why = (
        f"; the last refusal: {refusals[-1].message}"
        if refusals
        else " that fits the deadline and max-cost-usd"
    )
    kept = f"; {seen.epochs_completed} of {run.spec.epochs} epochs are kept" if seen.epochs_completed else ""
    return Finish("failed", f"no offer is left{why}{kept}", cut=not refusals)


def _max_price(run: RunRecord, observation: Observation, candidate: Candidate) -> float | None:
    """Return the spot price in USD/h above which EC2 reclaims the instance; None on demand.

    It is the highest price at which the rest is affordable with `SLACK`, at most the on-demand price, and at least
    `HEADROOM` above today's, so that small rises do not interrupt. A training that uses up its money lasts longer at a
    lower price.
    """
    offer = candidate.offer
    if offer.market != "spot":
        return None
    if goes_to_its_limit(run, offer):
        return math.ceil(HEADROOM * offer.usd_per_hour * 10_000) / 10_000
    hours = SLACK * max(1.0, seconds_left(run, observation, candidate).high) / 3600
    affordable = budget(run, observation, offer) / hours - extras_per_hour(run, offer)
    ceiling = offer.on_demand_usd_per_hour
    highest = affordable if ceiling is None else min(affordable, ceiling)
    return math.ceil(max(highest, HEADROOM * offer.usd_per_hour) * 10_000) / 10_000


def _expiry(run: RunRecord, observation: Observation, offer: Offer, max_price: float | None) -> float:
    """Return the absolute time (Unix seconds), enforced by the instance, when money or time ends an attempt."""
    if offer.usd_per_hour > 0:
        hourly = (max_price or offer.usd_per_hour) + extras_per_hour(run, offer)
        seconds = budget(run, observation, offer) / hourly * 3600
    else:
        seconds = math.inf if run.cpu_limit_s is None else run.cpu_limit_s
    return min(run.deadline_at, observation.now + seconds)
