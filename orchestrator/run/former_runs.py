"""What former runs observed of EC2: spot capacity by place, start-ups by instance type."""

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.run.capacity import seen_capacity
from gpu_offload.orchestrator.run.events import events_of
from gpu_offload.orchestrator.run.experience import Experience, PlaceSighting
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.run.observation import ObservedAttempt

MOST_RUNS = 20
"""The newest runs are read: a belief about capacity fades within weeks."""

MOST_STARTS = 20
"""Start-ups kept for an instance type, the newest."""


def read_experience(store: ObjectStore, now: float) -> Experience:
    """Return what the newest runs saw; a run that cannot be read is skipped. A store that fails gives nothing."""
    journal = Journal(store)
    seen, starts = [], dict[str, list[float]]()
    try:
        for run in reversed(journal.recent_ids(MOST_RUNS)):
            try:
                attempts = journal.attempts(run)
            except JournalError:
                continue
            seen += seen_capacity(attempts, now)
            # The oldest run comes first, so that the newest start-ups are kept below.
            for attempt in attempts:
                seconds = _start_seconds(store, run, attempt)
                if seconds is not None:
                    starts.setdefault(attempt.record.offer.instance_type or "", []).append(seconds)
    except StoreError:
        return Experience()
    return Experience(
        capacity=tuple(
            PlaceSighting(place=place, at=s.at, is_up=s.is_up, watched=s.watched)
            for place, s in sorted(seen, key=lambda one: one[1].at)
        ),
        start_seconds={kind: tuple(seconds[-MOST_STARTS:]) for kind, seconds in starts.items()},
    )


def _start_seconds(store: ObjectStore, run: str, attempt: ObservedAttempt) -> float | None:
    """Return the seconds from an instance's launch to its first training step; None where there was none."""
    if attempt.host is None or attempt.heartbeat is None:
        return None
    for event in events_of(store, run, attempt.record.number):
        if event.event in {"batch", "epoch"}:
            # The first event can be the end of the first epoch.
            took = event.time - attempt.host.launched_at - (event.seconds or 0.0)
            return took if took > 0 else None
    return None
