"""What is known of a run at one moment: the journal's word, the instance's own, and the cloud's."""

from dataclasses import dataclass
from typing import Literal

from gpu_offload.orchestrator.run.record import (
    AttemptEnd,
    AttemptRecord,
    Collected,
    HostRecord,
    Outcome,
    StopRequest,
)
from gpu_offload.remote_job.result import Heartbeat, TrainingResult

InstanceState = Literal["pending", "running", "stopping", "stopped", "shutting-down", "terminated"]


@dataclass(frozen=True, slots=True)
class ObservedInstance:
    """An instance that bears the run's tag.

    Attributes:
        reclaimed: The cloud's own word for why it went.
        host: What a launch would have answered, for an attempt whose launch's answer was lost.
        ended_at: When it began to shut down, Unix seconds, as far as the cloud says.
    """

    id: str
    attempt: int | None
    state: InstanceState
    reclaimed: bool = False
    host: HostRecord | None = None
    ended_at: float | None = None

    @property
    def is_ended(self) -> bool:
        """Whether it costs nothing any more and cannot come back."""
        return self.state in {"shutting-down", "terminated"}


@dataclass(frozen=True, slots=True)
class ObservedAttempt:
    """What the journal and the instance say of an attempt."""

    record: AttemptRecord
    host: HostRecord | None = None
    heartbeat: Heartbeat | None = None
    end: AttemptEnd | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that the decision rests on, observed at `now` (Unix seconds).

    `me` is this driver; `driver` another one whose lease is live. `attempts` are in order of their numbers.
    `leftovers` names what the run still has beside instances: security groups, schedules, loose volumes.
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
    stop: StopRequest | None = None
    spent_usd: float = 0.0

    @property
    def current(self) -> ObservedAttempt | None:
        """The attempt that is open, if one is."""
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.end is None else None

    @property
    def live(self) -> tuple[ObservedInstance, ...]:
        """The instances that cost money."""
        return tuple(i for i in self.instances if not i.is_ended)

    def instances_of(self, number: int) -> tuple[ObservedInstance, ...]:
        """Return the instances that bear an attempt's tag."""
        return tuple(i for i in self.instances if i.attempt == number)
