"""What is wrong, or doubtful, in a dataset: where it is, what it is, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gpu_offload.errors import OffloadError

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One fault. `path` is relative to the dataset's root ("" for the dataset as a whole), `line` counts from 1.

    `message` says the problem and, after a semicolon, the remedy. `code` is a stable word for programs.
    """

    severity: Severity
    path: str
    line: int | None
    code: str
    message: str

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{printable(where)}: {printable(self.message)}" if where else printable(self.message)


class DatasetError(OffloadError):
    """The dataset cannot be trained on. `findings` holds every fault found, the errors first."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = ordered(findings)
        errors = [finding for finding in self.findings if finding.severity == "error"]
        count = f"{len(errors)} fault" + ("s" if len(errors) != 1 else "")
        super().__init__("\n".join([f"the dataset has {count}:", *(f"  {finding}" for finding in errors)]))


def error(path: str, code: str, message: str, line: int | None = None) -> Finding:
    """Return a finding that stops the training."""
    return Finding("error", path, line, code, message)


def warning(path: str, code: str, message: str, line: int | None = None) -> Finding:
    """Return a finding that is shown and counted."""
    return Finding("warning", path, line, code, message)


def printable(text: str) -> str:
    """Return text from a stranger's file so that it can neither break a line nor drive a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings with the errors first, then by place."""
    return tuple(sorted(findings, key=_order))


def _order(finding: Finding) -> tuple[bool, str, int, str, str]:
    return (finding.severity != "error", finding.path, finding.line or 0, finding.code, finding.message)
