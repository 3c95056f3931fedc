"""A YAML document as text, lists and mappings: read as hostile input, and exactly as it is written.

YAML 1.1 would turn the class `no` into False and `1:30` into 90, and an alias lets a few bytes stand for gigabytes.
So scalars stay text here, and what a data.yaml does not need (aliases, merge keys, tags, deep nesting) is refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from gpu_offload.dataset.finding import FormError

MAX_DEPTH: Final = 20
MAX_VALUES: Final = 400_000
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_CORE_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")
)

Value = str | None | list["Value"] | dict[str, "Value"]


@dataclass
class Document:
    """A mapping, with the line of each of its keys."""

    values: dict[str, Value]
    lines: dict[str, int]


@dataclass
class _Open:
    """A list or mapping that is being read."""

    is_mapping: bool
    items: list[Value] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def read_document(text: str) -> Document:
    """Read one YAML document whose top is a mapping.

    Raises:
        FormError: If it is none, or holds an alias, a tag beyond the core ones, a merge key, a key twice, more than
            MAX_VALUES values or lists deeper than MAX_DEPTH.
    """
    import yaml  # type: ignore[import-untyped,unused-ignore]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Builder().build(yaml, yaml.parse(text, Loader=loader))
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        problem = getattr(fault, "problem", None) or type(fault).__name__
        raise FormError(
            f"is no YAML: {problem}; correct it", mark.line + 1 if mark is not None else None
        ) from None
    except (RecursionError, ValueError) as fault:
        if isinstance(fault, FormError):
            raise
        raise FormError(f"is no YAML: {type(fault).__name__}; correct it", None) from None


class _Builder:
    """Builds a document from the parser's events, with a stack of its own: no depth or alias can exhaust it."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._lines: dict[str, int] = {}
        self._top: Value = None
        self._count = 0

    def build(self, yaml: Any, events: Iterator[Any]) -> Document:
        documents = 0
        for event in events:
            line = event.start_mark.line + 1
            _refuse_extras(yaml, event, line)
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise FormError("holds more than one document; keep the first", line)
            elif isinstance(event, yaml.ScalarEvent):
                is_null = event.implicit[0] and event.value in _NULL  # implicit: without quotes
                self._add(None if is_null else event.value, line)
            elif isinstance(event, yaml.CollectionStartEvent):
                if len(self._open) >= MAX_DEPTH:
                    raise FormError(f"is nested more than {MAX_DEPTH} deep; write it flat", line)
                self._open.append(_Open(isinstance(event, yaml.MappingStartEvent)))
            elif isinstance(event, yaml.CollectionEndEvent):
                self._add(_closed(self._open.pop()), line)
        if not isinstance(self._top, dict):
            raise FormError("must be a mapping with train, val and names", None)
        return Document(self._top, self._lines)

    def _add(self, value: Value, line: int) -> None:
        self._count += 1
        if self._count > MAX_VALUES:
            raise FormError(f"holds more than {MAX_VALUES} values; a data.yaml is small", line)
        if not self._open:
            self._top = value
            return
        parent = self._open[-1]
        # A mapping's events are key, value, key, value; only the keys at the top are wanted with their lines.
        is_key = parent.is_mapping and not len(parent.items) % 2
        if len(self._open) == 1 and is_key and isinstance(value, str):
            self._lines.setdefault(value, line)
        parent.items.append(value)
        parent.lines.append(line)


def _refuse_extras(yaml: Any, event: Any, line: int) -> None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise FormError("holds an anchor or alias (& or *); write the value out", line)
    if getattr(event, "tag", None) not in (None, "!", *_CORE_TAGS):
        raise FormError(f"holds the tag {str(event.tag)[:60]!r}; write plain values", line)


def _closed(collection: _Open) -> Value:
    if not collection.is_mapping:
        return collection.items
    result: dict[str, Value] = {}
    keys, values = collection.items[0::2], collection.items[1::2]
    for key, value, line in zip(keys, values, collection.lines[0::2], strict=True):
        if key is None or not isinstance(key, str):
            raise FormError("holds a key that is no text or number; correct it", line)
        if key == "<<":
            raise FormError("holds a merge key (<<); write the values out", line)
        if key in result:
            raise FormError(f"gives {key[:60]!r} twice; remove one", line)
        result[key] = value
    return result
