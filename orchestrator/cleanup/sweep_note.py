"""The note that a sweep leaves in the store, and whether the last one is so old that the schedule must be dead."""

import json

from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.errors import StoreDeniedError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.units import human_duration

KEY = "tend.json"

SILENT_S = 6 * 3600.0
"""GitHub may start a scheduled workflow hours late; a silence longer than this is a schedule that has ended."""

REMEDY = (
    "GitHub ends the schedules of a public repository after 60 days without activity: enable the workflow `offload-tend` "
    "under Actions again, and start it once"
)


def note_sweep(store: ObjectStore) -> None:
    """Note in the store that a sweep was made now; the store's own clock says when. Raises StoreError."""
    store.put(KEY, json.dumps({"format": 1, "at": round(clock_of(store)())}).encode() + b"\n")


def seconds_since_sweep(store: ObjectStore, *, now: float) -> float | None:
    """Return how long ago `tend` ran on this store last; None where it never did, or this role may not see it.

    Args:
        store: Where `tend` leaves its note.
        now: Unix seconds.

    Raises:
        StoreError: the store did not answer.
    """
    try:
        last = store.stat(KEY)
    except StoreDeniedError:
        return None
    return None if last is None else max(0.0, now - last.modified.timestamp())


def dead_sweep(store: ObjectStore, *, now: float) -> str | None:
    """Return a warning where `tend` ran on this store before, and not lately. Raises StoreError."""
    silent = seconds_since_sweep(store, now=now)
    if silent is None or silent < SILENT_S:
        return None
    return f"the scheduled `tend` ran last {human_duration(silent)} ago. {REMEDY}"
