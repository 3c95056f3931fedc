"""When an instance that trains is left for a spot instance elsewhere."""

from dataclasses import replace

from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.run.candidates import steadiest
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt
from gpu_offload.orchestrator.run.places import best_place
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.refusals import place_of
from gpu_offload.orchestrator.run.run_position import places_of, position, price_of_work
from gpu_offload.orchestrator.run.spot_policy import choose

MOVE_AFTER_S = 3600.0
"""Seconds after spot was last refused or reclaimed until it can replace an on-demand instance that trains."""


def moving(run: RunRecord, observation: Observation, current: ObservedAttempt) -> str | None:
    """Return why a training instance is left for a spot instance elsewhere, None if it is not.

    Only a launch shows whether there is capacity, so the move must pay by the chance that there is, and only just after
    an epoch, since an incomplete one is lost.
    """
    offer, beat = current.record.offer, current.heartbeat
    if offer.where != "ec2" or run.forced or beat is None or beat.state != "training":
        return None
    if beat.epochs_completed < 1 or beat.batch * 10 > beat.batches:
        return None
    here = next((c for c in run.candidates if place_of(c.offer) == place_of(offer)), None)
    steady = here if offer.market == "on-demand" else steadiest(run, observation)
    spot = [c for c in run.candidates if c.offer.market == "spot"]
    if here is None or steady is None or not spot:
        return None
    waited = {place_of(c.offer): _since_trouble(observation, current, c.offer) for c in spot}
    places = [
        place
        if c is here
        else replace(place, is_open=place.is_open and waited[place_of(c.offer)] >= MOVE_AFTER_S)
        for c, place in zip(spot, places_of(run, observation, spot), strict=True)
    ]
    at = position(run, observation, steady, running=offer.market, spot_open=True)
    if offer.market == "spot":
        there = best_place(places, overhead=at.overhead, left=at.left, running=spot.index(here))
        if there is None or spot[there] is here or at.slack < at.overhead:
            return None
        return f"{spot[there].offer.name} costs less, and may be there"
    there = best_place(places, overhead=at.overhead)
    if there is None:
        return None
    hourly = price_of_work(run, observation, steady) / max(1.0, at.left) * 3600
    saved = at.left / 3600 * hourly * (1 - places[there].price)
    chance = places[there].belief.chance
    # A start there or, where that fails, another one here.
    price = at.overhead / 3600 * hourly * (chance * places[there].price + 1 - chance)
    if chance * saved < price or choose(run.policy, at) != "spot":
        return None
    return f"spot may be there again, and would save up to ${saved:.2f}"


def _since_trouble(observation: Observation, current: ObservedAttempt, offer: Offer) -> float:
    """Return the seconds since an offer's place was last refused or reclaimed, or since the current attempt began."""
    spot = (a for a in observation.attempts if a.end is not None and a.record.offer.market == "spot")
    if current.record.offer.market == "spot":
        spot = (a for a in spot if place_of(a.record.offer) == place_of(offer))
    ends = [a.end.at for a in spot if a.end is not None]
    return observation.now - max([current.record.created_at, *ends])
