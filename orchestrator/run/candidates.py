"""Which candidate a run tries next: the market by `spot_policy`, the place of spot by what it may cost (`places`).

A refused place is passed over for a while, and so are the types above a quota; what can never be had is ruled out. A place that took an instance back
comes after those that did not. An instance type whose epochs were measured is judged by them, not by its estimate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gpu_offload.orchestrator.offers.offer import Market, Offer
from gpu_offload.orchestrator.output.units import human_duration
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.availability import Belief
from gpu_offload.orchestrator.run.capacity import belief_of, former_capacity, place_name, seen_capacity
from gpu_offload.orchestrator.run.hindsight import capacity_steps, replay
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt
from gpu_offload.orchestrator.run.pace import extras_per_hour, fits, seconds_left, start_of
from gpu_offload.orchestrator.run.places import Place, best_place
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.refusals import could_be_had, place_of, ruled_out, went_wrong_lately
from gpu_offload.orchestrator.run.spot_policy import Position, choose, uniform_progress

RECLAIMS_BEFORE_ON_DEMAND, RECLAIMS_COUNT_S = 2, 7200.0
"""So often may a run be reclaimed in so many seconds before on-demand offers come first."""

PAUSE_S = 1800.0
"""How long a wait for spot may last at least: a scheduled `tend` comes no more often."""

SPOT_GONE_S = 7200.0
"""How long spot capacity that is gone stays away, in the mean (docs/deadline.md)."""

MOVE_AFTER_S = 3600.0
"""So long after spot was last refused or taken back it is tried again instead of an on-demand instance that trains."""


NOTICE_S = 120.0
"""From a reclaim's notice to its end, in which nothing is trained."""


def overhead_seconds(run: RunRecord, observation: Observation, candidate: Candidate) -> float:
    """Return what a change of machine costs: the notice, the next start, and the epoch that is trained again."""
    start = start_of(run, candidate.offer)
    left = max(0.0, seconds_left(run, observation, candidate).high - start)
    return NOTICE_S + start + left / max(1, run.spec.epochs - observation.epochs_completed)


