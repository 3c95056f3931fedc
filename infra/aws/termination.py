"""Terminate instances, and wait until EC2 says that they are terminated."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gpu_offload.infra.aws.ec2 import Ec2, Instance
from gpu_offload.infra.aws.errors import CloudError

LIMIT_S = 900.0
"""Time limit of a termination, which usually takes a minute or two."""

POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class Terminated:
    """The outcome of a termination.

    Attributes:
        ended: The ids of those that were terminated here.
        left: Those that did not end within `LIMIT_S`, with their states.
        refused: By instance id or region: why EC2 refused or did not answer.
    """

    ended: tuple[str, ...]
    left: Mapping[str, str]
    refused: Mapping[str, CloudError]


def terminate_and_wait(
    clients: Mapping[str, Ec2],
    select: Callable[[Instance], bool],
    *,
    run: str | None = None,
    announce: Callable[[Instance], object] = lambda _instance: None,
    until: Callable[[Sequence[Instance]], bool] = lambda _found: True,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> Terminated:
    """Terminate every selected instance, those that appear meanwhile too, and wait until all are terminated.

    EC2 forgets a terminated instance within the hour: one that is not shown any more counts as terminated. An error
    with one instance or region does not affect the others.

    Args:
        clients: By region.
        select: Which tagged instances to terminate.
        run: Only instances of this run.
        announce: Called once before an instance is terminated.
        until: From what is shown now: False as long as another instance can appear.
        sleep: Waits that many seconds.
        clock: Unix seconds.
    """
    begun = clock()
    work = _Termination(clients, select, run, announce)
    while True:
        # Looks once more when it is late: an instance may have ended during the last wait.
        late = clock() - begun > LIMIT_S
        left, silent = work.look()
        if late or (not left and not silent and until(work.found)):
            return Terminated(tuple(sorted(work.asked - left.keys())), left, work.refused | silent)
        sleep(POLL_S if work.asked else POLL_S / 4)


@dataclass
class _Termination:
    clients: Mapping[str, Ec2]
    select: Callable[[Instance], bool]
    run: str | None
    announce: Callable[[Instance], object]
    announced: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    refused: dict[str, CloudError] = field(default_factory=dict)
    found: list[Instance] = field(default_factory=list)

    def look(self) -> tuple[dict[str, str], dict[str, CloudError]]:
        """Terminate what is found; return what is not terminated yet, and the regions that did not answer."""
        left: dict[str, str] = {}
        silent: dict[str, CloudError] = {}
        self.found.clear()
        for region, ec2 in self.clients.items():
            if region in self.refused:
                continue
            # Asked for anew each time: an instance of a launch whose reply was lost may appear late.
            try:
                found = [i for i in ec2.find(self.run) if self.select(i) and i.id not in self.refused]
            except CloudError as error:
                (silent if error.retry == "same" else self.refused)[region] = error
                continue
            self.found += found
            for instance in found:
                self._terminate(ec2, instance)
            left |= {i.id: i.state for i in found if i.state != "terminated" and i.id not in self.refused}
        return left, silent

    def _terminate(self, ec2: Ec2, instance: Instance) -> None:
        if instance.ended or instance.id in self.asked:
            return
        if instance.id not in self.announced:
            self.announced.add(instance.id)
            self.announce(instance)
        try:
            ec2.terminate([instance.id])
        except CloudError as error:
            # Anything else is tried again at the next look.
            if error.retry == "never":
                self.refused[instance.id] = error
        else:
            self.asked.add(instance.id)
