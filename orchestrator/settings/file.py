"""The configuration file: where it is, its values, and their line numbers."""

import contextlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_offload.errors import UsageError
from gpu_offload.orchestrator.settings.toml_lines import KeyPath, key_lines

FILE_NAME = "offload.toml"
PYPROJECT = "pyproject.toml"
TABLE = ("tool", "offload")
"""The table of pyproject.toml that holds the configuration."""
MAX_BYTES = 1 << 20
"""Of a configuration file; ours have a few hundred, and the parser may need minutes for more."""
_TABLE = re.compile(rb"[ \t]*\[[ \t]*tool[ \t]*\.[ \t]*offload[ \t]*[.\]]")
_DEEP = re.compile(rb"""(?<![\w"'-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){32}""")
"""A dotted key of more parts than any table has: the parser's time grows with the square of them."""


class ConfigurationFileError(UsageError):
    """A configuration file cannot be used: where, what is wrong, and what to do."""

    def __init__(self, where: str, message: str, remedy: str) -> None:
        super().__init__(f"{where}: {message}; {remedy}")
        self.where, self.message, self.remedy = where, message, remedy


@dataclass(frozen=True)
class ConfigurationFile:
    """The unchecked values of a file, and the line of every key and array element."""

    path: Path
    label: str
    """How messages name the file."""
    data: dict[str, Any]
    lines: Mapping[KeyPath, int] = field(repr=False)

    def where(self, path: KeyPath) -> str:
        """Return `file:line` of the value, or of the nearest table around it that the file has."""
        for length in range(len(path), 0, -1):
            if (line := self.lines.get(path[:length])) is not None:
                return f"{self.label}:{line}"
        return f"{self.label}:{self.lines.get((), 1)}"


def find_file(start: Path) -> Path | None:
    """Return the nearest `offload.toml`, or `pyproject.toml` with `[tool.offload]`, at or above `start`.

    The search ends at the root of the git repository; outside of one only `start` counts, so that another user's file
    in a shared parent folder is never used. Raises ConfigurationFileError: a folder has both, or a pyproject.toml that
    may hold it is broken.
    """
    start = start.resolve()
    folders = [start, *start.parents]
    roots = [number for number, folder in enumerate(folders) if (folder / ".git").exists()]
    for folder in folders[: roots[0] + 1] if roots else folders[:1]:
        own, shared = folder / FILE_NAME, folder / PYPROJECT
        if own.is_file():
            if shared.is_file() and _has_table(shared):
                raise ConfigurationFileError(
                    FILE_NAME,
                    f"{folder} has {FILE_NAME} and [tool.offload] in {PYPROJECT}",
                    f"keep {FILE_NAME} and remove the table from {PYPROJECT}",
                )
            return own
        if shared.is_file() and _has_table(shared):
            return shared
    return None


def _has_table(path: Path) -> bool:
    try:
        data = _parse(_read(path, PYPROJECT).decode(), PYPROJECT)
    except (ConfigurationFileError, UnicodeDecodeError):
        # A pyproject.toml that is broken or too large matters only if it holds our table.
        with contextlib.suppress(OSError), path.open("rb") as file:
            # In bounded lines: the file may be one line without an end.
            return any(map(_TABLE.match, iter(lambda: file.readline(MAX_BYTES), b"")))
        return False
    tool = data.get("tool", {})
    return isinstance(tool, dict) and "offload" in tool


def read_file(path: Path, label: str) -> ConfigurationFile:
    """Read a configuration file, or a pyproject.toml's `[tool.offload]`. Raises ConfigurationFileError, with the line."""
    raw = _read(path, label)
    try:
        # Editors on Windows write a byte order mark, which TOML does not allow.
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigurationFileError(f"{label}:{line}", "it is not UTF-8", "save it as UTF-8") from None
    data: Any = _parse(text, label)
    lines: dict[KeyPath, int] = key_lines(text)
    if path.name == PYPROJECT:
        tool = data.get("tool")
        data = tool.get("offload") if isinstance(tool, dict) else None
        if data is None:
            raise ConfigurationFileError(label, "it has no [tool.offload]", "write one, or name another file")
        cut = len(TABLE)
        lines = {key[cut:]: line for key, line in lines.items() if key[:cut] == TABLE}
    if not isinstance(data, dict):
        raise ConfigurationFileError(
            f"{label}:{lines.get((), 1)}", "tool.offload is not a table", "write [tool.offload.dataset]"
        )
    return ConfigurationFile(path, label, data, lines)


def _read(path: Path, label: str) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationFileError(
            label, f"it cannot be read: {error.strerror}", "write one with `offload init`"
        ) from None
    if len(raw) > MAX_BYTES:
        raise ConfigurationFileError(
            label, f"it is larger than {MAX_BYTES >> 20} MiB", "keep only settings in it"
        )
    return raw


def _parse(text: str, label: str) -> dict[str, Any]:
    if found := _DEEP.search(text.encode()):
        line = text.encode()[: found.start()].count(b"\n") + 1
        raise ConfigurationFileError(
            f"{label}:{line}", "a dotted key or text has more than 32 parts", "write it shorter"
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, line = _syntax(str(error), text)
        raise ConfigurationFileError(
            f"{label}:{line}", f"it is not TOML: {message}", "correct the line (text needs quotes)"
        ) from None
    except (RecursionError, ValueError):  # the latter for a number of thousands of digits
        raise ConfigurationFileError(
            label, "it is nested too deep or holds a huge number", "write plain tables and numbers"
        ) from None


def _syntax(message: str, text: str) -> tuple[str, int]:
    if match := re.search(r" \(at line (\d+), column \d+\)$", message):
        return message[: match.start()], int(match[1])
    return message.removesuffix(" (at end of document)"), len(text.rstrip("\n").split("\n"))
