"""What other programs leave of this machine's cores while a training is planned."""

import os
import time
from dataclasses import dataclass, field

from gpu_offload.remote_job.pace.idle import Idle, idle

LEAST_TICKS = 30
"""Of all cores together, fewer of which say nothing: 0.15 s of two cores."""


def _own() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass(frozen=True, slots=True)
class CoreReading:
    """How idle all cores have been, and what this process has used of them, in seconds."""

    idle: Idle = field(default_factory=idle)
    own: float = field(default_factory=_own)
    wall: float = field(default_factory=time.monotonic)

    def share(self, earlier: "CoreReading", cores: int) -> float:
        """Return the share of `cores` left by other programs since an earlier reading; they use foreign cores first."""
        if self.idle.total - earlier.idle.total < LEAST_TICKS:
            return 1.0
        own = (self.own - earlier.own) / max(self.wall - earlier.wall, 1e-3)
        others = self.idle.cores - self.idle.since(earlier.idle) - own
        beside = max(0.0, others - (self.idle.cores - cores))
        return cores / (cores + beside)
