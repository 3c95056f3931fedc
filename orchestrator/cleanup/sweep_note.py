"""The time of the last `offload tend` in the store, and a warning if its schedule has stopped."""

import json

from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.errors import StoreDeniedError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.units import human_duration

KEY = "tend.json"

SILENT_S = 6 * 3600.0
"""GitHub can start a scheduled workflow hours late; after a longer gap the schedule counts as stopped."""

REMEDY = (
    "GitHub ends the schedules of a public repository after 60 days without activity: enable the workflow `offload-tend` "
    "under Actions again, and start it once"
)


def note_sweep(store: ObjectStore) -> None:
    """Record in the store that `tend` ran now, by the store's clock. Raises StoreError."""
    store.put(KEY, json.dumps({"format": 1, "at": round(clock_of(store)())}).encode() + b"\n")


def seconds_since_sweep(store: ObjectStore, *, now: float) -> float | None:
    """Return the seconds since the last `tend` on this store; None: never, or it cannot be read. Raises StoreError."""
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
