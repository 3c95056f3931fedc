"""Decides how long a refused offer is skipped."""

from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt
from gpu_offload.orchestrator.run.pace import fits
from gpu_offload.orchestrator.run.record import AttemptEnd, RunRecord

REFUSAL_LASTS_S = 1200.0
"""Seconds after which a refused offer is tried again: capacity returns, and quotas become free."""

QUOTA_TRIES = 3
"""How often an offer can be over a quota of unknown size before it is excluded: it can be 0."""


def passing_refusals(run: RunRecord, observation: Observation) -> list[AttemptEnd]:
    """Return the refusals that keep a fitting candidate from being tried now, and will pass."""
    wanted = [
        c.offer for c in run.candidates if fits(run, observation, c) and not ruled_out(observation, c.offer)
    ]
    return [
        end
        for refused, end in _refusals(observation)
        if any(_keeps_from(refused, end, offer, observation.now) for offer in wanted)
    ]


def could_be_had(observation: Observation, offer: Offer) -> bool:
    """Whether an offer was not refused lately, nor ruled out."""
    if not offer.is_rented:
        return True
    refusals = _refusals(observation)
    return not ruled_out(observation, offer) and not any(
        _keeps_from(refused, end, offer, observation.now) for refused, end in refusals
    )


def _refusals(observation: Observation) -> list[tuple[Offer, AttemptEnd]]:
    """Return what was refused, and how; a denial says nothing about an offer."""
    return [
        (a.record.offer, a.end)
        for a in observation.attempts
        if a.end is not None and a.end.reason == "refused" and not a.end.denied
    ]


def _keeps_from(refused: Offer, end: AttemptEnd, offer: Offer, now: float) -> bool:
    """Whether a refusal keeps an offer from being tried for a while; a quota counts vCPUs and frees as instances end."""
    if now - end.at >= REFUSAL_LASTS_S:
        return False
    if end.quota:
        return _quota_of(refused) == _quota_of(offer) and offer.vcpus >= refused.vcpus
    return place_of(refused) == place_of(offer)


def ruled_out(observation: Observation, offer: Offer) -> bool:
    """Whether refusals rule an offer out for the whole run."""
    over_quota = 0
    for refused, end in _refusals(observation):
        if (
            end.for_good == "run"
            or (end.for_good == "region" and refused.region == offer.region)
            or (end.for_good == "offer" and place_of(refused) == place_of(offer))
        ):
            return True
        if end.quota and _quota_of(refused) == _quota_of(offer):
            if end.limit_vcpus is not None and offer.vcpus > end.limit_vcpus:
                return True
            over_quota += end.limit_vcpus is None and offer.vcpus >= refused.vcpus
    return over_quota >= QUOTA_TRIES


def went_wrong_lately(attempt: ObservedAttempt, now: float) -> bool:
    """Return whether an attempt was reclaimed within the last 20 minutes."""
    end = attempt.end
    return end is not None and end.reason == "reclaimed" and now - end.at < REFUSAL_LASTS_S


def place_of(offer: Offer) -> tuple[str | None, ...]:
    """Return what one capacity is shared by: type, zone and market."""
    return offer.where, offer.instance_type, offer.region, offer.zone, offer.market


def _quota_of(offer: Offer) -> tuple[str | None, ...]:
    """Return what shares one quota: region, market and family of types.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html#ec2-on-demand-instances-limits
    """
    family = (offer.instance_type or "").lower()
    pool = "G" if family.startswith(("g", "vt")) else "P" if family.startswith("p") else "other"
    return offer.region, offer.market, pool
