"""Writes a commented `offload.toml` from what a repository contains: `offload init`."""

import json
import re
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.settings.discovery import find_candidates
from gpu_offload.orchestrator.settings.file import FILE_NAME, ConfigurationFileError, find_file
from gpu_offload.orchestrator.settings.proposal import Proposal
from gpu_offload.orchestrator.settings.section import Section
from gpu_offload.orchestrator.settings.sections import Sections

WIDTH = 100

_MODELS = {
    Task.DETECT: "yolov8n.yaml",
    Task.SEGMENT: "yolov8n-seg.yaml",
    Task.POSE: "yolov8n-pose.yaml",
    Task.CLASSIFY: "yolov8n-cls.yaml",
}
_WRITTEN = {
    "dataset.path",
    "training.model",
    "training.epochs",
    "training.image-size",
    "training.batch",
    "limits.deadline",
    "limits.max-cost-usd",
    "store.url",
}
"""Settings written out even at their defaults, because users change them first."""

_FIRST = _WRITTEN | {"dataset.classes", "dataset.split.val", "training.hyperparameters"}
"""Settings of a file that does not have all of them."""


@dataclass(frozen=True)
class Configuration:
    """What `write_configuration` found and did."""

    path: Path
    """The configuration: written, or there before and left as it is."""
    candidates: tuple[Proposal, ...]
    """The datasets found, the chosen one first."""
    written: bool

    @property
    def found(self) -> str:
        """The reason for the choices, one line."""
        if not self.candidates:
            return "no dataset: write dataset.path into the file"
        chosen, *others = self.candidates
        model = _MODELS[chosen.task] if chosen.task else None
        more = f"; {len(others)} more in comments" if others else ""
        names = "; the class names are numbers: write yours" if chosen.placeholders else ""
        return f"{chosen.path}, {chosen}{f'; model {model}' if model else ''}{names}{more}"


def write_configuration(root: Path, *, everything: bool = False) -> Configuration:
    """Find datasets below `root` and write a commented `offload.toml`; an existing configuration stays.

    Raises ConfigurationFileError: an existing one cannot be read, or there are two; OSError.
    """
    candidates = find_candidates(root)
    present = find_file(root)
    if present is not None and present.parent == root.resolve():
        return Configuration(present, candidates, written=False)
    path = root / FILE_NAME
    if path.exists() or path.is_symlink():
        raise ConfigurationFileError(FILE_NAME, "it is no regular file", "remove it, then run this again")
    with path.open("x", encoding="utf-8") as file:
        file.write(render_configuration(candidates, everything=everything))
    return Configuration(path, candidates, written=True)


def configuration_for(root: Path, *, everything: bool = False) -> str:
    """Return the text that `write_configuration` would write for this folder; write nothing."""
    return render_configuration(find_candidates(root), everything=everything)


def render_configuration(candidates: Sequence[Proposal], *, everything: bool = False) -> str:
    """Return a commented `offload.toml` for the first candidate, with `everything` or what users change first. Pure."""
    lines = [
        "# Configuration of gpu-offload. A line in comments shows the default, or an example where there is none.",
        "# For one run: --set training.epochs=2, or OFFLOAD_TRAINING_EPOCHS=2.",
    ]
    if everything:
        lines += [
            "# Completion in editors: `offload schema > offload.schema.json`, then put on the first line:",
            "#     #:schema ./offload.schema.json",
        ]
    else:
        lines.append("# All settings: `offload init --all --print`.")
    only = None if everything else _FIRST
    chosen = candidates[0] if candidates else None
    values, notes = _choices(chosen, candidates[1:])
    for name, info in Sections.model_fields.items():
        section = info.annotation
        if not (isinstance(section, type) and issubclass(section, Section)):  # pragma: no cover - all are
            raise TypeError(name)
        if body := _section(section, (name,), values, notes, only):
            lines += ["", f"[{name}]  # {_line(info.description or section.__doc__)}", *body]
    return "\n".join(lines) + "\n"


def _choices(
    chosen: Proposal | None, others: Sequence[Proposal]
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return the values that differ from the defaults, and notes to settings."""
    if chosen is None:
        return {"dataset.path": "raw_dataset"}, {
            "dataset.path": ["No dataset was found here: write where yours is."]
        }
    values: dict[str, Any] = {"dataset.path": chosen.path}
    notes = {
        "dataset.path": [
            f"Found: {chosen}.{_refused(chosen)}",
            *(f"Also found: {toml_value(other.path)}, {other}.{_refused(other)}" for other in others),
        ]
    }
    if chosen.classes and chosen.placeholders:
        # Not written as names: `offload check` would not miss yours any more.
        example = ", ".join(f'"name of {number}"' for number in range(min(3, len(chosen.classes))))
        notes["dataset.classes"] = [
            f"The labels use the numbers 0 to {len(chosen.classes) - 1}: name them below, as in [{example}{', ...' if len(chosen.classes) > 3 else ''}]."
        ]
    elif chosen.classes:
        values["dataset.classes"] = list(chosen.classes)
        if chosen.names_from:
            notes["dataset.classes"] = [f"The names are those of {toml_value(chosen.names_from)}."]
    if chosen.task is not None:
        values["training.model"] = _MODELS[chosen.task]
        if chosen.task is Task.CLASSIFY:
            values["training.image-size"] = 224
    return values, notes


def _refused(candidate: Proposal) -> str:
    return f" `offload check` refuses it: {candidate.fault}." if candidate.fault else ""


def _section(
    section: type[Section],
    path: tuple[str, ...],
    values: dict[str, Any],
    notes: dict[str, list[str]],
    only: Collection[str] | None,
) -> list[str]:
    """Return the lines of a section: of all its settings, or of `only` some."""
    lines: list[str] = []
    for name, info in section.model_fields.items():
        alias = info.alias or name
        dotted = ".".join((*path, alias))
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            if only is None:
                lines += ["#", *_comment(_line(info.description)), "#"]
            lines += _section(info.annotation, (*path, alias), values, notes, only)
            continue
        if only is not None and dotted not in only:
            continue
        for text in (_line(info.description), *notes.get(dotted, ())):
            lines += _comment(text)
        default = info.get_default(call_default_factory=True)
        if dotted in values:
            shown = toml_value(values[dotted])
        elif default is not None and not info.is_required():
            # By pydantic, which writes a duration as a file does.
            shown = toml_value(section.model_construct(**{name: default}).model_dump(mode="json")[name])
        else:
            shown = toml_value((info.examples or [""])[0])
        key = ".".join((*path[1:], alias))
        lines.append(f"{'' if dotted in values or dotted in _WRITTEN else '# '}{key} = {shown}")
    return lines


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _comment(text: str) -> list[str]:
    """Break a text into lines of comment; what cannot be printed in a comment is escaped by the caller."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        # What is broken at a hyphen cannot be copied into a shell.
        break_on_hyphens=False,
    )


def toml_key(name: str) -> str:
    """Write a key, in quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name, re.ASCII) else toml_value(name)


def toml_value(value: object) -> str:
    """Write a text, number, flag, list or (inline) table. Raises TypeError: TOML has no such value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are all TOML's too; only DEL, which JSON leaves as it is, is forbidden in TOML.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    raise TypeError(f"TOML has no {type(value).__name__}")
