"""Removes every tagged resource that belongs to no open run, and verifies that it is gone."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpu_offload.infra.aws.errors import CloudError, DeniedError
from gpu_offload.infra.aws.schedule import Schedules
from gpu_offload.infra.aws.spot_request import SpotRequests
from gpu_offload.infra.aws.termination import LIMIT_S, terminate_and_wait
from gpu_offload.orchestrator.cleanup.inventory import Inventory
from gpu_offload.orchestrator.cleanup.orphans import Orphan, Resource, RunLimits, find_orphans
from gpu_offload.orchestrator.output.console import Console


def cancel_persistent_requests(
    regions: Sequence[str],
    store: str,
    *,
    dry_run: bool,
    note: Callable[[str], object],
    fail: Callable[[str], object],
) -> None:
    """Cancel every persistent request with this store's mark or none; `note` and `fail` get what happened."""
    for region in regions:
        requests = SpotRequests(region)
        try:
            found = [request for request in requests.find() if request.store in {None, store}]
        except DeniedError as error:
            note(f"spot requests in {region} were not looked at: {error}")
            continue
        except CloudError as error:
            fail(f"spot requests in {region} could not be looked at: {error}")
            continue
        for request in found:
            verb = "would cancel" if dry_run else "cancelling"
            note(f"{verb} the persistent spot request {request.id} in {region} (run {request.run})")
            if dry_run:
                continue
            try:
                requests.cancel(request.id)
            except CloudError as error:
                fail(f"spot request {request.id} in {region} was not cancelled: {error}")


RELEASE_S = 120.0
"""How long a terminated instance can hold its group or volume."""

POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class Reaping:
    """What a sweep found and did. Each of `failures` makes the command fail, and names a remedy."""

    removed: tuple[Orphan, ...]
    kept: tuple[Resource, ...]
    """Live instances of runs within their limits, and of other projects."""
    failures: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class Reaper:
    """Sweeps an account; can be repeated, and two can run at a time. `runs` returns None if the store cannot be read."""

    regions: Sequence[str]
    mark: str
    runs: Callable[[Iterable[str]], Mapping[str, RunLimits] | None]
    console: Console
    dry_run: bool = False
    schedules_wanted: bool = False
    """Whether the configuration has schedules: then a role that cannot list them is a failure."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time
    inventory: Inventory = field(init=False)
    _failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inventory = Inventory(self.regions, self._fail, schedules_wanted=self.schedules_wanted)

    def sweep(self) -> Reaping:
        """Remove orphans: instances first, then what they held."""
        found = self.inventory.look()
        cancel_persistent_requests(
            self.inventory.reachable, self.mark, dry_run=self.dry_run, note=self.console.note, fail=self._fail
        )
        # After the listing: a run is journalled before anything of it is launched.
        runs = self.runs({thing.run for thing in found})
        strays = find_orphans(found, runs, self.clock(), self.mark)
        instances = [stray for stray in strays if stray.what.kind == "instance"]
        if self.dry_run:
            would = self._expected(found, instances, runs)
            for stray in would:
                self._say("would remove", "would terminate", stray)
            return self._report(would, found)
        terminated = self._terminate(instances)
        if terminated:
            found = self.inventory.look()  # they have let go of groups and volumes
        rest = [s for s in find_orphans(found, runs, self.clock(), self.mark) if s.what.kind != "instance"]
        return self._report([*terminated, *self._delete(rest)], found)

    def _terminate(self, strays: Sequence[Orphan]) -> list[Orphan]:
        """Terminate instances and wait; one that does not terminate is a failure."""
        wanted = {stray.what.id: stray for stray in strays}
        for stray in strays:
            self._say("removing", "terminating", stray)
        regions = sorted({stray.what.region for stray in strays})
        done = terminate_and_wait(
            {region: self.inventory.client(region) for region in regions},
            lambda instance: instance.id in wanted,
            sleep=self.sleep,
            clock=self.clock,
        )
        for name, error in done.refused.items():
            self._fail(f"{name} was not terminated: {error}")
        for name in done.left:
            self._fail(
                f"{name} in {wanted[name].what.region} does not end, {LIMIT_S / 60:.0f} min after it was told to: "
                "look at it in the EC2 console, it may still cost money"
            )
        failed = {*done.refused, *done.left}
        return [s for s in strays if s.what.id not in failed and s.what.region not in failed]

    def _delete(self, strays: Sequence[Orphan]) -> list[Orphan]:
        done, left, end = [], list(strays), self.clock() + RELEASE_S
        while left:
            again: list[Orphan] = []
            for stray in left:
                try:
                    self._delete_one(stray.what)
                except CloudError as error:
                    # In use by an instance that just ended, or throttled.
                    if error.retry == "same" and self.clock() < end:
                        again.append(stray)
                    else:
                        thing = stray.what
                        self._fail(f"{thing.kind} {thing.id} in {thing.region} is left: {error}")
                else:
                    self._say("removed", "terminated", stray)
                    done.append(stray)
            if left := again:
                self.sleep(POLL_S)
        return done

    def _delete_one(self, thing: Resource) -> None:
        if thing.kind == "schedule":
            Schedules(thing.region).delete(thing.id)
        elif thing.kind == "volume":
            self.inventory.client(thing.region).delete_volume(thing.id)
        else:
            self.inventory.client(thing.region).delete_security_group(thing.id)

    def _expected(
        self, found: Sequence[Resource], instances: Sequence[Orphan], runs: Mapping[str, RunLimits] | None
    ) -> list[Orphan]:
        """Return what would be removed once those instances are gone, with their volumes."""
        gone = {stray.what.id for stray in instances}
        left = [
            thing
            for thing in found
            if thing.id not in gone and not (thing.kind == "volume" and thing.instance in gone)
        ]
        rest = find_orphans(left, runs, self.clock(), self.mark)
        return [*instances, *(stray for stray in rest if stray.what.kind != "instance")]

    def _report(self, removed: Sequence[Orphan], found: Sequence[Resource]) -> Reaping:
        gone = {stray.what.id for stray in removed}
        kept = tuple(t for t in found if t.kind == "instance" and not t.is_gone and t.id not in gone)
        return Reaping(tuple(removed), kept, tuple(self._failures), tuple(self.inventory.notes))

    def _say(self, verb: str, for_instances: str, stray: Orphan) -> None:
        thing = stray.what
        name = thing.id if thing.kind == "instance" else f"{thing.kind} {thing.id}"
        verb = for_instances if thing.kind == "instance" else verb
        self.console.note(f"{verb} {name} in {thing.region} (run {thing.run}): {stray.reason}")

    def _fail(self, text: str) -> None:
        self.console.error(text)
        self._failures.append(text)
