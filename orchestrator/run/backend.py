"""The protocols that backends implement, and their errors."""

from collections.abc import Callable, Sequence
from typing import Protocol

from gpu_offload.errors import OffloadError, ResumableError
from gpu_offload.infra.signals import signal_text
from gpu_offload.orchestrator.run.observation import ObservedAttempt, ObservedInstance
from gpu_offload.orchestrator.run.record import AttemptRecord, EndReason, HostRecord, RunRecord, Scope
from gpu_offload.remote_job.result import Heartbeat


class RefusedError(OffloadError):
    """An offer was refused.

    Attributes:
        quota: The account's quota refused: no other zone helps.
        limit_vcpus: That quota, where it is known.
        for_good: What the refusal rules out for the whole run; None where another hour can help.
    """

    def __init__(
        self,
        message: str,
        *,
        quota: bool = False,
        limit_vcpus: float | None = None,
        for_good: Scope | None = None,
    ) -> None:
        super().__init__(message)
        self.quota = quota
        self.limit_vcpus = limit_vcpus
        self.for_good: Scope | None = for_good


class LaunchDeniedError(OffloadError):
    """This driver's role is not allowed to launch. The run stays open for a driver that can."""


class CloudUnreachableError(OffloadError):
    """EC2 did not answer; a later retry can help."""


class InterruptedRunError(ResumableError):
    """This process received an ending signal; the run stays open and can be resumed."""


class StoppedHereError(InterruptedRunError):
    """A signal ended the training on this machine; it left a checkpoint. `by` names the signal for people."""

    def __init__(self, number: int) -> None:
        self.by = signal_text(number)
        super().__init__(f"stopped by {self.by}")


class InstanceLeftError(OffloadError):
    """An instance of a run does not terminate."""


Ending = tuple[EndReason, str]
"""The reason for an attempt's end, and a sentence about it."""


class Attended(Protocol):
    """Trains for as long as its driver lives: on this machine, or on a Ray cluster."""

    def train(
        self, run: RunRecord, attempt: AttemptRecord, judge: Callable[[Heartbeat | None], Ending | None]
    ) -> Ending | None:
        """Train to the end and return None, or why the attempt ended without a result.

        `judge` is called from any thread with the latest heartbeat; once it returns a reason, the training stops with a
        checkpoint and that reason is returned. Raises StoppedHereError if this process received an ending signal.
        """


class Cloud(Protocol):
    """Trains on rented instances. Every call can be repeated; `attempts` are all attempts of the run."""

    def instances(self, run: RunRecord, attempts: Sequence[ObservedAttempt]) -> tuple[ObservedInstance, ...]:
        """Return the run's instances, found by tag."""

    def leftovers(self, run: RunRecord, attempts: Sequence[ObservedAttempt]) -> tuple[str, ...]:
        """Return the names of what the run owns besides instances: groups, volumes, schedules."""

    def prepare(self, run: RunRecord) -> None:
        """Do what must be done before the first launch and can take minutes, such as staging."""

    def launch(self, run: RunRecord, attempt: AttemptRecord) -> HostRecord | None:
        """Request the instance; None: the reply was lost, repeat the call. Raises RefusedError, LaunchDeniedError."""

    def adopt(self, run: RunRecord, attempt: AttemptRecord, host: HostRecord) -> None:
        """Create the schedule of an instance whose launch reply was lost."""

    def train(self, run: RunRecord, attempt: ObservedAttempt) -> Ending | None:
        """Start the training on the instance; return why that cannot be, if it cannot."""

    def terminate(self, instances: tuple[str, ...]) -> None:
        """Send the terminate call."""

    def clean_up(self, leftovers: tuple[str, ...]) -> None:
        """Remove what `leftovers` named."""

    def follow(self, run: RunRecord, attempt: ObservedAttempt, seconds: float) -> Ending | None:
        """Show progress for `seconds` or less; return why the attempt is over if nothing else will report it."""

    def keeps_nothing(self, attempt: ObservedAttempt) -> bool:
        """Whether the store was seen to deny what the attempt's instance writes: what it trains is lost."""

    def abandon(self, run: RunRecord, attempt: ObservedAttempt) -> tuple[str, ...]:
        """Send the terminate call for what the attempt has, within seconds; return the instances' ids."""

    def close(self) -> None:
        """Close connections; trainings on instances continue."""
