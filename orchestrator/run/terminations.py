"""Terminate calls for a run's instances, and how long EC2 can take to carry them out."""

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

    def send(self, instances: tuple[str, ...], reason: str) -> None:
        """Send the terminate call; once a minute where EC2 is slow to show that it was heard."""
        due = tuple(i for i in instances if self.clock() - self._sent.get(i, -math.inf) > REPEAT_S)
        if not due:
            self.sleep(ENDING_POLL_S)
            return
        self.console.note(f"terminating {', '.join(due)}: {reason}")
        self.attempts.rented().terminate(self.run, due)
        self._sent |= dict.fromkeys(due, self.clock())

    def abandon(self, seen: Observation, by: str, *, detach: bool) -> None:
        """Terminate at once what costs money, because of `by`; `detach` leaves an instance that trains alone."""
        current, cloud = seen.current, self.attempts.cloud
        if cloud is None or seen.driver is not None or seen.outcome:
            return
        if current is None or current.record.offer.where != "ec2":
            return
        if detach and current.heartbeat is not None:
            return
        self.console.note(f"{by}: terminating what run {self.run.id} has rented")
        ids = cloud.abandon(self.run, current)
        if ids:
            self.console.note(f"terminate call sent: {', '.join(ids)}")
            # Without an instance the attempt stays open: a launch can be under way, and has to be accounted for.
            self.attempts.close(current.record.number, "stopped", f"stopped by {by}")

    def leave(self, seen: Observation | None, error: Exception) -> None:
        """Warn of the instances that go on without this driver, which ends with an error.

        Where the store denies both the driver and the instance what they write, nothing that it trains can be kept: it is
        terminated.
        """
        if seen is None or seen.current is None or seen.driver is not None or seen.outcome is not None:
            return
        cloud = self.attempts.cloud
        if isinstance(error, StoreError) and cloud is not None and cloud.keeps_nothing(seen.current):
            ids = cloud.abandon(self.run, seen.current)
            self.console.warning(
                f"terminated {', '.join(ids)}: the store takes neither what it trains nor this run's journal. Once the store "
                "does, the same command carries on from the last epoch that is kept"
            )
            return
        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seen.current.record.expires_at))
        for instance in seen.live:
            self.console.warning(
                f"{instance.id} goes on without this driver, at most until {until}: the same command or `offload tend` "
                f"carries on with run {self.run.id}, `offload stop {self.run.id}` ends it now"
            )

    def check(self, observation: Observation) -> None:
        """Raise InstanceLeftError where an instance still lives long after the run's end."""
        if observation.outcome is None or observation.now - observation.outcome.at <= LIMIT_S:
            return
        states = ", ".join(f"{i.id} is {i.state}" for i in observation.instances if i.state != "terminated")
        if states:
            raise InstanceLeftError(
                f"run {self.run.id} is over, and after {LIMIT_S / 60:.0f} min {states}: "
                "look at it in the EC2 console; it may still cost money"
            )
