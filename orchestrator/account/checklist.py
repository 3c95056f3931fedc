"""What a doctor writes down: lines that are fine, worth knowing, or to be mended, each with the remedy."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gpu_offload.orchestrator.output.console import plain

State = Literal["green", "yellow", "red", "grey"]
"""Fine; worth knowing; a run would fail; not needed here."""

MARKS: Mapping[State, tuple[str, str]] = {
    "green": ("ok  ", "32"),
    "yellow": ("note", "33"),
    "red": ("FAIL", "31"),
    "grey": ("-   ", "90"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, how it is, and what to do."""

    name: str
    state: State
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Examination:
    """All lines, in the order in which a run would stumble."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is red."""
        return not any(check.state == "red" for check in self.checks)

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def text(self, *, colour: bool = False) -> str:
        """Return the lines for a person."""
        width = max(len(check.name) for check in self.checks)
        lines: list[str] = []
        for check in self.checks:
            mark, code = MARKS[check.state]
            shown = f"\x1b[{code}m{mark}\x1b[0m" if colour else mark
            lines.append(f"{shown}  {check.name:{width}}  {plain(check.text)}")
            if check.remedy:
                lines.append(f"{' ' * (width + 8)}-> {plain(check.remedy)}")
        counts = {state: sum(check.state == state for check in self.checks) for state in MARKS}
        lines.append("")
        lines.append(
            f"{counts['red']} to mend, {counts['yellow']} to know, {counts['green']} fine"
            + (f", {counts['grey']} not needed here" if counts["grey"] else "")
        )
        return "\n".join(lines)
