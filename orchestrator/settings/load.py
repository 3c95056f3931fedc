"""The configuration: `offload.toml`, the environment and the command line, checked as a whole.

    settings = load_settings(Path.cwd(), overrides=["training.epochs=2"], environment=os.environ)
    settings.training.epochs, settings.dataset_path, settings.store_ref()

Later sources win: defaults, file, environment (`OFFLOAD_TRAINING_EPOCHS=2`), `--set training.epochs=2`.
"""

import os.path
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator

from gpu_offload.orchestrator.settings.consistency import disagreements
from gpu_offload.orchestrator.settings.fault import Fault, NoConfigurationError, SettingsError
from gpu_offload.orchestrator.settings.file import (
    FILE_NAME,
    PYPROJECT,
    TABLE,
    ConfigurationFile,
    ConfigurationFileError,
    find_file,
    read_file,
)
from gpu_offload.orchestrator.settings.machines import Ec2Settings
from gpu_offload.orchestrator.settings.messages import explain
from gpu_offload.orchestrator.settings.model_name import is_weights
from gpu_offload.orchestrator.settings.overrides import Override, merge, parse_environment, parse_sets
from gpu_offload.orchestrator.settings.sections import (
    DatasetSettings,
    LimitSettings,
    RegistrySettings,
    Sections,
    SplitSettings,
    StoreSettings,
    SweepSettings,
    TrainingSettings,
)
from gpu_offload.orchestrator.settings.toml_lines import KeyPath
from gpu_offload.orchestrator.state import store_folder
from gpu_offload.remote_job.spec import StoreRef

__all__ = [
    "DatasetSettings",
    "Ec2Settings",
    "Fault",
    "LimitSettings",
    "RegistrySettings",
    "Settings",
    "SettingsError",
    "SplitSettings",
    "StoreSettings",
    "SweepSettings",
    "TrainingSettings",
    "is_weights",
    "load_settings",
]


class Settings(Sections):
    """The checked configuration. In Python: `Settings(dataset=DatasetSettings(path="raw_dataset"))`."""

    root: Path = Path()
    """The folder that relative paths are relative to: that of the file; by default the current one."""
    source: Path | None = None
    """The file that was read, None if there was none."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        found = list(disagreements(self, self.root.absolute().as_posix()))
        if found:
            raise ValueError("; ".join(f"{one.message} ({one.remedy})" for one in found))
        return self

    @property
    def dataset_path(self) -> Path:
        """The dataset's folder or data.yaml, absolute."""
        return _absolute(self.root, self.dataset.path)

    @property
    def store_url(self) -> str:
        """The store's URL; that of a folder is absolute, and leads out of the checkout where its state is kept."""
        folder = self.configured_store_folder
        return self.store.url if folder is None else f"file:{store_folder(self.root, folder)}"

    @property
    def configured_store_folder(self) -> Path | None:
        """The folder that `store.url` names, absolute; None for a bucket."""
        url = self.store.url
        return _absolute(self.root, url.removeprefix("file:")) if url.startswith("file:") else None

    def store_ref(self) -> StoreRef:
        """Return the store as a training specification names it."""
        return StoreRef(url=self.store_url, endpoint_url=self.store.endpoint_url, region=self.store.region)


def _absolute(root: Path, path: str) -> Path:
    return Path(os.path.normpath(root.absolute() / path))


OF_TRAININGS = ("training", "sweep")
"""Sections that decide about trainings to come, and nothing about those that are under way."""


