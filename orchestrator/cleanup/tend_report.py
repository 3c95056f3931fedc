"""The report of one `offload tend`, as text and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpu_offload.orchestrator.cleanup.orphans import Resource
from gpu_offload.orchestrator.cleanup.reaper import Reaping
from gpu_offload.orchestrator.run.observation import ObservedAttempt


@dataclass(frozen=True, slots=True)
class RunTended:
    """The result for an open run: `open`, or how it ended; `message` says what it waits for or what was done."""

    run: str
    status: str
    message: str
    published: str | None = None
    """The version that was published just now."""
    changes: tuple[str, ...] = ()
    """What was ended and launched for it just now."""
    ended: tuple[str, ...] = ()
    """The instances of attempts that ended just now."""


def changed(
    tended: RunTended,
    attempts: Sequence[ObservedAttempt],
    since: float,
    found: Sequence[ObservedAttempt] = (),
) -> RunTended:
    """Return a result with what happened to the run's attempts since a time, Unix seconds.

    An attempt that was open when it was `found` counts, whenever its instance ended: it can have ended by itself before.
    """
    was_open = {attempt.record.number for attempt in found if attempt.end is None}
    changes, ended = list[str](), list[str]()
    for attempt in attempts:
        name, host = f"attempt {attempt.record.number}", attempt.host
        if attempt.end is not None and (attempt.end.at >= since or attempt.record.number in was_open):
            where = f" on {host.instance_id}" if host else ""
            why = f": {attempt.end.message}" if attempt.end.message else ""
            changes.append(f"{name}{where} ended ({attempt.end.reason}){why}")
            ended += [host.instance_id] if host else []
        elif attempt.end is None and attempt.record.created_at >= since:
            launched = f", {host.instance_id}" if host else ""
            changes.append(f"{name} began: {attempt.record.offer.name}{launched}")
    return replace(tended, changes=tuple(changes), ended=tuple(ended))


@dataclass(frozen=True, slots=True)
class Tended:
    """What one `tend` did. Each of `failures` names a remedy."""

    runs: tuple[RunTended, ...]
    sweep: Reaping
    failures: tuple[str, ...]
    store_readable: bool
    dry_run: bool
    denied: tuple[str, ...] = ()
    """Of `runs`, those whose next instance this role cannot launch; each is in `failures`, too, unless another job
    follows that can."""

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {
            "dry_run": self.dry_run,
            "store_readable": self.store_readable,
            "runs": [
                {"run": r.run, "status": r.status, "message": r.message, "changes": list(r.changes)}
                for r in self.runs
            ],
            "removed": [stray.json() for stray in self.sweep.removed],
            "kept": [
                {"id": thing.id, "region": thing.region, "run": thing.run, "state": thing.state}
                for thing in self._kept()
            ],
            "failures": list(self.failures),
            "denied": list(self.denied),
        }

    def text(self) -> str:
        """Return the report as text."""
        lines = []
        for one in self.runs:
            lines.append(f"run {one.run}: {one.status}{f', {one.message}' if one.message else ''}")
            lines += [f"run {one.run}: {change}" for change in one.changes]
        verb = "would remove" if self.dry_run else "removed"
        removed = [s.what for s in self.sweep.removed]
        counts = [
            f"{n} {kind}{'' if n == 1 else 's'}"
            for kind in ("instance", "volume", "security group", "schedule")
            if (n := sum(thing.kind == kind for thing in removed))
        ]
        lines.append(f"{verb} {', '.join(counts)}" if counts else "nothing to remove")
        over = {one.run for one in self.runs if one.status != "open"}
        lines += [
            f"{thing.id} in {thing.region} goes on, for run {thing.run}"
            for thing in self._kept()
            if thing.run not in over
        ]
        lines += [f"note: {note}" for note in self.sweep.notes]
        return "\n".join(lines)

    def _kept(self) -> list[Resource]:
        """Return what the sweep left to runs, but for the instances of attempts that ended after it."""
        ended = {instance for one in self.runs for instance in one.ended}
        return [thing for thing in self.sweep.kept if thing.id not in ended]
