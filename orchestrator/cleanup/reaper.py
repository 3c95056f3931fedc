"""The sweep: whatever bears our tag and may not exist any more is removed, and is seen to be gone."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from gpu_offload.infra.aws.ec2 import Ec2
from gpu_offload.infra.aws.errors import CloudError, DeniedError, InUseError
from gpu_offload.infra.aws.schedule import Schedules
from gpu_offload.infra.store.errors import ObjectKeyError, StoreError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.cleanup.orphans import Orphan, Resource, RunLimits, find_orphans
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.journal import Journal, JournalError
from gpu_offload.orchestrator.run.record import run_key

TERMINATION_S = 900.0
"""How long an instance may take to terminate before that is red: it takes a minute or two."""

RELEASE_S = 120.0
"""How long a terminated instance may hold its group or volume."""

POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep found and did. `failures` are red: each says what to do."""

    removed: tuple[Orphan, ...]
    kept: tuple[Resource, ...]
    """Live instances of runs within their limits, and of other projects."""
    failures: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class Reaper:
    """Sweeps an account. `mark` is our store's; `runs` says which of these runs the store knows, None if it is silent.

    Harmless to repeat, and for two at a time.
    """

    regions: Sequence[str]
    mark: str
    runs: Callable[[Iterable[str]], Mapping[str, RunLimits] | None]
    console: Console
    dry_run: bool = False
    schedules_wanted: bool = False
    """Whether the configuration has schedules: then not being allowed to see them is red."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time
    _clients: dict[str, Ec2] = field(default_factory=dict)
    _failures: list[str] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)
    _deaf: set[str] = field(default_factory=set)
    """Regions that could not be looked at; they have been complained of."""

    def sweep(self) -> Sweep:
        """Remove what must go: instances first, then what they held."""
        found = self._look()
        runs = self.runs({thing.run for thing in found})
        strays = find_orphans(found, runs, self.clock(), self.mark)
        instances = [stray for stray in strays if stray.what.kind == "instance"]
        if self.dry_run:
            would = self._imagine(found, instances, runs)
            for stray in would:
                self._say("would remove", "would terminate", stray)
            return self._report(would, found)
        terminated = self._terminate(instances)
        if terminated:
            found = self._look()
        rest = [s for s in find_orphans(found, runs, self.clock(), self.mark) if s.what.kind != "instance"]
        return self._report([*terminated, *self._delete(rest)], found)

    # -------------------------------------------------------------------------------------- looking

    def _look(self) -> list[Resource]:
        """Find everything that bears our tag. Schedules first: what they end is then known as well."""
        return [thing for region in self.regions for thing in self._look_at(region)]

    def _look_at(self, region: str) -> list[Resource]:
        if region in self._deaf:
            return []
        found: list[Resource] = []
        try:
            found += self._schedules(region)
            ec2 = self._ec2(region)
            groups = ec2.find_security_groups()
            found += [
                Resource("volume", v.id, region, v.run, _unix(v.expires), v.store, v.state, v.attached_to)
                for v in ec2.volumes()
            ]
            instances = ec2.find()
        except CloudError as error:
            self._deaf.add(region)
            self._fail(f"{region} could not be swept: {error}")
            return []
        holders = {group: i.id for i in instances if not i.ended for group in i.security_groups}
        found += [
            Resource("security group", g.id, region, g.run, _unix(g.expires), g.store, "", holders.get(g.id))
            for g in groups
        ]
        return found + [
            Resource("instance", i.id, region, i.run, _unix(i.expires), i.store, i.state) for i in instances
        ]

    def _schedules(self, region: str) -> list[Resource]:
        try:
            schedules = Schedules(region).find()
        except DeniedError as error:
            if self.schedules_wanted:
                raise
            self._notes.append(f"schedules in {region} were not looked at: {error}")
            return []
        return [
            Resource("schedule", s.name, region, s.run, _unix(s.at), s.store, "", s.instance_id or None)
            for s in schedules
        ]

    # ------------------------------------------------------------------------------------- removing

    def _terminate(self, strays: Sequence[Orphan]) -> list[Orphan]:
        """Terminate and wait until it is so; what will not end is red."""
        asked: list[Orphan] = []
        for stray in strays:
            self._say("removing", "terminating", stray)
            with self._failing(f"{stray.what.id} in {stray.what.region} was not terminated"):
                self._ec2(stray.what.region).terminate([stray.what.id])
                asked.append(stray)
        left, end = {stray.what.id: stray for stray in asked}, self.clock() + TERMINATION_S
        while left:
            for region in sorted({stray.what.region for stray in left.values()}):
                with self._quietly():
                    seen = {i.id: i.state for i in self._ec2(region).find()}
                    for stray in [s for s in left.values() if s.what.region == region]:
                        # EC2 forgets a terminated instance within the hour: not seen is gone.
                        if seen.get(stray.what.id, "terminated") == "terminated":
                            del left[stray.what.id]
            if left and self.clock() >= end:
                break
            if left:
                self.sleep(POLL_S if self.clock() + POLL_S < end else 0.1)
        for stray in left.values():
            self._fail(
                f"{stray.what.id} in {stray.what.region} does not end, {TERMINATION_S / 60:.0f} min after it was told "
                "to: look at it in the EC2 console, it may still cost money"
            )
        return [stray for stray in asked if stray.what.id not in left]

    def _delete(self, strays: Sequence[Orphan]) -> list[Orphan]:
        done, left, end = [], list(strays), self.clock() + RELEASE_S
        while left:
            again: list[Orphan] = []
            for stray in left:
                try:
                    self._delete_one(stray.what)
                except InUseError as error:
                    again.append(stray)
                    if self.clock() >= end:
                        self._fail(
                            f"{stray.what.kind} {stray.what.id} in {stray.what.region} is left: {error}"
                        )
                except CloudError as error:
                    self._fail(f"{stray.what.kind} {stray.what.id} in {stray.what.region} is left: {error}")
                else:
                    self._say("removed", "terminated", stray)
                    done.append(stray)
            if self.clock() >= end:
                break
            left = again
            if left:
                self.sleep(POLL_S)
        return done

    def _delete_one(self, thing: Resource) -> None:
        if thing.kind == "schedule":
            Schedules(thing.region).delete(thing.id)
        elif thing.kind == "volume":
            self._ec2(thing.region).delete_volume(thing.id)
        else:
            self._ec2(thing.region).delete_security_group(thing.id)

    def _imagine(
        self, found: Sequence[Resource], instances: Sequence[Orphan], runs: Mapping[str, RunLimits] | None
    ) -> list[Orphan]:
        """Return what would go, as if the doomed instances were gone; their volumes go with them."""
        gone = {stray.what.id for stray in instances}
        left = [
            thing
            for thing in found
            if thing.id not in gone and not (thing.kind == "volume" and thing.instance in gone)
        ]
        rest = find_orphans(left, runs, self.clock(), self.mark)
        return [*instances, *(stray for stray in rest if stray.what.kind != "instance")]

    # -------------------------------------------------------------------------------------- telling

    def _report(self, removed: Sequence[Orphan], found: Sequence[Resource]) -> Sweep:
        gone = {stray.what.id for stray in removed}
        kept = tuple(t for t in found if t.kind == "instance" and not t.is_gone and t.id not in gone)
        return Sweep(tuple(removed), kept, tuple(self._failures), tuple(self._notes))

    def _say(self, verb: str, for_instances: str, stray: Orphan) -> None:
        thing = stray.what
        name = thing.id if thing.kind == "instance" else f"{thing.kind} {thing.id}"
        verb = for_instances if thing.kind == "instance" else verb
        self.console.note(f"{verb} {name} in {thing.region} (run {thing.run}): {stray.reason}")

    def _fail(self, text: str) -> None:
        self.console.error(text)
        self._failures.append(text)

    @contextmanager
    def _failing(self, text: str) -> Iterator[None]:
        try:
            yield
        except CloudError as error:
            self._fail(f"{text}: {error}")

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Ask again later where AWS did not answer."""
        try:
            yield
        except CloudError as error:
            self.console.detail(str(error))

    def _ec2(self, region: str) -> Ec2:
        if region not in self._clients:
            self._clients[region] = Ec2(region)
        return self._clients[region]


def lives(store: ObjectStore, runs: Iterable[str]) -> Mapping[str, RunLimits]:
    """Return what the store says of these runs; those it does not have are left out. Raises StoreError."""
    journal, found = Journal(store), {}
    for run in runs:
        try:
            if store.stat(run_key(run, "run.json")) is None:
                continue
            found[run] = RunLimits(journal.run(run).deadline_at, over=journal.outcome(run) is not None)
        except ObjectKeyError:
            continue  # no run of any store could be called that
        except JournalError:
            found[run] = RunLimits(0.0, legible=False)
    return found


def readable_lives(
    store: ObjectStore, complain: Callable[[str], None]
) -> Callable[[Iterable[str]], Mapping[str, RunLimits] | None]:
    """Return `lives` for a reaper; where the store cannot be read, it complains and returns None."""

    def read(runs: Iterable[str]) -> Mapping[str, RunLimits] | None:
        try:
            return lives(store, runs)
        except StoreError as error:
            complain(str(error))
            return None

    return read


def _unix(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
