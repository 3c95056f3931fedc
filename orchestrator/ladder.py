"""Which offer a run takes next, and whether the one it has will do: spot first, on-demand when time asks for it.

When it does is `orchestrator.market_choice`'s rule. What went wrong is learnt from: a refused place is passed over for a while, a market without quota for good, a
place that took an instance back comes after those that did not, and an instance type whose epochs were measured
is judged by them instead of by its estimate.
"""

from collections.abc import Iterator

from gpu_offload.orchestrator.estimate import Estimate, correct_running
from gpu_offload.orchestrator.interval import Interval
from gpu_offload.orchestrator.market_choice import Position, choose_market
from gpu_offload.orchestrator.offers import Market, Offer
from gpu_offload.orchestrator.quantity import human_duration
from gpu_offload.orchestrator.run import AttemptEnd, Candidate, RunRecord
from gpu_offload.orchestrator.seen import AttemptSeen, Seen

REFUSAL_LASTS_S = 1200.0
"""Capacity comes back; a refused offer is asked again after this."""

RECLAIMS_BEFORE_ON_DEMAND, RECLAIMS_COUNT_S = 2, 7200.0
"""So often may a run be reclaimed in so many seconds before on-demand offers come first."""

PAUSE_S = 1800.0
"""How long a wait for spot may last at least: a scheduled `tend` comes no more often."""

SPOT_GONE_S = 7200.0
"""How long spot capacity that is gone stays away, in the mean (docs/deadline.md)."""

MOVE_AFTER_S = 3600.0
"""So long after spot was last refused or taken back it is tried again instead of an on-demand instance that trains."""

START_S = 300.0
"""What another instance costs in time before it trains: boot, set-up, download (`Overheads`)."""

SETBACK_S = START_S + 120.0
"""What a reclaim costs beside the epoch in progress: the next launch, and the notice's two minutes."""


def fitting(run: RunRecord, seen: Seen) -> Iterator[Candidate]:
    """Yield the candidates worth an attempt now, the best first."""
    troubled = {_place(a.record.offer) for a in seen.attempts if _went_wrong_lately(a, seen.now)}
    market = _market(run, seen)
    if market is None:
        return
    steady_first = market == "on-demand"
    candidates = sorted(
        run.candidates,
        key=lambda c: (
            steady_first and c.offer.market == "spot",
            # A place that failed lately goes behind its like, and never makes on-demand overtake spot.
            c.offer.market != "spot" if troubled else False,
            _place(c.offer) in troubled,
        ),
    )
    for candidate in candidates:
        if _could_be_had(seen, candidate.offer) and fits(run, seen, candidate):
            yield candidate


def fits(run: RunRecord, seen: Seen, candidate: Candidate) -> bool:
    """Whether what is left of the training fits what is left of time and money, even if it goes badly."""
    if run.forced and candidate.offer.where == "cpu":
        return True
    seconds = seconds_left(run, seen, candidate).high
    cost = seconds / 3600 * candidate.offer.usd_per_hour
    in_time = run.forced or seen.now + seconds <= run.deadline_at
    return in_time and seen.spent_usd + cost <= run.max_cost_usd


def seconds_left(run: RunRecord, seen: Seen, candidate: Candidate) -> Interval:
    """Return how long what is left of the training takes on a fresh start of an offer, in seconds."""
    measured = [a for a in seen.attempts if _machine(a.record.offer) == _machine(candidate.offer)]
    for attempt in reversed(measured):
        rest = _corrected(run, seen, attempt, candidate)
        if rest is not None:
            return rest + START_S if candidate.offer.where == "ec2" else rest
    return candidate.seconds.scaled(_share_left(run, seen.epochs_completed))


def running_left(run: RunRecord, seen: Seen, current: AttemptSeen) -> Interval | None:
    """Return how much longer an attempt that trains will take, None before its first epoch is measured."""
    offer = current.record.offer
    for candidate in run.candidates:
        if _machine(candidate.offer) == _machine(offer):
            return _corrected(run, seen, current, candidate)
    return None


def goes_to_its_limit(run: RunRecord, offer: Offer) -> bool:
    """Whether a training that will not make it goes on all the same, and keeps what it has when its time is up.

    So does one on a CPU that somebody chose: it was known to be long, and every epoch that it completes is kept.
    """
    return run.on_overrun == "continue" or (run.forced and offer.where == "cpu")


