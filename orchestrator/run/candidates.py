"""Which candidate a run tries next: spot first, on-demand when the deadline asks for it (`spot_policy`).

A refused place is passed over for a while, and so are the types above a quota; what can never be had is ruled out. A place that took an instance back
comes after those that did not. An instance type whose epochs were measured is judged by them, not by its estimate.
"""

from collections.abc import Iterator, Sequence

from gpu_offload.orchestrator.offers.offer import Market
from gpu_offload.orchestrator.output.units import human_duration
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.availability import Belief, Sighting, learn
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt
from gpu_offload.orchestrator.run.pace import START_S, fits, seconds_left
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.refusals import could_be_had, place_of, ruled_out, went_wrong_lately
from gpu_offload.orchestrator.run.spot_policy import Position, choose_market

RECLAIMS_BEFORE_ON_DEMAND, RECLAIMS_COUNT_S = 2, 7200.0
"""So often may a run be reclaimed in so many seconds before on-demand offers come first."""

PAUSE_S = 1800.0
"""How long a wait for spot may last at least: a scheduled `tend` comes no more often."""

SPOT_GONE_S = 7200.0
"""How long spot capacity that is gone stays away, in the mean (docs/deadline.md)."""

MOVE_AFTER_S = 3600.0
"""So long after spot was last refused or taken back it is tried again instead of an on-demand instance that trains."""


SETBACK_S = START_S + 120.0
"""What a reclaim costs beside the epoch in progress: the next launch, and the notice's two minutes."""


def fitting(run: RunRecord, observation: Observation, market: Market | None) -> Iterator[Candidate]:
    """Yield the candidates worth an attempt now, the best first; none while the run waits for spot."""
    if market is None:
        return
    troubled = {
        place_of(a.record.offer) for a in observation.attempts if went_wrong_lately(a, observation.now)
    }
    steady_first = market == "on-demand"
    candidates = sorted(
        run.candidates,
        key=lambda c: (
            steady_first and c.offer.market == "spot",
            # A place that failed lately comes after its like, and never makes on-demand overtake spot.
            c.offer.market != "spot" if troubled else False,
            place_of(c.offer) in troubled,
        ),
    )
    for candidate in candidates:
        if could_be_had(observation, candidate.offer) and fits(run, observation, candidate):
            yield candidate


def waiting_for_spot(run: RunRecord, observation: Observation, steady: Candidate) -> str:
    """Say that a run waits for spot, and for how long `steady`, its on-demand candidate, allows it."""
    at = _position(run, observation, steady)
    return f"no spot capacity; on-demand can wait {human_duration(at.slack - at.reserve)} for it"


def moving_to_spot(run: RunRecord, observation: Observation, current: ObservedAttempt) -> str | None:
    """Say why an on-demand instance that trains is left for spot, None where it is not.

    Only a launch shows whether there is spot capacity. So the move must pay even if every second one fails, and an
    epoch must have just been completed, since what was trained of the next one is lost.
    """
    offer, beat = current.record.offer, current.heartbeat
    if offer.market != "on-demand" or run.forced or beat is None or beat.state != "training":
        return None
    if beat.epochs_completed < 1 or beat.batch * 10 > beat.batches:
        return None
    ends = [a.end.at for a in observation.attempts if a.end is not None and a.record.offer.market == "spot"]
    since = max([current.record.created_at, *ends])
    cheap = [
        c
        for c in run.candidates
        if c.offer.market == "spot" and could_be_had(observation, c.offer) and fits(run, observation, c)
    ]
    steady = next((c for c in run.candidates if c.offer == offer), None)
    if not cheap or steady is None or observation.now - since < MOVE_AFTER_S:
        return None
    at = _position(run, observation, steady, running="on-demand", spot_open=True)
    saved = at.left / 3600 * (offer.usd_per_hour - min(c.offer.usd_per_hour for c in cheap))
    price = 2 * at.overhead / 3600 * offer.usd_per_hour
    if saved < 2 * price or choose_market(at) != "spot":
        return None
    return f"spot may be there again, and would save up to ${saved:.2f}"


def first_market(run: RunRecord, observation: Observation, steady: Candidate | None) -> Market | None:
    """Return which market comes first now; None to wait for spot."""
    ends = [
        a.end
        for a in observation.attempts
        if a.end is not None and observation.now - a.end.at < RECLAIMS_COUNT_S
    ]
    if sum(end.reason == "reclaimed" for end in ends) >= RECLAIMS_BEFORE_ON_DEMAND:
        return "on-demand"
    if steady is None or run.forced:
        return "spot"
    spot = [c for c in run.candidates if c.offer.market == "spot" and fits(run, observation, c)]
    is_open = any(could_be_had(observation, c.offer) for c in spot)
    market = choose_market(_position(run, observation, steady, spot_open=is_open))
    if market is not None:
        return market
    # Wait only for capacity that comes back, and only if an hour is worth less than waiting saves.
    comes_back = [c for c in spot if not ruled_out(observation, c.offer)]
    if not comes_back:
        return "on-demand"
    hours = seconds_left(run, observation, steady).likely / 3600
    saved = hours * (steady.offer.usd_per_hour - min(c.offer.usd_per_hour for c in comes_back))
    return None if SPOT_GONE_S / 3600 * run.value_of_time_usd_per_hour < saved else "on-demand"


def steadiest(run: RunRecord, observation: Observation) -> Candidate | None:
    """Return the on-demand candidate that would be done first, of those that could be launched."""
    steady = [
        c
        for c in run.candidates
        if c.offer.market == "on-demand" and could_be_had(observation, c.offer) and fits(run, observation, c)
    ]
    return min(steady, key=lambda c: seconds_left(run, observation, c).high, default=None)


def _position(
    run: RunRecord,
    observation: Observation,
    steady: Candidate,
    *,
    running: Market | None = None,
    spot_open: bool = False,
) -> Position:
    """Return where a run stands if everything takes as long as it may."""
    left = max(0.0, seconds_left(run, observation, steady).high - START_S)
    price = steady.offer.usd_per_hour
    cheap = [c.offer.usd_per_hour for c in run.candidates if c.offer.market == "spot"]
    return Position(
        left=left,
        until_deadline=run.deadline_at - observation.now,
        whole=run.deadline_at - run.created_at,
        work=steady.seconds.high,
        overhead=SETBACK_S + left / max(1, run.spec.epochs - observation.epochs_completed),
        pause=PAUSE_S,
        running=running,
        spot_open=spot_open,
        spot_price=min(1.0, min(cheap, default=price) / price) if price else 1.0,
        belief=_seen_capacity(observation.attempts, observation.now),
        now=observation.now,
    )


def _seen_capacity(attempts: Sequence[ObservedAttempt], now: float) -> Belief | None:
    """Return what the run's spot attempts say about capacity: up while an instance runs, down where one is refused."""
    sightings = []
    for attempt in attempts:
        end = attempt.end
        if attempt.record.offer.market != "spot" or (end is not None and end.quota):
            continue
        if attempt.host is not None:
            sightings.append(Sighting(attempt.host.launched_at, is_up=True))
            until = end.at if end is not None else now
            sightings.append(Sighting(until, is_up=end is None or end.reason != "reclaimed", watched=True))
        elif end is not None and end.reason == "refused":
            sightings.append(Sighting(end.at, is_up=False))
    belief = None
    for sighting in sorted(sightings, key=lambda s: s.at):
        belief = learn(belief, sighting)
    return belief
