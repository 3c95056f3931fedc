"""The report of one `offload tend`, as text and as JSON."""

from dataclasses import dataclass
from typing import Any

from gpu_offload.orchestrator.cleanup.reaper import Reaping


@dataclass(frozen=True, slots=True)
class RunTended:
    """The result for an open run: `open`, or how it ended; `message` says what it waits for or what was done."""

    run: str
    status: str
    message: str
    published: str | None = None
    """The version that was published just now."""


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
            "runs": [{"run": r.run, "status": r.status, "message": r.message} for r in self.runs],
            "removed": [stray.json() for stray in self.sweep.removed],
            "kept": [
                {"id": thing.id, "region": thing.region, "run": thing.run, "state": thing.state}
                for thing in self.sweep.kept
            ],
            "failures": list(self.failures),
            "denied": list(self.denied),
        }

    def text(self) -> str:
        """Return it for a person."""
        lines = [
            f"run {one.run}: {one.status}{f', {one.message}' if one.message else ''}" for one in self.runs
        ]
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
            for thing in self.sweep.kept
            if thing.run not in over
        ]
        lines += [f"note: {note}" for note in self.sweep.notes]
        return "\n".join(lines)
