"""What former runs observed of EC2: spot capacity by place, start-ups by instance type."""

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.run.capacity import seen_capacity
from gpu_offload.orchestrator.run.experience import Experience, PlaceSighting
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError

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
                if attempt.host and attempt.heartbeat and attempt.heartbeat.trains_since:
                    seconds = attempt.heartbeat.trains_since - attempt.host.launched_at
                    if seconds > 0:
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