def load_settings(
    start: Path,
    *,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str],
    left_out: list[Fault] | None = None,
) -> Settings:
    """Find the configuration at or above `start`, or read `file`; apply overrides and check everything.

    `overrides` are `SECTION.KEY=VALUE` words; `environment` is where `OFFLOAD_SECTION_KEY` variables count. Raises
    SettingsError with every fault of every source.

    `left_out` is for commands that begin no training, which a wrong epoch must not keep from ending an instance: it gets the
    faults of `OF_TRAININGS`, and these settings have their defaults.
    """
    faults: list[Fault] = []
    found: ConfigurationFile | None = None
    try:
        path = find_file(start) if file is None else (start / file).absolute()
        if path is not None:
            found = read_file(path, _label(path, start))
    except ConfigurationFileError as error:
        faults.append(Fault(error.where, error.message, error.remedy))
    is_missing = found is None and not faults
    from_environment, bad_variables = parse_environment(environment)
    from_words, bad_words = parse_sets(overrides)
    faults += (*bad_variables, *bad_words)
    given = [*from_environment, *from_words]
    root = start.absolute() if found is None else found.path.parent
    sections: Sections | None = None
    # Where the file cannot be read, every setting in it would seem to be missing.
    if found is not None or not faults:
        data = merge(found.data if found else {}, given)
        # For editors only.
        data.pop("$schema", None)
        sections, wrong = check(data, _Sources(found, given), root)
        while left_out is not None and (one := _of_trainings(wrong)) and _remove(data, one.path):
            left_out.append(one)
            sections, wrong = check(data, _Sources(found, given), root)
        faults = [*wrong, *faults]
    if is_missing and not given and [fault.where for fault in faults] == [FILE_NAME]:
        raise NoConfigurationError(start, faults[0])
    if faults or sections is None:
        raise SettingsError(sorted(faults, key=_reading_order))
    return Settings(**dict(sections), root=root, source=found.path if found else None)


def _label(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start.resolve())).as_posix()


def _reading_order(fault: Fault) -> tuple[bool, str, int]:
    name, colon, line = fault.where.rpartition(":")
    return (
        (fault.where.startswith("--"), name, int(line))
        if colon and line.isdigit()
        else (True, fault.where, 0)
    )


@dataclass(frozen=True)
class _Sources:
    """The source of each value: the last override of it or of a part of it, else the file."""

    file: ConfigurationFile | None
    overrides: Sequence[Override]

    @property
    def table(self) -> tuple[str, ...]:
        """The table of the file that holds our sections."""
        return TABLE if self.file and self.file.path.name == PYPROJECT else ()

    def where(self, path: KeyPath) -> str:
        for override in reversed(self.overrides):
            length = min(len(override.path), len(path))
            if override.path == path[: len(override.path)] or (
                length == len(path) and override.path[:length] == path and len(path) > 1
            ):
                return override.where
        return self.file.where(path) if self.file else FILE_NAME


def check(data: dict[str, Any], sources: _Sources, root: Path) -> tuple[Sections | None, list[Fault]]:
    """Validate the merged data; a fault in one place does not hide a fault in another."""
    try:
        sections = Sections.model_validate(data, by_alias=True, by_name=False)
        broken: set[KeyPath] = set()
        faults = []
    except ValidationError as error:
        problems = explain(error.errors(include_url=False), sources.table)
        faults = [Fault(sources.where(p.path), p.message, p.remedy, p.path) for p in problems]
        broken = {p.path for p in problems}
        # Once more without what is wrong, to compare the other settings with each other.
        sections = Sections.model_validate(_without(data, error), by_alias=True, by_name=False)
    for one in disagreements(sections, root.absolute().as_posix()):
        # What is wrong by itself is not reported again for not fitting another setting.
        if not any(
            about[: len(path)] == path or path[: len(about)] == about
            for about in one.about
            for path in broken
        ):
            path = next((about for about in one.about if _has(data, about)), one.about[0])
            faults.append(Fault(sources.where(path), one.message, one.remedy, path))
    return (None if faults else sections), faults


def _of_trainings(faults: Sequence[Fault]) -> Fault | None:
    return next((fault for fault in faults if fault.path and fault.path[0] in OF_TRAININGS), None)


def _remove(data: dict[str, Any], path: Sequence[str | int]) -> bool:
    """Remove a setting, or the list that it is in; return whether it was there."""
    *parents, last = takewhile(lambda part: isinstance(part, str), path)
    table: Any = data
    for part in parents:
        table = table.get(part) if isinstance(table, dict) else None
    return isinstance(table, dict) and table.pop(last, None) is not None


def _has(data: Any, path: tuple[str, ...]) -> bool:
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True


def _without(data: dict[str, Any], error: ValidationError) -> dict[str, Any]:
    """Return the data without the settings that are wrong, so that the rest can be checked together."""
    rest = merge(data, ())
    for problem in error.errors(include_url=False):
        table: Any = rest
        *parents, last = [part for part in problem["loc"] if isinstance(part, str)] or [""]
        for part in parents:
            table = table.get(part) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table.pop(last, None)
    dataset = rest.setdefault("dataset", {})
    # Required; a stand-in lets the rest be checked.
    dataset.setdefault("path", "/nowhere")
    return rest
