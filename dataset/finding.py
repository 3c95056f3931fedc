"""Findings: what is wrong or doubtful in a dataset, where, and what to do about it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, Self

from gpu_offload.errors import OffloadError

Severity = Literal["error", "warning"]

MAX_OF_A_KIND: Final = 500
"""Findings of one severity and code that are kept; the rest are counted, so that bad input cannot fill the memory."""
MAX_SHOWN: Final = 200
"""Findings that an error's text lists."""
SHOWN_NAMES: Final = 5
"""File names that a message about many files gives as examples."""


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
        return self.text()

    def text(self, prefix: str = "") -> str:
        """Return it for a person; `prefix` makes the path relative to another folder."""
        if not self.path:
            return printable(self.message)
        where = f"{prefix}{self.path}" if self.line is None else f"{prefix}{self.path}:{self.line}"
        return f"{printable(where)}: {printable(self.message)}"


class Findings(list[Finding]):
    """A list that keeps the first MAX_OF_A_KIND findings of each kind and counts the others."""

    def __init__(self, findings: Iterable[Finding] = ()) -> None:
        super().__init__()
        self._kept: Counter[tuple[Severity, str]] = Counter()
        self.dropped: Counter[tuple[Severity, str]] = Counter()
        self.extend(findings)

    def append(self, finding: Finding, /) -> None:
        """Keep the finding, or count it where enough of its kind are kept."""
        kind = finding.severity, finding.code
        if self._kept[kind] < MAX_OF_A_KIND:
            self._kept[kind] += 1
            super().append(finding)
        else:
            self.dropped[kind] += 1

    def extend(self, findings: Iterable[Finding], /) -> None:
        """Append each finding."""
        for finding in findings:
            self.append(finding)

    # A list's own += would pass by `append`, and by its limit.
    def __iadd__(self, findings: Iterable[Finding], /) -> Self:  # type: ignore[misc,override]
        self.extend(findings)
        return self

    def is_full(self, severity: Severity, code: str) -> bool:
        """Whether further findings of this kind are only counted."""
        return self._kept[severity, code] >= MAX_OF_A_KIND

    def merge(self, code: str, message: str) -> None:
        """Put one error for the whole dataset in the place of the errors of a kind; `{}` becomes files and number."""
        files = [finding for finding in self if finding.code == code and finding.path]
        if not files:
            return
        names = list(dict.fromkeys(finding.path for finding in files))
        number = len(names) + self.dropped.pop(("error", code), 0)
        self[:] = [finding for finding in self if finding.code != code or not finding.path]
        self._kept[("error", code)] = 0
        self.append(
            error("", code, message.format(f"{number} files ({some(names)})" if number > 1 else names[0]))
        )

    @property
    def failed(self) -> bool:
        """Whether one of them is an error."""
        return any(count and severity == "error" for (severity, _), count in self._kept.items())

    def closed(self) -> tuple[Finding, ...]:
        """Return the findings in order, and one for each kind of which some were only counted."""
        more = [
            Finding(severity, "", None, code, f"and {count} more findings of the kind {code!r}")
            for (severity, code), count in self.dropped.items()
        ]
        return ordered([*self, *more])


class FormError(ValueError):
    """A file is not of the form that it must have. `line` counts from 1; None for the file as a whole."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


class DatasetError(OffloadError):
    """The dataset cannot be trained on. `findings` holds every fault found, the errors first."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        dropped = findings.dropped if isinstance(findings, Findings) else Counter[tuple[Severity, str]]()
        self.findings = findings.closed() if isinstance(findings, Findings) else ordered(findings)
        self._dropped = dropped
        super().__init__("\n".join(self._listed("error", "fault")))

    def text(self, prefix: str = "") -> str:
        """Return faults and warnings; `prefix` makes paths relative to another folder than the dataset's."""
        return "\n".join(
            [*self._listed("error", "fault", prefix), *self._listed("warning", "warning", prefix)]
        )

    def _listed(self, severity: Severity, name: str, prefix: str = "") -> list[str]:
        found = [finding for finding in self.findings if finding.severity == severity]
        kinds = [count for (each, _), count in self._dropped.items() if each == severity]
        total = len(found) + sum(kinds) - len(kinds)
        lines = [f"  {finding.text(prefix)}" for finding in found[:MAX_SHOWN]]
        if len(found) > MAX_SHOWN:
            lines.append(f"  and {total - MAX_SHOWN} more")
        return [f"the dataset has {counted(total, name)}:", *lines] if found else []


def counted(number: int, name: str) -> str:
    """Return `1 fault`, `2 faults`, `no faults`."""
    return f"{number or 'no'} {name}{'' if number == 1 else 's'}"


def error(path: str, code: str, message: str, line: int | None = None) -> Finding:
    """Return a finding that stops the training."""
    return Finding("error", path, line, code, message)


def warning(path: str, code: str, message: str, line: int | None = None) -> Finding:
    """Return a finding that is shown and counted."""
    return Finding("warning", path, line, code, message)


def some(names: Iterable[str], limit: int = SHOWN_NAMES) -> str:
    """Return the first names, with `...` where there are more."""
    shown: list[str] = []
    for name in names:
        if len(shown) == limit:
            return ", ".join([*shown, "..."])
        shown.append(name)
    return ", ".join(shown)


def printable(text: str) -> str:
    """Return text from an untrusted file so that it can neither break a line nor control a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings with the errors first, then by place."""
    return tuple(
        sorted(findings, key=lambda f: (f.severity != "error", f.path, f.line or 0, f.code, f.message))
    )
