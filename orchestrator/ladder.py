"""Which offer a run takes next, and whether the one it has will do: spot first, on-demand when time asks for it.

What went wrong is learnt from: a refused place is passed over for a while, a market without quota for good, a
place that took an instance back comes after those that did not, and an instance type whose epochs were measured
is judged by them instead of by its estimate.
"""

from collections.abc import Iterator

from orchestrator.estimate import Estimate, correct_running
from orchestrator.interval import Interval
from orchestrator.offers import Offer
from orchestrator.quantity import human_duration
from orchestrator.run import AttemptEnd, Candidate, RunRecord
from orchestrator.seen import AttemptSeen, Seen

REFUSAL_LASTS_S = 1200.0
"""Capacity comes back; a refused offer is asked again after this."""

RECLAIMS_BEFORE_ON_DEMAND = 2
"""So often may a run be reclaimed before on-demand offers come first."""

START_S = 300.0
"""What another instance costs in time before it trains: boot, set-up, download (`Overheads`)."""

SETBACK_S = START_S + 120.0
"""What a reclaim costs beside the epoch in progress: the next launch, and the notice's two minutes."""


def fitting(run: RunRecord, seen: Seen) -> Iterator[Candidate]:
    """Yield the candidates worth an attempt now, the best first."""
    refused = {_place(a.record.offer) for a in seen.attempts if a.end in fresh_refusals(seen)}
    quota = {_quota_of(a.record.offer) for a in seen.attempts if a.end is not None and a.end.quota}
    troubled = {_place(a.record.offer) for a in seen.attempts if _went_wrong_lately(a, seen.now)}
    steady_first = _needs_steadiness(run, seen)
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
        offer = candidate.offer
        if offer.where == "ec2" and (_place(offer) in refused or _quota_of(offer) in quota):
            continue
        if fits(run, seen, candidate):
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


def fresh_refusals(seen: Seen) -> list[AttemptEnd]:
    """Return the refusals that still count."""
    ends = [a.end for a in seen.attempts if a.end is not None and a.end.reason == "refused"]
    return [e for e in ends if seen.now - e.at < REFUSAL_LASTS_S]


def _needs_steadiness(run: RunRecord, seen: Seen) -> bool:
    """Whether offers that are never reclaimed come first: there were reclaims, or there is no time for one more."""
    reclaims = sum(1 for a in seen.attempts if a.end is not None and a.end.reason == "reclaimed")
    if reclaims >= RECLAIMS_BEFORE_ON_DEMAND:
        return True
    steady = [
        seconds_left(run, seen, c).high
        for c in run.candidates
        if c.offer.market == "on-demand" and fits(run, seen, c)
    ]
    if not steady or run.forced:
        return False
    return seen.now + SETBACK_S + min(steady) * (1 + 1 / run.spec.epochs) > run.deadline_at


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
