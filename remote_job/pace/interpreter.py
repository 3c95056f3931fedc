"""How fast this machine runs Python: imports, plots and exports take as much longer elsewhere as Python does."""

import time

REFERENCE_S = 3.9e-4
"""What `_work` takes on a Zen 5 with Python 3.11, where the constants of start and end were measured."""
REPEATS = 7
LEAST, MOST = 0.5, 4.0
"""Bounds of a plausible answer."""


def slowness() -> float:
    """Return how much longer this machine runs Python than that one; takes some milliseconds.

    It counts the thread's processor time, and the quickest of a few repeats, so other programs hardly change it.
    """
    return min(MOST, max(LEAST, min(_seconds() for _ in range(REPEATS)) / REFERENCE_S))


def _seconds() -> float:
    begun = time.thread_time()
    _work()
    return time.thread_time() - begun


def _work() -> int:
    """Call, allocate, and look up, as most of Python does."""
    found: dict[str, int] = {}
    for number in range(4000):
        name = str(number)
        found[name] = found.get(name, 0) + len(name)
    return sum(found.values())
