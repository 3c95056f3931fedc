"""The checklist of `offload doctor`: a line each, with its state and its remedy."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gpu_offload.orchestrator.output.table import wrapped

State = Literal["green", "yellow", "red", "grey"]
"""Passed; worth knowing; a run would fail; not needed here."""

MARKS: Mapping[State, tuple[str, str]] = {
    "green": ("ok  ", "32"),
    "yellow": ("note", "33"),
    "red": ("FAIL", "31"),
    "grey": ("-   ", "90"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line: the subject, its state, and what to do."""

    name: str
    state: State
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Examination:
    """All lines, in the order in which a run needs them."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is red."""
        return not any(check.state == "red" for check in self.checks)

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def text(self, *, colour: bool = False, width: int = 80) -> str:
        """Return the lines as text of at most `width` columns."""
        names = max(len(check.name) for check in self.checks)
        hanging = " " * (names + 8)
        lines: list[str] = []
        for check in self.checks:
            mark, code = MARKS[check.state]
            line = wrapped(check.text, width=width, indent=f"{mark}  {check.name:{names}}  ", hanging=hanging)
            lines.append(f"\x1b[{code}m{mark}\x1b[0m{line.removeprefix(mark)}" if colour else line)
            if check.remedy:
                lines.append(
                    wrapped(check.remedy, width=width, indent=f"{hanging}-> ", hanging=f"{hanging}   ")
                )
        counts = {state: sum(check.state == state for check in self.checks) for state in MARKS}
        lines.append("")
        lines.append(
            f"{counts['red']} to fix, {counts['yellow']} to know, {counts['green']} fine"
            + (f", {counts['grey']} not needed here" if counts["grey"] else "")
        )
        return "\n".join(lines)
