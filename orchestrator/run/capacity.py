"""What attempts observed of spot capacity, place by place: an instance type in a zone."""

from collections.abc import Iterable, Sequence

from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.run.availability import Belief, Sighting, learn
from gpu_offload.orchestrator.run.experience import Experience
from gpu_offload.orchestrator.run.observation import ObservedAttempt

Seen = tuple[str, Sighting]
"""A place, and what was seen there."""


def place_name(offer: Offer) -> str:
    """Return the name of the place that an offer's capacity is in: `g4dn.xlarge us-east-2a`."""
    return f"{offer.instance_type} {offer.zone or offer.region}"


def seen_capacity(attempts: Sequence[ObservedAttempt], now: float) -> list[Seen]:
    """Return what spot attempts observed, in time order: up while an instance runs, down where capacity was refused."""
    seen: list[Seen] = []
    for attempt in attempts:
        end, place = attempt.end, place_name(attempt.record.offer)
        if attempt.record.offer.market != "spot":
            continue
        if attempt.host is not None:
            seen.append((place, Sighting(attempt.host.launched_at, is_up=True)))
            until = end.at if end is not None else now
            is_up = end is None or end.reason != "reclaimed"
            seen.append((place, Sighting(until, is_up=is_up, watched=True)))
        # A quota, a denial or a type that is not offered says nothing about capacity.
        elif end is not None and end.reason == "refused" and not (end.quota or end.denied or end.for_good):
            seen.append((place, Sighting(end.at, is_up=False)))
    return sorted(seen, key=lambda one: one[1].at)


def former_capacity(experience: Experience) -> list[Seen]:
    """Return what former runs saw, in order of time."""
    return [(one.place, Sighting(one.at, one.is_up, one.watched)) for one in experience.capacity]


def belief_of(seen: Iterable[Seen], place: str | None = None) -> Belief | None:
    """Return what was learned about one place, or of all as one (None); None where nothing was seen."""
    belief = None
    for where, sighting in seen:
        if place in {None, where}:
            belief = learn(belief, sighting)
    return belief
