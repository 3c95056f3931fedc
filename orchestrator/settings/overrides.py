"""Settings from outside the file: `--set training.epochs=2` and `OFFLOAD_TRAINING_EPOCHS=2`."""

import copy
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from gpu_offload.infra.origin import documentation
from gpu_offload.orchestrator.settings.fault import Fault
from gpu_offload.orchestrator.settings.section import Section
from gpu_offload.orchestrator.settings.sections import Sections

PREFIX = "OFFLOAD_"
NEAR = 0.92
"""How similar a variable's name is to a setting's, of 1, where a section is misspelt; other programs' are less."""

Kind = Literal["section", "table", "text", "list", "flag", "number"]


def _kind(annotation: Any) -> Kind | type[Section]:
    """Return the form of a value of this type in a file."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        # Of `X | None` the form of X.
        return _kind(next(arg for arg in get_args(annotation) if arg is not NoneType))
    if origin is dict:
        return "table"
    if origin is tuple:
        return "list"
    if isinstance(annotation, type):
        if issubclass(annotation, Section):
            return annotation
        if issubclass(annotation, bool):
            return "flag"
        if issubclass(annotation, int | float) and not issubclass(annotation, Enum):
            return "number"
    return "text"


def _settings(section: type[Section], base: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Kind]]:
    for name, info in section.model_fields.items():
        path = (*base, info.alias or name)
        kind = _kind(info.annotation)
        if isinstance(kind, type):
            yield path, "section"
            yield from _settings(kind, path)
        else:
            yield path, kind


SETTINGS: Mapping[tuple[str, ...], Kind] = dict(_settings(Sections))
"""Every setting and section by its path, as in `("training", "image-size")`."""

OPEN = frozenset(
    (info.alias or name,)
    for name, info in Sections.model_fields.items()
    if isinstance(section := _kind(info.annotation), type) and section.model_config.get("extra") == "allow"
)
"""Sections that take other names, too."""

_VARIABLES = {PREFIX + "_".join(path).upper().replace("-", "_"): path for path in SETTINGS if len(path) > 1}


@dataclass(frozen=True)
class Override:
    """A value from outside the file, and how a message names its source."""

    path: tuple[str, ...]
    value: Any
    where: str


def parse_sets(sets: Sequence[str]) -> tuple[list[Override], list[Fault]]:
    """Read `SECTION.KEY=VALUE` words, in their order; names may be written with `-` or `_`."""
    good: list[Override] = []
    bad: list[Fault] = []
    for word in sets:
        key, equals, text = word.partition("=")
        parts = tuple(part.strip().strip("\"'") for part in key.strip().split("."))
        where = f"--set {key.strip()}"
        if not equals:
            bad.append(Fault(where, "it has no value", f"write --set {key.strip() or 'SECTION.KEY'}=VALUE"))
            continue
        path = resolve(parts)
        if path is None:
            known = [".".join(path) for path in SETTINGS if len(path) > 1]
            near = get_close_matches(key.strip().replace("_", "-"), known, 1, 0.6)
            bad.append(Fault(where, "there is no such setting", _remedy(near)))
        else:
            _take(
                Override(path, parse_value(text, path), where), f"--set {key.strip()}.NAME=VALUE", good, bad
            )
    return good, bad


def _take(override: Override, entry: str, good: list[Override], bad: list[Fault]) -> None:
    """Sort an override; `entry` shows how to write an entry of a table."""
    if SETTINGS.get(override.path) in {"section", "table"} and not isinstance(override.value, dict):
        name = ".".join(override.path)
        text = repr(override.value)[:60]
        bad.append(
            Fault(override.where, f"{name} is {text}, not a table", f"write {entry} for each of its entries")
        )
    else:
        good.append(override)


def parse_environment(environment: Mapping[str, str]) -> tuple[list[Override], list[Fault]]:
    """Read `OFFLOAD_SECTION_KEY` variables; empty ones and those of other purposes do not count, misspelt ones are faults."""
    good: list[Override] = []
    bad: list[Fault] = []
    sections = tuple(f"{PREFIX}{path[0].upper()}_" for path in SETTINGS if len(path) == 1)
    for name in sorted(environment, key=lambda name: (len(name), name)):  # a table before its entries
        text = environment[name]
        if not name.startswith(PREFIX) or not text.strip():
            continue
        if not name.startswith(sections) and not get_close_matches(name, _VARIABLES, 1, NEAR):
            continue
        path = _VARIABLES.get(name)
        for table in (variable for variable, path in _VARIABLES.items() if SETTINGS[path] == "table"):
            if path is None and name.startswith(f"{table}_"):
                path = (*_VARIABLES[table], name.removeprefix(f"{table}_").lower())
        if path is None:
            near = get_close_matches(name, _VARIABLES, 1, 0.6)
            bad.append(Fault(name, "there is no such setting", _remedy(near)))
        else:
            _take(Override(path, parse_value(text, path), name), f"{name}_NAME=VALUE", good, bad)
    return good, bad


def _remedy(near: list[str]) -> str:
    return f"did you mean {near[0]}?" if near else f"{documentation('configuration.md')} lists them all"


def resolve(parts: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the path of a dotted name, or None; names below a free table stay as they are."""
    path: tuple[str, ...] = ()
    for number, part in enumerate(parts):
        path = (*path, part.replace("_", "-"))
        kind = SETTINGS.get(path)
        if kind is None and part and path[:-1] in OPEN and number == len(parts) - 1:
            return (*path[:-1], part)  # a hyperparameter's name is written as it is
        if kind is None or not part:
            return None
        if kind == "table":
            rest = parts[number + 1 :]
            return (*path, *rest) if all(rest) else None
    return path if len(path) > 1 else None


def parse_value(text: str, path: tuple[str, ...]) -> Any:
    """Read a value as TOML if that fits the setting, else as text; lists may be separated by commas."""
    kind = SETTINGS.get(path)  # None below a free table, which takes any type
    text = text.strip()
    try:
        parsed = tomllib.loads(f"value = {text}")
        # A line break in the text would begin a second key.
        value: Any = parsed["value"] if len(parsed) == 1 else text
    except (RecursionError, ValueError):
        # Besides what is not TOML: brackets too deep for the parser, or more digits than Python converts.
        value = text
    # A text needs no quotes here, also where TOML sees a number or a date.
    if kind == "text" and not isinstance(value, str):
        return text
    if kind == "list" and not isinstance(value, list):
        return [
            part.strip() for part in (value if isinstance(value, str) else text).split(",") if part.strip()
        ]
    if kind in {"flag", None} and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    return value


def merge(data: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """Return the data with the overrides applied in order; a value in place of a table stays, for validation to report."""
    merged: dict[str, Any] = copy.deepcopy(dict(data))
    for override in overrides:
        table: Any = merged
        for part in override.path[:-1]:
            table = table.setdefault(part, {}) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table[override.path[-1]] = override.value
    return merged
