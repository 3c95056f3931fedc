"""The observation of a run: what journal, instance and cloud say of it at one moment."""

from dataclasses import dataclass

from gpu_offload.infra.aws.instance_state import ENDED, UP, InstanceState
from gpu_offload.orchestrator.run.record import (
    AttemptEnd,
    AttemptRecord,
    Collected,
    GoneRecord,
    HostRecord,
    LaunchingRecord,
    Outcome,
    StopRequest,
)
from gpu_offload.remote_job.result import Heartbeat, TrainingResult


@dataclass(frozen=True, slots=True)
class ObservedInstance:
    """An instance that has the run's tag."""

    id: str
    attempt: int | None
    state: InstanceState
    reclaimed: bool = False
    """Whether EC2's own state reason says that it reclaimed the instance."""
    host: HostRecord | None = None
    """The host record of an attempt whose launch's answer was lost."""
    ended_at: float | None = None
    """When it began to shut down, Unix seconds; None where EC2 does not say."""
    why: str = ""
    shut_down: bool = False
    """Whether it was ended, or stopped, by a call or from within, and not by EC2."""

    @property
    def is_ended(self) -> bool:
        """Whether it costs nothing any more and cannot come back."""
        return self.state in ENDED

    @property
    def is_up(self) -> bool:
        """Whether it runs or starts."""
        return self.state in UP


@dataclass(frozen=True, slots=True)
class ObservedAttempt:
    """An attempt: its journal and its training's heartbeat. `gone` is set where its instance outlived it."""

    record: AttemptRecord
    host: HostRecord | None = None
    heartbeat: Heartbeat | None = None
    end: AttemptEnd | None = None
    launching: LaunchingRecord | None = None
    gone: GoneRecord | None = None

    @property
    def epochs_completed(self) -> int:
        """Epochs of the run that were complete at its last heartbeat; 0 without one."""
        return self.heartbeat.epochs_completed if self.heartbeat is not None else 0


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that the decision depends on, observed at `now` (Unix seconds).

    `me` is this driver, `driver` another one with a live lease. `leftovers` names what the run still has beside
    instances: security groups, schedules, detached volumes. `checkpoint_bytes` is the size of the newest checkpoint.
    """

    now: float
    me: str
    driver: str | None = None
    outcome: Outcome | None = None
    published: bool = False
    result: TrainingResult | None = None
    collected: Collected | None = None
    attempts: tuple[ObservedAttempt, ...] = ()
    instances: tuple[ObservedInstance, ...] = ()
    leftovers: tuple[str, ...] = ()
    epochs_completed: int = 0
    checkpoint_bytes: int | None = None
    stop: StopRequest | None = None
    spent_usd: float = 0.0

    @property
    def last(self) -> ObservedAttempt | None:
        """The latest attempt, open or not."""
        return self.attempts[-1] if self.attempts else None

    @property
    def current(self) -> ObservedAttempt | None:
        """The attempt that is open, if one is."""
        return self.last if self.last is not None and self.last.end is None else None

    @property
    def live(self) -> tuple[ObservedInstance, ...]:
        """The instances that cost money."""
        return tuple(i for i in self.instances if not i.is_ended)

    def instances_of(self, number: int) -> tuple[ObservedInstance, ...]:
        """Return the instances that have an attempt's tag."""
        return tuple(i for i in self.instances if i.attempt == number)
