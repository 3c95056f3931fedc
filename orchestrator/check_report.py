"""What `offload check` found in a dataset, as text and as JSON."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from gpu_offload.dataset.finding import DatasetError, Finding, counted
from gpu_offload.dataset.snapshot import Snapshot
from gpu_offload.orchestrator.output.units import human_bytes

SHOWN: Final = 100
"""Class names that are printed; ImageNet has a thousand."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A dataset that can be trained on, and its warnings."""

    snapshot: Snapshot
    warnings: tuple[Finding, ...]

    def json(self, prefix: str = "") -> dict[str, Any]:
        """Return the documented JSON object; `prefix` as in `text`."""
        return {
            "task": self.snapshot.task,
            "classes": list(self.snapshot.classes),
            "images": dict(self.snapshot.images),
            "bytes": self.snapshot.bytes,
            "faults": [],
            "warnings": [_finding(w, prefix) for w in self.warnings],
            "left_out": list(self.snapshot.left_out),
        }

    def text(self, prefix: str = "") -> str:
        """Return it as text for people; `prefix` makes paths relative to another folder than the dataset's."""
        names = self.snapshot.classes
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        counts = ", ".join(f"{n} {split}" for split, n in self.snapshot.images.items())
        lines = [
            (
                f"{self.snapshot.task}: {counts}; {human_bytes(self.snapshot.bytes)}; "
                f"classes {', '.join(names[:SHOWN])}{more}"
            )
        ]
        lines += [f"warning: {warning.text(prefix)}" for warning in self.warnings]
        lines += [f"left out: {line}" for line in self.snapshot.left_out]
        lines.append(f"no faults, {counted(len(self.warnings), 'warning')}")
        return "\n".join(lines)


def faults_json(error: DatasetError, prefix: str = "") -> dict[str, Any]:
    """Return the object that `offload check --json` prints for a dataset with faults; `prefix` as in `Checked.text`."""
    by = {
        kind: [_finding(f, prefix) for f in error.findings if f.severity == kind]
        for kind in ("error", "warning")
    }
    return {"faults": by["error"], "warnings": by["warning"], "error": error.json()}


def _finding(finding: Finding, prefix: str) -> dict[str, Any]:
    return asdict(finding) | {"path": f"{prefix}{finding.path}" if finding.path else ""}
