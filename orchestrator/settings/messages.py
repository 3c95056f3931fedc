"""Messages for invalid settings: the setting, the fault, and what to write instead. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from gpu_offload.infra.origin import documentation
from gpu_offload.orchestrator.settings.overrides import SETTINGS

_NOUNS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a number we can count to",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text in quotes",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
_EXAMPLES = {
    "string_type": 'write "..."',
    "bool_type": "write true or false, without quotes",
    "int_type": "write digits without quotes",
    "float_type": "write digits without quotes",
    "tuple_type": 'write ["...", "..."]',
    "list_type": 'write ["...", "..."]',
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault of the merged data whose source is not known yet."""

    path: tuple[str | int, ...]
    message: str
    remedy: str


def explain(errors: Sequence[Mapping[str, Any]], table: tuple[str, ...] = ()) -> list[Problem]:
    """Turn pydantic's errors into one problem for each setting; `table` is what holds the sections."""
    problems = [_explain(error, table) for error in errors]
    # `pth` in place of `path` is one fault, not an unknown name and a missing setting.
    typed = {
        (*path[:-1], meant)
        for error in errors
        if error["type"] == "extra_forbidden" and (meant := _meant(path := tuple(error["loc"])))
    }
    return [
        problem
        for problem, error in zip(problems, errors, strict=True)
        if not (error["type"] == "missing" and tuple(error["loc"]) in typed)
    ]


def _explain(error: Mapping[str, Any], table: tuple[str, ...]) -> Problem:
    path: tuple[str | int, ...] = tuple(error["loc"])
    name = dotted(path)
    kind, context, value = error["type"], error.get("ctx") or {}, error.get("input")
    if kind == "setting":
        return Problem(path, f"{name}: {context['text']}", context["remedy"])
    if kind == "missing":
        return Problem(
            path,
            f"{'dataset.path' if name == 'dataset' else name} is missing",
            f'say where the images are: in [{dotted((*table, "dataset"))}], path = "FOLDER" (`offload init` writes it)',
        )
    if kind == "extra_forbidden":
        return Problem(path, f"{name} is not a setting", _instead(path, table))
    if kind in _NOUNS:
        noun = _NOUNS[kind]
        remedy = _EXAMPLES.get(kind) or (
            f"write [{dotted((*table, *path))}]" if noun == "a table" else "write one that is"
        )
        if kind == "int_type" and isinstance(value, float) and math.isfinite(value):
            remedy = f"write {math.floor(value)} or {math.ceil(value)}"
        return Problem(path, f"{name} is {shown(value)}, not {noun}", remedy)
    if kind in {"literal_error", "enum"}:
        return Problem(path, f"{name} is {shown(value)}", f"write {context.get('expected')}")
    bounds = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}
    bounds |= {"greater_than": ("gt", "more than"), "less_than": ("lt", "less than")}
    if kind in bounds:
        key, words = bounds[kind]
        return Problem(path, f"{name} is {shown(value)}", f"write {words} {context[key]:g}")
    return Problem(path, f"{name}: {error['msg']}", f"see {documentation('configuration.md')}")


def _names(table: tuple[str | int, ...]) -> list[str]:
    return [path[-1] for path in SETTINGS if path[:-1] == table]


def _meant(path: tuple[str | int, ...]) -> str | None:
    """Return the known name closest to an unknown one."""
    wrong = str(path[-1]).lower().replace("_", "-")
    near = get_close_matches(wrong, _names(path[:-1]), 1, 0.6)
    return near[0] if near else None


def _instead(path: tuple[str | int, ...], table: tuple[str, ...]) -> str:
    if meant := _meant(path):
        return f"did you mean {meant}?"
    wrong = str(path[-1]).lower().replace("_", "-")
    for known in SETTINGS:
        if known[-1] == wrong and len(known) > 1:
            return f"it belongs in [{dotted((*table, *known[:-1]))}]"
    names = _names(path[:-1])
    return f"{'the sections are' if len(path) == 1 else 'here may stand'} {', '.join(names)}"


def dotted(path: tuple[str | int, ...]) -> str:
    """Format a path: `ec2.regions[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def shown(value: object) -> str:
    """Show a value in a message, shortened."""
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
