"""Whether something works on a run, and the run time that every command and report shows.

Run time excludes pauses: the time between the end of a training's process on a CPU or a Ray cluster (Ctrl-C, a kill, a
cancelled job) and the next attempt. Waiting for an instance is part of the run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.record import EndReason, Outcome, RunRecord
from gpu_offload.orchestrator.run.run_documents import RunDocuments

LOST: frozenset[EndReason] = frozenset({"stopped", "orphaned"})
"""How an attempt ends that trains as long as its driver lives, when that driver goes."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Whether something works on a run, and its time."""

    driven: bool | None
    """Whether a process drives it now; None for a run that is over."""
    at_work: bool
    until: float
    """Until when its time and its cost count, in Unix seconds."""
    seconds: float


def activity_of(store: ObjectStore, run: RunRecord, documents: RunDocuments, now: float) -> Activity:
    """Return whether something works on a run at `now`, Unix seconds."""
    attempts, outcome = documents.attempts, documents.outcome
    driven = None if outcome else Lease().live_driver(store, run.id) is not None
    at_work = outcome is None and is_at_work(attempts, driven=bool(driven))
    until = counted_until(attempts, outcome, now=now, at_work=at_work)
    return Activity(driven, at_work, until, run_seconds(run, attempts, until))


def idle_text(run: str) -> str:
    """Say that nothing works on an open run, and what to do."""
    return f"nothing works on it now. The same `offload train` carries on, `offload stop {run}` gives it up"


def is_at_work(attempts: Sequence[ObservedAttempt], *, driven: bool) -> bool:
    """Whether anything works on an open run: a driver, or an instance, which trains without one."""
    last = attempts[-1] if attempts else None
    return driven or (last is not None and last.end is None and last.record.offer.is_rented)


def last_sign(attempt: ObservedAttempt) -> float:
    """Return when an attempt whose process is gone was last heard of, in Unix seconds."""
    spoke = attempt.heartbeat.time if attempt.heartbeat is not None else 0.0
    return max(attempt.record.created_at, spoke)


def counted_until(
    attempts: Sequence[ObservedAttempt], outcome: Outcome | None, *, now: float, at_work: bool
) -> float:
    """Return until when a run's time and cost count (Unix seconds): its end, now, or the end of a lost training."""
    if outcome is not None:
        return outcome.at
    last = attempts[-1] if attempts else None
    if at_work or last is None or last.record.offer.is_rented:
        return now
    if last.end is None:
        return min(now, last_sign(last))
    return last.end.at if last.end.reason in LOST else now


def run_seconds(run: RunRecord, attempts: Sequence[ObservedAttempt], until: float) -> float:
    """Return the time of a run in seconds, until `counted_until`."""
    following = [*(attempt.record.created_at for attempt in attempts[1:]), until]
    paused = sum(
        max(0.0, begin - attempt.end.at)
        for attempt, begin in zip(attempts, following, strict=False)  # without attempts, one more than they
        if attempt.end is not None and attempt.end.reason in LOST and not attempt.record.offer.is_rented
    )
    return round(max(0.0, until - run.began_at - paused), 3)
