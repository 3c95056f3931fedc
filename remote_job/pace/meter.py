"""What a process got of the machine: wall time, processor time, and time that its threads waited for a core."""

import math
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

TASKS = Path("/proc/self/task")

QUIET = 0.93
"""The least share of its processor time that a training gets on a machine of its own: the kernel takes some, too."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Seconds; all threads of this process together, `wall` apart.

    Attributes:
        wall: By `time.perf_counter`.
        cpu: Processor time.
        waited: Time that threads were ready to run and had no core; 0 where the kernel does not say.
        kernel: Processor time of this thread within the kernel; 0 where the system does not count it by the thread.
    """

    wall: float
    cpu: float
    waited: float
    kernel: float = 0.0

    def since(self, earlier: "Reading") -> "Reading":
        """Return what lies between two readings."""
        # A thread that ended takes its waiting with it.
        return Reading(
            self.wall - earlier.wall,
            self.cpu - earlier.cpu,
            max(0.0, self.waited - earlier.waited),
            self.kernel - earlier.kernel,
        )

    @property
    def share(self) -> float:
        """The share of the processor time that it could have used and got, 0 to 1; 1 on a quiet machine."""
        return self.cpu / (self.cpu + self.waited) if self.cpu > 0 else 1.0


def read(tasks: Path = TASKS) -> Reading:
    """Return the reading of this moment; takes some tens of microseconds."""
    # A thread's alone: others take memory at the same time, which costs no further seconds. macOS has no such count.
    thread = getattr(resource, "RUSAGE_THREAD", None)
    kernel = 0.0 if thread is None else resource.getrusage(thread).ru_stime
    return Reading(time.perf_counter(), time.process_time(), _waited(tasks), kernel)


def _waited(tasks: Path) -> float:
    """Sum the run-queue delays: https://docs.kernel.org/scheduler/sched-stats.html#proc-pid-schedstat."""
    nanoseconds = 0
    try:
        threads = list(tasks.iterdir())
    except OSError:
        return 0.0
    for thread in threads:
        try:
            nanoseconds += int((thread / "schedstat").read_text(encoding="ascii").split()[1])
        except (OSError, ValueError, IndexError):
            continue
    return nanoseconds / 1e9


def process_age() -> float:
    """Return the seconds since this process was started; infinite where the system does not say."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    except (OSError, IndexError, ValueError):
        return math.inf
    # Field 22 by proc(5), which counts from 1; the first two were split off.
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
