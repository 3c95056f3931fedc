"""Settings of the simulated cloud (delays, capacity, quotas, seed), what is left in it, and its events."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase

from gpu_offload.infra.account.site import Site

STANDARD_QUOTA = 64
"""vCPU of types without GPUs, on demand or spot."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Everything about the simulated cloud that a caller may choose; seconds are wall seconds.

    The defaults are short, so that a whole run takes seconds; the order of events is that of the real cloud.
    """

    seed: int = 0
    """Seed of the spot prices: the same seed and the same time give the same prices."""
    region: str = "us-east-1"
    """The region that `environment()` points to; the other regions exist too."""
    boot_seconds: float = 0.3
    """From RunInstances to `running`; the host starts booting at once, as a real one does."""
    shutdown_seconds: float = 0.3
    """From `shutting-down` to `terminated`."""
    lag_seconds: float = 0.2
    """For how long a new instance is unknown to every other call (eventual consistency)."""
    lag_calls: int = 0
    """Number of calls that do not see a new instance yet, besides `lag_seconds`."""
    vanish_seconds: float = 60.0
    """For how long a terminated instance is still described; within the hour on AWS."""
    capacity: Mapping[str, int] = field(default_factory=dict)
    """Machines free for us, by pattern `zone:type` (`us-east-1a:g4dn.*`); the first match counts; no match: plenty."""
    spot_series: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Spot instances of any type that a zone has for us over time, from the cloud's start on; none after the end.
    EC2 reclaims what is above it. Zones that are not listed always have capacity."""
    spot_series_gap_seconds: float = 300.0
    """Between two values of `spot_series`."""
    quota_spot_gpu: int = 64
    """vCPU of "All G and VT Spot Instance Requests" (0 on a new account; 4 suffice for a g4dn.xlarge)."""
    quota_on_demand_gpu: int = 64
    """vCPU of "Running On-Demand G and VT instances"."""
    profile_lag_seconds: float = 2.0
    """For how long EC2 does not know an instance profile that was just made."""
    profile_lag_calls: int = 0
    """Number of launches with such a profile that are refused, besides `profile_lag_seconds`."""
    launch_failure: str = ""
    """A state reason such as `Client.InternalError`: instances go from `pending` to `terminated` because of it, as with a
    key for their disks that may not be used."""
    reclaim_notice_seconds: float = 120.0
    """The notice that AWS gives before it takes a spot instance."""
    stack: Site | None = None
    """The stack of `offload bootstrap` that the account has: its roles and its instances can only do what its
    policies allow, resources and conditions included. Without one every caller but an instance can do everything."""
    baked: bool = True
    """Whether the image has our software: the marker `/opt/gpu-offload/baked` and a Python that imports it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More variables for everything that runs on an instance (a warm cache, for example)."""
    grace_seconds: float = 0.2
    """Between the operating system's SIGTERM and SIGKILL when an instance goes down."""

    def quota(self, market: str, family: str) -> int:
        """Return the vCPU quota of a market (`spot`, `on-demand`) and family (`gpu`, `standard`)."""
        gpus = self.quota_spot_gpu if market == "spot" else self.quota_on_demand_gpu
        return gpus if family == "gpu" else STANDARD_QUOTA

    def free(self, zone: str, instance_type: str) -> int | None:
        """Return the free machines of a type in a zone; None for plenty."""
        name = f"{zone}:{instance_type}"
        return next((n for pattern, n in self.capacity.items() if fnmatchcase(name, pattern)), None)


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Resources that still exist, by id; instances and volumes are billed."""

    instances: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()

    @property
    def costs_money(self) -> bool:
        """Whether any of it is billed."""
        return bool(self.instances or self.volumes)

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    def __str__(self) -> str:
        return ", ".join(
            f"{len(ids)} {kind.replace('_', ' ')}" + (f" ({' '.join(ids)})" if ids else "")
            for kind, ids in asdict(self).items()
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the cloud, for the log."""

    time: float
    """Unix time, seconds."""
    kind: str
    """`state`, `fault`, `schedule`, `host`, `call`."""
    subject: str
    text: str


class EventLog:
    """Events of one cloud; safe between threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def say(self, kind: str, subject: str, text: str) -> None:
        """Add an event that happens now."""
        with self._lock:
            self._events.append(Event(self._clock(), kind, subject, text))

    def all(self) -> tuple[Event, ...]:
        """Return the events so far."""
        with self._lock:
            return tuple(self._events)
