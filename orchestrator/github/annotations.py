"""Faults as annotations: a file and line relative to the repository, which GitHub shows in a pull request."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpu_offload.dataset.finding import DatasetError, Finding
from gpu_offload.errors import OffloadError
from gpu_offload.orchestrator.github.runner import command
from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.settings.findings import checkout_root, findings_folder, relative_to
from gpu_offload.orchestrator.settings.load import Settings, SettingsError

TITLE = "gpu-offload"
SHOWN = 10
"""Annotations of a kind that GitHub shows for a step."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """A message at a place; `file` is empty for the repository as a whole, `line` counts from 1."""

    kind: Literal["error", "warning"]
    message: str
    file: str = ""
    line: int | None = None

    def command(self) -> str:
        """Return it as a workflow command."""
        line = "" if self.line is None else str(self.line)
        return command(self.kind, plain(self.message), title=TITLE, file=plain(self.file), line=line)

    @property
    def place(self) -> str:
        """The file, with the line if there is one."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


def annotations_of(error: OffloadError, settings: Settings | None, directory: Path) -> tuple[Annotation, ...]:
    """Return an error's faults, each at its place, relative to the checkout around `directory`."""
    if isinstance(error, DatasetError) and settings is not None:
        return annotate(error.findings, settings)
    if isinstance(error, SettingsError):
        return tuple(_settings_faults(error, directory))
    return (Annotation("error", str(error)),)


def annotate(findings: Iterable[Finding], settings: Settings) -> tuple[Annotation, ...]:
    """Return findings of a dataset as annotations."""
    folder = findings_folder(settings)
    top = checkout_root(settings.root)
    return tuple(
        Annotation(
            finding.severity,
            finding.message,
            relative_to(folder / finding.path, top) if finding.path else "",
            finding.line,
        )
        for finding in findings
    )


def _settings_faults(error: SettingsError, directory: Path) -> Iterator[Annotation]:
    top = checkout_root(directory)
    for fault in error.faults:
        text = f"{fault.message}; {fault.remedy}"
        # A fault of an override or a variable has no line in a file.
        at = re.fullmatch(r"(?P<file>[^:]+):(?P<line>\d+)", fault.where)
        file = next((p for p in (directory, *directory.parents) if at and (p / at["file"]).is_file()), None)
        if at and file is not None:
            yield Annotation("error", text, relative_to(file / at["file"], top), int(at["line"]))
        else:
            yield Annotation("error", f"{fault.where}: {text}")
