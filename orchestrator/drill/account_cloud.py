"""A real AWS account behind the interface that a drill uses."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from gpu_offload.infra.aws.ec2 import Ec2, Instance
from gpu_offload.infra.aws.schedule import Schedules
from gpu_offload.infra.aws.tags import store_mark
from gpu_offload.infra.aws.termination import terminate_and_wait
from gpu_offload.infra.simulator.behaviour import Event, Leftovers
from gpu_offload.orchestrator.drill.command import DrillError
from gpu_offload.orchestrator.settings.load import Settings

LOOK_S = 1.0
"""Seconds between two calls to EC2, which throttles more frequent ones."""

SETTLE_S = 300.0


@dataclass
class AccountCloud:
    """An account, limited to resources with the tag of the drill's store."""

    settings: Settings
    _states: dict[str, str] = field(default_factory=dict)
    _events: list[Event] = field(default_factory=list)
    _found: tuple[Instance, ...] = ()
    _looked_at: float = 0.0

    @cached_property
    def regions(self) -> Mapping[str, Ec2]:
        """A client per region."""
        return {region: Ec2(region) for region in self.settings.ec2.regions}

    @cached_property
    def mark(self) -> str:
        """The mark of the drill's store."""
        return store_mark(self.settings.store_url, self.settings.store.endpoint_url)

    @property
    def calls(self) -> Mapping[str, int]:
        """The number of launches, by the instances that exist or existed."""
        self._look()
        return Counter({"ec2.RunInstances": len(self._states)})

    @property
    def events(self) -> tuple[Event, ...]:
        """Each change of an instance's state, with its time to the second."""
        self._look()
        return tuple(self._events)

    def leftovers(self) -> Leftovers:
        """The drill's resources."""
        self._look()
        clients, mark = self.regions, self.mark
        wanted = self.settings.ec2.schedule_role is not None
        return Leftovers(
            instances=tuple(i.id for i in self._found if not i.ended),
            volumes=tuple(
                v.id
                for ec2 in clients.values()
                for v in ec2.volumes()
                if v.store == mark and v.state in {"available", "error"}
            ),
            security_groups=tuple(
                g.id for ec2 in clients.values() for g in ec2.find_security_groups() if g.store == mark
            ),
            schedules=tuple(
                s.name for region in clients if wanted for s in Schedules(region).find() if s.store == mark
            ),
        )

    def settle(self) -> None:
        """Wait until no instance is shutting down."""
        end = time.monotonic() + SETTLE_S
        while time.monotonic() < end:
            self._look()
            if all(i.state != "shutting-down" for i in self._found):
                return
            time.sleep(LOOK_S)

    def terminate(self) -> None:
        """Terminate every instance of the drill, and wait. Raises DrillError: one is left."""
        done = terminate_and_wait(self.regions, lambda instance: instance.store == self.mark)
        if left := [f"{what} ({why})" for what, why in {**done.left, **done.refused}.items()]:
            raise DrillError(
                f"not terminated: {', '.join(left)}; see the EC2 console, they may still cost money"
            )

    def environment(self) -> Mapping[str, str]:
        """Nothing: commands use the user's own access."""
        return {}

    def _look(self) -> None:
        # The drill polls every 0.1 s; EC2 would throttle that, and the user's other tools with it.
        if time.monotonic() - self._looked_at < LOOK_S:
            return
        found = [i for ec2 in self.regions.values() for i in ec2.find() if i.store == self.mark]
        self._found, self._looked_at = tuple(found), time.monotonic()
        for instance in found:
            if self._states.get(instance.id) != instance.state:
                self._states[instance.id] = instance.state
                self._events.append(Event(time.time(), "state", instance.id, instance.state))