def overrun(run: RunRecord, seen: Seen, current: AttemptSeen, *, likely: bool = False) -> str | None:
    """Say why an attempt that trains will not make it, None while it may.

    Nine in ten certain: even the interval's lower end is past its limit. With `likely`: more probable than not.
    """
    left, beat = running_left(run, seen, current), current.heartbeat
    if left is None or beat is None or beat.state != "training":
        return None
    available = current.record.expires_at - seen.now
    # From its last word on: while it is not heard (a store that is away), it trains on.
    if beat.time + (left.likely if likely else left.low) <= current.record.expires_at:
        return None
    by_money = current.record.expires_at < run.deadline_at - 1
    limit = f"max-cost-usd (${run.max_cost_usd:.2f})" if by_money else "limits.deadline"
    epochs = run.spec.epochs - beat.epochs_completed
    return (
        f"the {epochs} epochs that are left take {human_duration(left.likely)} more "
        f"({human_duration(left.low)} to {human_duration(left.high)}, measured), "
        f"and {limit} ends it in {human_duration(max(0.0, available))}"
    )


def waiting_for_spot(run: RunRecord, seen: Seen) -> str | None:
    """Say that a run waits for spot, and for how long it can, None where it does not."""
    steady = _steady(run, seen)
    if steady is None or _market(run, seen) is not None:
        return None
    at = _position(run, seen, steady)
    return f"no spot capacity; on-demand can wait {human_duration(at.slack - at.reserve)} for it"


def moving_to_spot(run: RunRecord, seen: Seen, current: AttemptSeen) -> str | None:
    """Say why an on-demand instance that trains is left for spot, None where it is not.

    Whether there is spot capacity only a launch tells. So it must pay even if every other try is in vain, and an
    epoch must have just been completed, since what is trained of the next one is lost.
    """
    offer, beat = current.record.offer, current.heartbeat
    if offer.market != "on-demand" or run.forced or beat is None or beat.state != "training":
        return None
    if beat.epochs_completed < 1 or beat.batch * 10 > beat.batches:
        return None
    ends = [a.end.at for a in seen.attempts if a.end is not None and a.record.offer.market == "spot"]
    since = max([current.record.created_at, *ends])
    cheap = [
        c
        for c in run.candidates
        if c.offer.market == "spot" and _could_be_had(seen, c.offer) and fits(run, seen, c)
    ]
    steady = next((c for c in run.candidates if c.offer == offer), None)
    if not cheap or steady is None or seen.now - since < MOVE_AFTER_S:
        return None
    at = _position(run, seen, steady, running="on-demand", spot_open=True)
    saved = at.left / 3600 * (offer.usd_per_hour - min(c.offer.usd_per_hour for c in cheap))
    price = 2 * at.overhead / 3600 * offer.usd_per_hour
    if saved < 2 * price or choose_market(at) != "spot":
        return None
    return f"spot may be there again, and would save up to ${saved:.2f}"


def fresh_refusals(seen: Seen) -> list[AttemptEnd]:
    """Return the refusals that still count."""
    ends = [a.end for a in seen.attempts if a.end is not None and a.end.reason == "refused"]
    return [e for e in ends if seen.now - e.at < REFUSAL_LASTS_S]


def _market(run: RunRecord, seen: Seen) -> Market | None:
    """Return which market comes first now; None is to wait for spot."""
    ends = [a.end for a in seen.attempts if a.end is not None and seen.now - a.end.at < RECLAIMS_COUNT_S]
    if sum(end.reason == "reclaimed" for end in ends) >= RECLAIMS_BEFORE_ON_DEMAND:
        return "on-demand"
    steady = _steady(run, seen)
    if steady is None or run.forced:
        return "spot"
    spot = [c for c in run.candidates if c.offer.market == "spot" and fits(run, seen, c)]
    is_open = any(_could_be_had(seen, c.offer) for c in spot)
    market = choose_market(_position(run, seen, steady, spot_open=is_open))
    if market is not None:
        return market
    # Waiting is for what comes back, and for whom an hour is worth less than what it saves.
    quota = {_quota_of(a.record.offer) for a in seen.attempts if a.end is not None and a.end.quota}
    comes_back = [c for c in spot if _quota_of(c.offer) not in quota]
    if not comes_back:
        return "on-demand"
    hours = seconds_left(run, seen, steady).likely / 3600
    saved = hours * (steady.offer.usd_per_hour - min(c.offer.usd_per_hour for c in comes_back))
    return None if SPOT_GONE_S / 3600 * run.value_of_time_usd_per_hour < saved else "on-demand"


