"""The position of a run: what its journal says, in the terms of the policy."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from gpu_offload.orchestrator.offers.offer import Market
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.availability import Belief
from gpu_offload.orchestrator.run.capacity import belief_of, former_capacity, place_name, seen_capacity
from gpu_offload.orchestrator.run.hindsight import capacity_steps, replay
from gpu_offload.orchestrator.run.liveness import NOTICE_S
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.pace import extras_per_hour, fits, seconds_left, start_of
from gpu_offload.orchestrator.run.places import Place, best_place
from gpu_offload.orchestrator.run.position import Position
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.refusals import REFUSAL_LASTS_S, could_be_had
from gpu_offload.orchestrator.run.spot_policy import BREAKER_S, uniform_progress

MOST_MARGIN = 0.1
"""Of the time to the deadline, that is kept for refusals of on-demand: at most one round of them (`REFUSAL_LASTS_S`)."""

PAUSE_S = 1800.0
"""Shortest wait for spot: a scheduled `tend` runs no more often."""


def overhead_seconds(run: RunRecord, observation: Observation, candidate: Candidate) -> float:
    """Return what a change of machine costs: the notice, the next start, and the epoch that is trained again."""
    start = start_of(run, candidate.offer)
    left = max(0.0, seconds_left(run, observation, candidate).high - start)
    return NOTICE_S + start + left / max(1, run.spec.epochs - observation.epochs_completed)


def places_of(run: RunRecord, observation: Observation, spot: Sequence[Candidate]) -> list[Place]:
    """Return the places of spot candidates, with prices relative to the dearest one's on-demand work."""
    seen = former_capacity(run.experience) + seen_capacity(observation.attempts, observation.now)
    unknown = Belief.unknown(observation.now)
    prices = [price_of_work(run, observation, c) for c in spot]
    steady = [c for c in run.candidates if c.offer.market == "on-demand"]
    whole = min((price_of_work(run, observation, c) for c in steady), default=max(prices, default=0.0))
    return [
        Place(
            price=price / whole if whole else 1.0,
            is_open=could_be_had(observation, c.offer) and fits(run, observation, c),
            belief=(belief_of(seen, place_name(c.offer)) or unknown).unseen_until(observation.now),
        )
        for price, c in zip(prices, spot, strict=True)
    ]


def price_of_work(run: RunRecord, observation: Observation, candidate: Candidate) -> float:
    """Return what the rest of the training costs on a candidate if all goes well, your waiting included; USD."""
    hours = seconds_left(run, observation, candidate).likely / 3600
    hourly = candidate.offer.usd_per_hour + extras_per_hour(run, candidate.offer)
    return hours * (hourly + run.value_of_time_usd_per_hour)


def recent_reclaims(observation: Observation) -> int:
    """Return how many instances EC2 reclaimed within the last `BREAKER_S`, in the place where it was most."""
    places = Counter(
        place_name(a.record.offer)
        for a in observation.attempts
        if a.end is not None and a.end.reason == "reclaimed" and observation.now - a.end.at < BREAKER_S
    )
    return max(places.values(), default=0)


def position(
    run: RunRecord,
    observation: Observation,
    steady: Candidate,
    *,
    running: Market | None = None,
    spot_open: bool = False,
) -> Position:
    """Return a run's position if everything takes its upper bound."""
    start = start_of(run, steady.offer)
    left = max(0.0, seconds_left(run, observation, steady).high - start)
    spot = [c for c in run.candidates if c.offer.market == "spot"]
    places = places_of(run, observation, spot)
    overhead = overhead_seconds(run, observation, steady)
    best = best_place(places, overhead=overhead)
    cheapest = min((place.price for place in places), default=1.0)
    hourly = steady.offer.usd_per_hour + extras_per_hour(run, steady.offer)
    seen = former_capacity(run.experience) + seen_capacity(observation.attempts, observation.now)
    share = 1 - min(1.0, observation.epochs_completed / run.spec.epochs)
    whole = run.deadline_at - run.created_at
    at = Position(
        left=left,
        until_deadline=run.deadline_at - observation.now,
        whole=whole,
        work=max(left, steady.seconds.high - start),
        overhead=overhead,
        pause=PAUSE_S,
        running=running,
        spot_open=spot_open,
        spot_price=min(1.0, places[best].price if best is not None else cheapest),
        belief=belief_of(seen),
        now=observation.now,
        margin=min(REFUSAL_LASTS_S, MOST_MARGIN * whole),
        paid=observation.spent_usd / hourly * 3600 if hourly else 0.0,
        reclaims=recent_reclaims(observation),
    )
    # By the present estimate of the whole work, so that Uniform Progress is no better informed than this run.
    begin = replace(
        at,
        left=left / share if share else 0.0,
        until_deadline=at.whole,
        running=None,
        paid=0.0,
        now=run.created_at,
    )
    steps = capacity_steps(
        seen_capacity(observation.attempts, observation.now), run.created_at, observation.now
    )
    return replace(at, rival=replay(uniform_progress, begin, steps))
