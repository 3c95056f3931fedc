"""How many threads to compute in on a machine that others use, too.

Threads wait for each other at every operation. Where a neighbour has a core, two threads on two cores took two to six
times as long as one (yolov8n at 160 px beside two busy programs, 0.6 to 1.9 s a step against 0.28; 0.13 on a quiet
machine). The number of threads changes nothing but the order of sums.
"""

import math
from dataclasses import dataclass
from pathlib import Path

CONTENDED = 0.75
"""The share of its processor time below which a training has too many threads."""

FREE = 0.7
"""Of a core that must have been idle before a thread is added."""


def fewer(threads: int, share: float) -> int:
    """Return for how many threads there were cores, where so many got a share of their time; at least 1.

    Args:
        threads: That computed.
        share: Of the processor time that they could have used, what they got.
    """
    return threads if share >= CONTENDED else max(1, min(threads - 1, math.floor(threads * share)))


def more(threads: int, most: int, idle_cores: float) -> int:
    """Return how many threads there are cores for, where so many cores were idle beside them; at most `most`."""
    return min(most, threads + max(0, math.floor(idle_cores + 1 - FREE)))


@dataclass(frozen=True, slots=True)
class Idle:
    """How long the machine's cores were idle since it started, and how long they could have been; in ticks."""

    idle: int
    total: int
    cores: int

    def since(self, earlier: "Idle") -> float:
        """Return how many cores were idle between two readings."""
        total = self.total - earlier.total
        return (self.idle - earlier.idle) / total * self.cores if total > 0 else 0.0


def idle(path: Path = Path("/proc/stat")) -> Idle:
    """Read it; zeros where the system does not say. https://docs.kernel.org/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat"""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        ticks = [int(word) for word in lines[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return Idle(0, 0, 0)
    cores = sum(line.startswith("cpu") for line in lines) - 1
    return Idle(ticks[3] + ticks[4], sum(ticks), cores)
