"""Finds orphans: a pure function of an account's tagged resources and of the store.

In doubt it keeps a training: without the store, only resources past their own absolute end are orphans.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gpu_offload.infra.aws.instance_state import ENDED

Kind = Literal["instance", "volume", "security group", "schedule"]


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource in the account. Times are Unix seconds."""

    kind: Kind
    id: str
    region: str
    run: str
    """The run that its tag names; empty without our tag."""
    expires: float | None = None
    """When it must not exist any more, by its own tag; for a schedule, when it acts."""
    store: str | None = None
    """The store of its run, by its tag; None without that tag."""
    state: str = ""
    instance: str | None = None
    """The instance that holds it (volume, group), or that it will end (schedule)."""

    @property
    def is_gone(self) -> bool:
        """Whether it costs nothing any more."""
        return self.kind == "instance" and self.state in ENDED


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How long a run in the store can own resources. `legible` is False for another version's record."""

    deadline_at: float
    over: bool = False
    legible: bool = True


@dataclass(frozen=True, slots=True)
class Orphan:
    """A resource to remove, and the reason."""

    what: Resource
    reason: str

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        thing = asdict(self.what)
        return {name: thing[name] for name in ("kind", "id", "region", "run", "state")} | {
            "reason": self.reason
        }


def find_orphans(
    found: Iterable[Resource], runs: Mapping[str, RunLimits] | None, now: float, store: str
) -> tuple[Orphan, ...]:
    """Return the resources to remove, those that an instance holds only once it is gone; then call again.

    `found` is everything with our tag, listed *before* the runs are read: a run is journalled before its launch, so a
    new run's resources are never unknown. `runs` are those of them in the store, None if it cannot be read. Resources
    with the mark of another `store` belong to another project. `now`: Unix seconds.
    """
    things = tuple(found)
    live = {thing.id for thing in things if thing.kind == "instance" and not thing.is_gone}
    strays = ((thing, _reason(thing, runs, now, store)) for thing in things if _can_go(thing, live))
    return tuple(Orphan(thing, reason) for thing, reason in strays if reason is not None)


def _can_go(thing: Resource, live: set[str]) -> bool:
    if not thing.run or thing.is_gone:
        return False
    return thing.kind == "instance" or thing.instance is None or thing.instance not in live


def _reason(thing: Resource, runs: Mapping[str, RunLimits] | None, now: float, store: str) -> str | None:
    if thing.expires is not None and now >= thing.expires:
        return "its time is up"
    if runs is None or thing.store not in {None, store}:
        return None
    life = runs.get(thing.run)
    if life is None:
        return "its run is not in the store"
    if not life.legible:
        return None
    if life.over:
        return "its run is over"
    return "its run's deadline has passed" if now >= life.deadline_at else None
