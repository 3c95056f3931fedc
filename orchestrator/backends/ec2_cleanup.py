"""Terminates the instances of a run and removes what they leave: groups, volumes, schedules."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gpu_offload.errors import OffloadError
from gpu_offload.infra.aws.errors import CloudError, DeniedError, InUseError, ProtectedError
from gpu_offload.infra.aws.schedule import Schedule, Schedules
from gpu_offload.orchestrator.backends.ec2_instances import (
    Ec2Instances,
    asking,
    left_running,
    region_of,
    regions_of,
)
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import CloudUnreachableError, InstanceLeftError
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.record import RunRecord

IN_USE_LIMIT_S = 600.0
"""How long a security group may be in use after its instances ended: longer than EC2 may hide an instance."""

TERMINATED_S = 0.5
"""Pause after terminate calls: EC2 then shows what it was asked for."""

FORGOTTEN_S = 3600.0
"""EC2 shows a terminated instance for about this long."""

ABANDON_S = 4.0
"""Seconds to look for an instance whose launch was not answered yet, for a process that must end at once."""


@dataclass
class Ec2Cleanup:
    """Cleans up after one run. `pause` waits and keeps the lease alive; `sleep` only waits."""

    instances: Ec2Instances
    console: Console
    pause: Callable[[float], None]
    sleep: Callable[[float], None]
    schedules: bool
    """Whether attempts have schedules."""
    clock: Callable[[], float] = time.time
    _in_use_since: dict[str, float] = field(default_factory=dict)
    _given_up: set[str] = field(default_factory=set)

    def leftovers(self, run: RunRecord, attempts: Sequence[ObservedAttempt]) -> tuple[str, ...]:
        """Return what the run owns besides instances, each as `REGION/KIND/ID`."""
        names: list[str] = []
        ours = self.instances.is_ours
        for region in regions_of(attempts):
            with asking():
                ec2 = self.instances.client(region)
                groups = ec2.find_security_groups(run.id)
                names += [f"{region}/group/{group.id}" for group in groups if ours(group.store)]
                names += [
                    f"{region}/volume/{v.id}"
                    for v in ec2.volumes(run.id)
                    if v.state in {"available", "error"} and ours(v.store)
                ]
                if self.schedules:
                    schedules = Schedules(region).find(run.id, store=self.instances.mark)
                    names += [
                        f"{region}/schedule/{s.name}" for s in schedules if self._is_useless(s, attempts)
                    ]
        return tuple(name for name in names if name not in self._given_up)

    def _is_useless(self, schedule: Schedule, attempts: Sequence[ObservedAttempt]) -> bool:
        """Whether the instance of a schedule was seen terminated, or must have been forgotten since."""
        instance = self.instances.seen(schedule.instance_id)
        if instance is not None:
            return instance.state == "terminated"
        hosts = [a.host for a in attempts if a.host and a.host.instance_id == schedule.instance_id]
        return any(self.clock() - host.launched_at > FORGOTTEN_S for host in hosts)

    def remove(self, leftovers: tuple[str, ...]) -> None:
        """Remove what `leftovers` named; what is in use is tried again.

        Raises InstanceLeftError: a security group stays in use, so an instance may run that EC2 does not show;
        CloudError.
        """
        for name in leftovers:
            region, kind, identity = name.split("/", 2)
            try:
                with asking():
                    if kind == "group":
                        self.instances.client(region).delete_security_group(identity)
                    elif kind == "volume":
                        self.instances.client(region).delete_volume(identity)
                    else:
                        Schedules(region).delete(identity)
            except CloudUnreachableError as error:
                if not isinstance(error.__cause__, InUseError):
                    raise
                self._in_use(name, error)

    def _in_use(self, name: str, error: CloudUnreachableError) -> None:
        region, kind, identity = name.split("/", 2)
        self.instances.suspect(region)  # an instance that EC2 does not show can hold it
        since = self._in_use_since.setdefault(name, self.clock())
        waited = self.clock() - since
        if waited > IN_USE_LIMIT_S:
            self._given_up.add(name)
            if kind == "group":
                raise InstanceLeftError(
                    f"security group {identity} in {region} is still in use after {waited / 60:.0f} min, so an instance "
                    f"may run that EC2 does not show: look at the EC2 console, then run `offload tend` ({error})"
                )
            self.console.warning(f"{identity} is left over, `offload tend` removes it: {error}")
        self.pause(min(10.0, max(1.0, waited / 10)))

    def terminate(self, instances: tuple[str, ...]) -> None:
        """Send the terminate call; the loop asks until they are terminated.

        Raises CloudUnreachableError, InstanceLeftError, CloudError once all were tried.
        """
        left: list[InstanceLeftError] = []
        unanswered: OffloadError | None = None
        for each in instances:
            if (region := self.instances.region_of(each)) is None:
                continue
            try:
                with asking():
                    self.instances.client(region).terminate([each])
            except (DeniedError, ProtectedError) as error:
                one = self.instances.seen(each)
                left.append(left_running(one, error, one.run if one else ""))
            except OffloadError as error:
                unanswered = error
        # What was not answered comes first: it is tried again, and what is refused is met again then.
        if unanswered is not None:
            raise unanswered
        if left:
            raise InstanceLeftError("\n".join(map(str, left)))
        self.pause(TERMINATED_S)

    def abandon(self, run: RunRecord, attempt: ObservedAttempt) -> tuple[str, ...]:
        """Terminate an attempt's instances within seconds, also one whose launch was not answered; return their ids."""
        region = region_of(attempt.record.offer)
        ec2, end = self.instances.client(region), self.clock() + ABANDON_S
        # Also what EC2 does not show yet: there is no time to wait until it does.
        known = self.instances.up_in(region)
        if attempt.host is not None and attempt.host.instance_id not in known:
            known.append(attempt.host.instance_id)
        terminated: set[str] = set()
        why: object = "EC2 did not answer"
        while True:
            for each in [i for i in known if i not in terminated]:
                try:
                    ec2.terminate([each])
                except CloudError as error:
                    why = error
                else:
                    terminated.add(each)
            with contextlib.suppress(CloudError):
                ours = self.instances.is_ours
                known = [i.id for i in ec2.find(run.id) if not i.ended and ours(i.store)]
            if terminated.issuperset(known) and (terminated or self.clock() >= end):
                return tuple(sorted(terminated))
            if self.clock() >= end:
                for each in known:
                    if each not in terminated:
                        self.console.error(str(left_running(self.instances.seen(each), why, run.id)))
                return tuple(sorted(terminated))
            self.sleep(0.2)
