"""The steps that `next_step` can return."""

from dataclasses import dataclass

from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.run.record import EndReason, GoneRecord, HostRecord, Outcome, OutcomeStatus


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """Journal an attempt."""

    number: int
    offer: Offer
    expires_at: float
    max_price_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """Ask for the instance of an attempt; harmless to repeat."""

    number: int


@dataclass(frozen=True, slots=True)
class RecordHost:
    """Journal the instance of an attempt whose launch reply was lost: it is on the bill, too."""

    number: int
    host: HostRecord


@dataclass(frozen=True, slots=True)
class RecordGone:
    """Journal when the instance of a closed attempt ended: it is billed until then."""

    number: int
    gone: GoneRecord


@dataclass(frozen=True, slots=True)
class Train:
    """Train to the end on this machine or a cluster; on an instance, start the training and leave it running."""

    number: int


@dataclass(frozen=True, slots=True)
class CloseAttempt:
    """Journal how an attempt ended; `at` is when its instance or its process did, where that is known, in Unix seconds.

    `by_cloud` says that EC2 took the instance back.
    """

    number: int
    reason: EndReason
    message: str
    at: float | None = None
    by_cloud: bool = False


@dataclass(frozen=True, slots=True)
class Collect:
    """Read the staged result back and verify it."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish the collected model as a version."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """Terminate these instances."""

    instances: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class CleanUp:
    """Remove what the run leaves besides instances."""

    leftovers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait. `follows`: a training runs on an instance, and its progress is shown meanwhile."""

    seconds: float
    reason: str
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """Journal how the run ended."""

    status: OutcomeStatus
    message: str
    cut: bool = False
    """Whether its limits ended it: with higher ones another run carries on."""


@dataclass(frozen=True, slots=True)
class Done:
    """The run is over and nothing of it is left."""

    outcome: Outcome


Step = (
    OpenAttempt
    | Launch
    | RecordHost
    | RecordGone
    | Train
    | CloseAttempt
    | Collect
    | Publish
    | Terminate
    | CleanUp
    | Wait
    | Finish
    | Done
)
