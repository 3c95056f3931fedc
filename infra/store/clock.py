"""Unix time by the store's clock, where this machine's is wrong."""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from gpu_offload.infra.store.protocol import ObjectStore

TOLERATED_S = 30.0
"""What a reply may take, and what no decision depends on."""


class ServerClock:
    """This machine's time, corrected by the dates of a server's replies where it is far off.

    Deadlines, bills and leases are compared over machines; heartbeats are written by instances whose time is right.
    """

    def __init__(self) -> None:
        self.skew = 0.0
        """What is added to this machine's time, in seconds."""

    def learn(self, date: str | None) -> None:
        """Learn from the `Date` of a reply that came just now; one that is missing or damaged says nothing."""
        try:
            server = parsedate_to_datetime(date or "").timestamp()
        except (ValueError, TypeError, OverflowError):
            return
        off = server + 0.5 - time.time()  # the date has whole seconds: on average half a one is cut off
        self.skew = off if abs(off) > TOLERATED_S else 0.0

    def __call__(self) -> float:
        """Return Unix seconds."""
        return time.time() + self.skew


def clock_of(store: ObjectStore) -> Callable[[], float]:
    """Return the clock of a store that has one of its own; this machine's for the others."""
    clock = getattr(store, "clock", None)
    return clock if isinstance(clock, ServerClock) else time.time
