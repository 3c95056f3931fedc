"""Terminate calls for a run's instances, and how long EC2 can take to carry them out."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.attempts import Attempts
from gpu_offload.orchestrator.run.backend import InstanceLeftError
from gpu_offload.orchestrator.run.closing import ENDING_POLL_S
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.record import RunRecord

LIMIT_S = 900.0
"""Time limit of a termination, which usually takes a minute or two."""
REPEAT_S = 60.0
"""Seconds between two terminate calls for the same instance."""


@dataclass
class Terminations:
    """Sends terminate calls, and remembers when."""

    run: RunRecord
    attempts: Attempts
    console: Console
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    _sent: dict[str, float] = field(default_factory=dict)
    """By instance: when the terminate call was sent last."""
    _ending: dict[str, float] = field(default_factory=dict)
    """By instance: when it was first told to end, or seen shutting down."""

    def send(self, instances: tuple[str, ...], reason: str) -> None:
        """Send the terminate call; once a minute where EC2 is slow to show that it was heard."""
        due = tuple(i for i in instances if self.clock() - self._sent.get(i, -math.inf) > REPEAT_S)
        if not due:
            self.sleep(ENDING_POLL_S)
            return
        self.console.note(f"terminating {', '.join(due)}: {reason}")
        self.attempts.rented().terminate(due)
        self._sent |= dict.fromkeys(due, self.clock())
        self._ending = dict.fromkeys(due, self.clock()) | self._ending

    def abandon(self, seen: Observation, by: str, *, detach: bool) -> None:
        """Terminate at once what costs money, because of `by`; `detach` leaves an instance that trains alone."""
        last, cloud = seen.last, self.attempts.cloud
        if cloud is None or seen.driver is not None or seen.outcome is not None:
            return
        if last is None or not last.record.offer.is_rented or (detach and seen.current and last.heartbeat):
            return
        # An attempt whose job has ended is closed before its instance is terminated.
        if seen.current is None and not seen.live:
            return
        self.console.note(f"{by}: terminating what run {self.run.id} has rented")
        ids = cloud.abandon(self.run, last)
        if ids:
            self.console.note(f"terminate call sent: {', '.join(ids)}")
        # Without an instance the attempt stays open: a launch can be under way, and has to be accounted for.
        if ids and seen.current is not None:
            with contextlib.suppress(StoreError):  # then the next driver closes it
                self.attempts.close(last.record.number, "stopped", f"stopped by {by}")

    def leave(self, seen: Observation | None, error: Exception) -> None:
        """Warn of the instances that go on without this driver, which ends with an error.

        Where the store denies both the driver and the instance what they write, nothing that it trains can be kept: it is
        terminated.
        """
        if seen is None or seen.last is None or seen.driver is not None or seen.outcome is not None:
            return
        last, cloud = seen.last, self.attempts.cloud
        denied = isinstance(error, StoreError) and cloud is not None and cloud.keeps_nothing(last)
        if denied and cloud is not None and (ids := cloud.abandon(self.run, last)):
            self.console.warning(
                f"terminated {', '.join(ids)}: the store takes neither what it trains nor this run's journal. Once the store "
                "does, the same command carries on from the last epoch that is kept"
            )
            return
        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(last.record.expires_at))
        for instance in seen.live:
            self.console.warning(
                f"{instance.id} goes on without this driver, at most until {until}: the same command or `offload tend` "
                f"carries on with run {self.run.id}, `offload stop {self.run.id}` ends it now"
            )

    def check(self, observation: Observation) -> None:
        """Raise InstanceLeftError where an instance still lives long after it began to end, or was told to."""
        # By the time of the observation: this process can have been suspended since.
        now = observation.now
        seen = {i.id: now for i in observation.instances if i.state == "shutting-down"}
        self._ending = seen | self._ending
        late = [
            f"{i.id} is {i.state}"
            for i in observation.instances
            if i.state != "terminated" and now - self._ending.get(i.id, now) > LIMIT_S
        ]
        if late:
            raise InstanceLeftError(
                f"run {self.run.id}: {LIMIT_S / 60:.0f} min after it was to end, {', '.join(late)}: look at it in the EC2 "
                "console; it may still cost money"
            )
