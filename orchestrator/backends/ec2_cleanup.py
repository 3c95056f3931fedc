"""Terminates the instances of a run and removes what they leave: groups, volumes, schedules."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gpu_offload.infra.aws.errors import CloudError, InUseError
from gpu_offload.infra.aws.schedule import Schedules
from gpu_offload.orchestrator.backends.ec2_instances import Ec2Instances, asking, region_of, regions_of
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import CloudUnreachableError
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.record import RunRecord

CLEAN_UP_TRIES = 60
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
    _tries: dict[str, int] = field(default_factory=dict)

    def leftovers(self, run: RunRecord, attempts: Sequence[ObservedAttempt]) -> tuple[str, ...]:
        """Return what the run has beside instances, each as `REGION/KIND/ID`."""
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
                    names += [f"{region}/schedule/{s.name}" for s in schedules]
        return tuple(name for name in names if self._tries.get(name, 0) < CLEAN_UP_TRIES)

    def remove(self, leftovers: tuple[str, ...]) -> None:
        """Remove what `leftovers` named. What is in use is tried again; in the end it is left to `offload tend`."""
        for name in leftovers:
            region, kind, identity = name.split("/", 2)
            self._tries[name] = tries = self._tries.get(name, 0) + 1
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
                if tries >= CLEAN_UP_TRIES:
                    self.console.warning(f"{identity} is left over, `offload tend` removes it: {error}")
                self.pause(1.0)

    def terminate(self, instances: tuple[str, ...]) -> None:
        """Send the terminate call; the loop asks until they are terminated."""
        by_region = {i: region for i in instances if (region := self.instances.region_of(i)) is not None}
        for region in sorted(set(by_region.values())):
            with asking():
                self.instances.client(region).terminate(i for i in instances if by_region.get(i) == region)
        self.pause(0.5)

    def abandon(
        self, run: RunRecord, attempt: ObservedAttempt, clock: Callable[[], float]
    ) -> tuple[str, ...]:
        """Terminate what an attempt has, within seconds, and return the ids.

        An instance whose launch was not answered is looked for by its tag for a moment.
        """
        region = region_of(attempt.record.offer)
        ec2, end = self.instances.client(region), clock() + ABANDON_S
        known = self.instances.up_in(region)
        if attempt.host is not None and attempt.host.instance_id not in known:
            known.append(attempt.host.instance_id)
        terminated: set[str] = set()
        while True:
            for each in [i for i in known if i not in terminated]:
                with contextlib.suppress(CloudError):
                    ec2.terminate([each])
                    terminated.add(each)
            with contextlib.suppress(CloudError):
                ours = self.instances.is_ours
                known = [i.id for i in ec2.find(run.id) if not i.ended and ours(i.store)]
            if terminated.issuperset(known) and (terminated or clock() >= end):
                return tuple(sorted(terminated))
            if clock() >= end:
                left = ", ".join(i for i in known if i not in terminated)
                self.console.error(f"not terminated: {left}; run `offload stop {run.id}` at once")
                return tuple(sorted(terminated))
            self.sleep(0.2)
