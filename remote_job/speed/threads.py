"""How many threads to compute in on a machine that others use, too.

Threads wait for each other at every operation. Where a neighbour has a core, two threads on two cores took two to six
times as long as one (yolov8n at 160 px beside two busy programs, 0.6 to 1.9 s a step against 0.28; 0.13 on a quiet
machine). The number of threads changes nothing but the order of sums.
"""

import math

CONTENDED = 0.75
"""The share of its processor time below which a training has too many threads."""

FREE = 0.7
"""Of a core that must have been idle before a thread is added."""


def fewer(threads: int, share: float) -> int:
    """Return for how many of `threads` there were cores, at least 1.

    `share` is the processor time that they got of what they could have used.
    """
    return threads if share >= CONTENDED else max(1, min(threads - 1, math.floor(threads * share)))


def more(threads: int, most: int, idle_cores: float) -> int:
    """Return how many threads there are cores for, where so many cores were idle beside them; at most `most`."""
    return min(most, threads + max(0, math.floor(idle_cores + 1 - FREE)))