def _steady(run: RunRecord, seen: Seen) -> Candidate | None:
    """Return the offer that is done soonest of those that are never reclaimed and could be launched."""
    steady = [
        c
        for c in run.candidates
        if c.offer.market == "on-demand" and _could_be_had(seen, c.offer) and fits(run, seen, c)
    ]
    return min(steady, key=lambda c: seconds_left(run, seen, c).high, default=None)


def _position(
    run: RunRecord,
    seen: Seen,
    steady: Candidate,
    *,
    running: Market | None = None,
    spot_open: bool = False,
) -> Position:
    """Return where a run stands if everything takes as long as it may."""
    left = max(0.0, seconds_left(run, seen, steady).high - START_S)
    return Position(
        left=left,
        until_deadline=run.deadline_at - seen.now,
        whole=run.deadline_at - run.created_at,
        work=steady.seconds.high,
        overhead=SETBACK_S + left / max(1, run.spec.epochs - seen.epochs_completed),
        pause=PAUSE_S,
        running=running,
        spot_open=spot_open,
    )


def _corrected(run: RunRecord, seen: Seen, attempt: AttemptSeen, candidate: Candidate) -> Interval | None:
    """Return the seconds of the epochs that are left, as an attempt's own epochs tell."""
    beat = attempt.heartbeat
    if beat is None or not beat.seconds_per_epoch:
        return None
    before = max(
        (a.heartbeat.epochs_completed for a in seen.attempts if a.heartbeat and a is not attempt
         and a.record.number < attempt.record.number), default=0,
    )  # fmt: skip
    epochs, trained = run.spec.epochs, beat.epochs_completed - before
    if trained < 1 or epochs <= trained:
        return None
    likely = max(candidate.seconds.likely, 1e-3)
    estimate = Estimate(
        interval=candidate.seconds,
        breakdown={"training": likely},
        basis="prior, not measured",
        # Not "cpu", however well this one was calibrated: what the epochs take now counts more than what was expected.
        kind="gpu" if candidate.offer.where == "ec2" else "cpu-prior",
        epoch_seconds=((epochs, likely / epochs),),
        before=0.0,
        earliest_epochs=epochs,
    )
    so_far = trained * beat.seconds_per_epoch
    whole = correct_running(estimate, trained, so_far)
    completed = max(seen.epochs_completed, beat.epochs_completed if attempt is seen.current else 0)
    factor = max(0, epochs - completed) / (epochs - trained)
    return Interval(*(max(0.0, bound - so_far) for bound in (whole.low, whole.likely, whole.high))).scaled(
        factor
    )


def _could_be_had(seen: Seen, offer: Offer) -> bool:
    """Whether an offer was not refused lately, and its market not for good."""
    if offer.where == "cpu":
        return True
    refusals = [
        (a.record.offer, a.end) for a in seen.attempts if a.end is not None and a.end.reason == "refused"
    ]
    return not any(
        (end.quota and _quota_of(refused) == _quota_of(offer))
        or (_place(refused) == _place(offer) and seen.now - end.at < REFUSAL_LASTS_S)
        for refused, end in refusals
    )


def _went_wrong_lately(attempt: AttemptSeen, now: float) -> bool:
    end = attempt.end
    return end is not None and end.reason == "reclaimed" and now - end.at < REFUSAL_LASTS_S


def _share_left(run: RunRecord, epochs_completed: int) -> float:
    return 1.0 - min(1.0, epochs_completed / run.spec.epochs)


def _machine(offer: Offer) -> tuple[str | None, ...]:
    """What trains equally fast."""
    return offer.where, offer.instance_type


def _place(offer: Offer) -> tuple[str | None, ...]:
    return offer.where, offer.instance_type, offer.region, offer.zone, offer.market


def _quota_of(offer: Offer) -> tuple[str | None, ...]:
    """What shares one quota: each region has its own for each market."""
    return offer.region, offer.market
