"""The candidate that a run tries next: `spot_policy` chooses the market, the expected cost the place (`places`).

A refused place is skipped for a while, and so are larger types under a refused quota; a permanent refusal excludes an
offer. Places that reclaimed an instance come last. Measured epochs of an instance type replace its estimate.
"""

from collections.abc import Iterator

from gpu_offload.orchestrator.offers.offer import Market
from gpu_offload.orchestrator.output.units import human_duration
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.pace import fits, has_left_cpu, seconds_left
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.refusals import could_be_had, place_of, ruled_out, went_wrong_lately
from gpu_offload.orchestrator.run.run_position import overhead_seconds, places_of, position, recent_reclaims
from gpu_offload.orchestrator.run.spot_policy import BREAKER, choose

SPOT_GONE_S = 7200.0
"""Mean time without spot capacity (docs/deadline.md)."""


def fitting(run: RunRecord, observation: Observation, market: Market | None) -> Iterator[Candidate]:
    """Yield the candidates worth an attempt now, the best first; none while the run waits for spot."""
    if market is None:
        return
    # Capacity that was just taken back is likely still short there.
    troubled = {
        place_of(a.record.offer) for a in observation.attempts if went_wrong_lately(a, observation.now)
    }
    steady_first, left_cpu = market == "on-demand", has_left_cpu(observation)
    candidates = sorted(
        _spot_by_cost(run, observation),
        key=lambda c: (
            left_cpu and c.offer.where == "cpu",  # where no instance can be had
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
    """Return the candidates with the spot ones reordered by expected cost; unchanged without observations."""
    spot = [c for c in run.candidates if c.offer.market == "spot"]
    if len(spot) < 2 or not (observation.attempts or run.experience.capacity):
        return list(run.candidates)
    places = places_of(run, observation, spot)
    overhead = overhead_seconds(run, observation, spot[0])
    costs = [place.cost(overhead) for place in places]
    by_cost = iter([spot[i] for i in sorted(range(len(spot)), key=costs.__getitem__)])
    return [next(by_cost) if c.offer.market == "spot" else c for c in run.candidates]


def waiting_for_spot(run: RunRecord, observation: Observation, steady: Candidate) -> str:
    """Describe that a run waits for spot, and how long its on-demand candidate `steady` allows it."""
    at = position(run, observation, steady)
    why = "spot was reclaimed too often" if at.reclaims >= BREAKER else "no spot capacity"
    return f"{why}; on-demand can wait {human_duration(at.patience)} for it"


def first_market(run: RunRecord, observation: Observation, steady: Candidate | None) -> Market | None:
    """Return which market comes first now; None to wait for spot."""
    if steady is None:
        return "spot"
    if run.forced:
        return "on-demand" if recent_reclaims(observation) >= BREAKER else "spot"
    spot = [c for c in run.candidates if c.offer.market == "spot" and fits(run, observation, c)]
    is_open = any(could_be_had(observation, c.offer) for c in spot)
    market = choose(run.policy, position(run, observation, steady, spot_open=is_open))
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