def fitting(run: RunRecord, observation: Observation, market: Market | None) -> Iterator[Candidate]:
    """Yield the candidates worth an attempt now, the best first; none while the run waits for spot."""
    if market is None:
        return
    troubled = {
        place_of(a.record.offer) for a in observation.attempts if went_wrong_lately(a, observation.now)
    }
    steady_first = market == "on-demand"
    candidates = sorted(
        _spot_by_cost(run, observation),
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


def _spot_by_cost(run: RunRecord, observation: Observation) -> list[Candidate]:
    """Return the candidates in their order, but the spot ones among them by what they may be expected to cost.

    Without anything seen that is the order of the plan.
    """
    spot = [c for c in run.candidates if c.offer.market == "spot"]
    if len(spot) < 2 or not (observation.attempts or run.experience.capacity):
        return list(run.candidates)
    places = _places(run, observation, spot)
    overhead = overhead_seconds(run, observation, spot[0])
    costs = [place.cost(overhead) for place in places]
    by_cost = iter([spot[i] for i in sorted(range(len(spot)), key=costs.__getitem__)])
    return [next(by_cost) if c.offer.market == "spot" else c for c in run.candidates]


def _places(run: RunRecord, observation: Observation, spot: Sequence[Candidate]) -> list[Place]:
    """Return the places of spot candidates, with prices relative to the dearest one's on-demand work."""
    seen = former_capacity(run.experience) + seen_capacity(observation.attempts, observation.now)
    unknown = Belief.unknown(observation.now)
    prices = [_price_of_work(run, observation, c) for c in spot]
    steady = [c for c in run.candidates if c.offer.market == "on-demand"]
    whole = min((_price_of_work(run, observation, c) for c in steady), default=max(prices, default=0.0))
    return [
        Place(
            price=price / whole if whole else 1.0,
            is_open=could_be_had(observation, c.offer) and fits(run, observation, c),
            belief=(belief_of(seen, place_name(c.offer)) or unknown).unseen_until(observation.now),
        )
        for price, c in zip(prices, spot, strict=True)
    ]


def _price_of_work(run: RunRecord, observation: Observation, candidate: Candidate) -> float:
    """Return what the rest of the training costs on a candidate if all goes well, your waiting included; USD."""
    hours = seconds_left(run, observation, candidate).likely / 3600
    hourly = candidate.offer.usd_per_hour + extras_per_hour(run, candidate.offer)
    return hours * (hourly + run.value_of_time_usd_per_hour)


def waiting_for_spot(run: RunRecord, observation: Observation, steady: Candidate) -> str:
    """Say that a run waits for spot, and for how long `steady`, its on-demand candidate, allows it."""
    at = _position(run, observation, steady)
    return f"no spot capacity; on-demand can wait {human_duration(at.slack - at.reserve)} for it"


def moving(run: RunRecord, observation: Observation, current: ObservedAttempt) -> str | None:
    """Say why an instance that trains is left for a spot instance elsewhere, None where it is not.

    Only a launch shows whether there is spot capacity. So the move must pay even if every second one fails, and an
    epoch must have just been completed, since what was trained of the next one is lost.
    """
    offer, beat = current.record.offer, current.heartbeat
    if offer.where != "ec2" or run.forced or beat is None or beat.state != "training":
        return None
    if beat.epochs_completed < 1 or beat.batch * 10 > beat.batches:
        return None
    here = next((c for c in run.candidates if c.offer == offer), None)
    steady = here if offer.market == "on-demand" else steadiest(run, observation)
    spot = [c for c in run.candidates if c.offer.market == "spot"]
    if here is None or steady is None or not spot:
        return None
    waited = {place_of(c.offer): _since_trouble(observation, current, c.offer) for c in spot}
    places = [
        place
        if c.offer == offer
        else replace(place, is_open=place.is_open and waited[place_of(c.offer)] >= MOVE_AFTER_S)
        for c, place in zip(spot, _places(run, observation, spot), strict=True)
    ]
    at = _position(run, observation, steady, running=offer.market, spot_open=True)
    doubtful = 2 * at.overhead
    if offer.market == "spot":
        there = best_place(places, overhead=doubtful, left=at.left, running=spot.index(here))
        if there is None or spot[there] is here or at.slack < at.overhead:
            return None
        return f"{spot[there].offer.name} costs less, and may be there"
    cheapest = best_place(places, overhead=at.overhead)
    if cheapest is None:
        return None
    hourly = _price_of_work(run, observation, steady) / max(1.0, at.left) * 3600
    saved = at.left / 3600 * hourly * (1 - places[cheapest].price)
    if saved < 2 * doubtful / 3600 * hourly or choose(run.policy, at) != "spot":
        return None
    return f"spot may be there again, and would save up to ${saved:.2f}"


def _since_trouble(observation: Observation, current: ObservedAttempt, offer: Offer) -> float:
    """Return the seconds since an offer's place was last refused or taken back, or since the current attempt began."""
    spot = (a for a in observation.attempts if a.end is not None and a.record.offer.market == "spot")
    if current.record.offer.market == "spot":
        spot = (a for a in spot if place_of(a.record.offer) == place_of(offer))
    ends = [a.end.at for a in spot if a.end is not None]
    return observation.now - max([current.record.created_at, *ends])


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
    market = choose(run.policy, _position(run, observation, steady, spot_open=is_open))
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
    start = start_of(run, steady.offer)
    left = max(0.0, seconds_left(run, observation, steady).high - start)
    spot = [c for c in run.candidates if c.offer.market == "spot"]
    places = _places(run, observation, spot)
    overhead = overhead_seconds(run, observation, steady)
    best = best_place(places, overhead=overhead)
    cheapest = min((place.price for place in places), default=1.0)
    hourly = steady.offer.usd_per_hour + extras_per_hour(run, steady.offer)
    seen = former_capacity(run.experience) + seen_capacity(observation.attempts, observation.now)
    share = 1 - min(1.0, observation.epochs_completed / run.spec.epochs)
    at = Position(
        left=left,
        until_deadline=run.deadline_at - observation.now,
        whole=run.deadline_at - run.created_at,
        work=max(left, steady.seconds.high - start),
        overhead=overhead,
        pause=PAUSE_S,
        running=running,
        spot_open=spot_open,
        spot_price=min(1.0, places[best].price if best is not None else cheapest),
        belief=belief_of(seen),
        now=observation.now,
        loss=places[best].hazard if best is not None and sum(p.is_open for p in places) > 1 else 0.0,
        paid=observation.spent_usd / hourly * 3600 if hourly else 0.0,
    )
    # What the whole work is thought to be now, so that Uniform Progress is not better informed than this run.
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
