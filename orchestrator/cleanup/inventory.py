"""Lists the instances, volumes, security groups and schedules with our tag in the regions of an account."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from gpu_offload.infra.aws.ec2 import Ec2
from gpu_offload.infra.aws.errors import CloudError, DeniedError
from gpu_offload.infra.aws.schedule import Schedules
from gpu_offload.orchestrator.cleanup.orphans import Resource

T = TypeVar("T")


@dataclass
class Inventory:
    """Lists an account. A region of which something cannot be read is reported once."""

    regions: Sequence[str]
    complain: Callable[[str], object]
    schedules_wanted: bool = False
    """Whether the configuration has schedules: then a role that cannot list them is an error."""
    notes: list[str] = field(default_factory=list)
    _clients: dict[str, Ec2] = field(default_factory=dict)
    _deaf: set[str] = field(default_factory=set)
    """Regions whose instances cannot be listed; they are left out."""
    _complained: set[str] = field(default_factory=set)

    def client(self, region: str) -> Ec2:
        """Return the client of a region."""
        if region not in self._clients:
            self._clients[region] = Ec2(region)
        return self._clients[region]

    @property
    def reachable(self) -> list[str]:
        """The regions that could be read so far."""
        return [region for region in self.regions if region not in self._deaf]

    def look(self) -> list[Resource]:
        """Return everything with our tag. Schedules come first, so that the instances that they terminate are listed, too."""
        return [thing for region in self.regions for thing in self._look_at(region)]

    def _look_at(self, region: str) -> list[Resource]:
        if region in self._deaf:
            return []
        schedules = self._answer(region, lambda: self._schedules(region))
        try:
            instances = self.client(region).find()
        except CloudError as error:
            self._deaf.add(region)
            self._complain(region, error)
            return []
        # Where the role may not list these, no instance must keep running because of that.
        volumes = self._answer(region, self.client(region).volumes)
        groups = self._answer(region, self.client(region).find_security_groups)
        holders = {group: i.id for i in instances if not i.ended for group in i.security_groups}
        return [
            *schedules,
            *(
                Resource("volume", v.id, region, v.run, _unix(v.expires), v.store, v.state, v.attached_to)
                for v in volumes
            ),
            *(
                Resource(
                    "security group", g.id, region, g.run, _unix(g.expires), g.store, "", holders.get(g.id)
                )
                for g in groups
            ),
            *(
                Resource("instance", i.id, region, i.run, _unix(i.expires), i.store, i.state)
                for i in instances
            ),
        ]

    def _answer(self, region: str, ask: Callable[[], list[T]]) -> list[T]:
        """Return what `ask` finds; nothing where it fails."""
        try:
            return ask()
        except CloudError as error:
            self._complain(region, error)
            return []

    def _complain(self, region: str, error: CloudError) -> None:
        if region not in self._complained:
            self._complained.add(region)
            self.complain(f"{region} could not be swept as a whole: {error}")

    def _schedules(self, region: str) -> list[Resource]:
        try:
            schedules = Schedules(region).find()
        except DeniedError as error:
            if self.schedules_wanted:
                raise
            self.notes.append(f"schedules in {region} were not looked at: {error}")
            return []
        return [
            Resource("schedule", s.name, region, s.run, _unix(s.at), s.store, "", s.instance_id or None)
            for s in schedules
        ]


def _unix(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
