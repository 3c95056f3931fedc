"""The file that holds the configuration: which one it is, what it says, and on which line it says it."""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE_NAME = "offload.toml"
PYPROJECT = "pyproject.toml"
TABLE = ("tool", "offload")
"""Where the configuration stands in pyproject.toml."""

KeyPath = tuple[str | int, ...]
"""The way to a value: names of keys, and indexes into arrays."""


class ConfigurationFileError(Exception):
    """A configuration file cannot be used: where, what is wrong, and what to do."""

    def __init__(self, where: str, message: str, remedy: str) -> None:
        super().__init__(f"{where}: {message}; {remedy}")
        self.where, self.message, self.remedy = where, message, remedy


@dataclass(frozen=True)
class ConfigurationFile:
    """What a file says, not yet checked, and the line of every key and array element in it."""

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

    The search ends at the root of the git repository; outside of a repository it looks only into `start`,
    so that no stranger's file in a shared parent folder is ever obeyed.

    Raises:
        ConfigurationFileError: a folder has both, or a pyproject.toml that could hold it is broken.
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
        data = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # Somebody else's broken file is our business only if our table is in it.
        return (
            re.search(rb"^\s*\[\s*tool\s*\.\s*offload\s*[.\]]", path.read_bytes(), re.MULTILINE) is not None
        )
    tool = data.get("tool", {})
    return isinstance(tool, dict) and "offload" in tool


def read_file(path: Path, label: str) -> ConfigurationFile:
    """Read a configuration file; of a `pyproject.toml`, its `[tool.offload]`.

    Raises:
        ConfigurationFileError: it cannot be read, is not UTF-8 or not TOML; with the line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigurationFileError(
            label, f"it cannot be read: {error.strerror}", "write one with `offload init`"
        ) from None
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigurationFileError(f"{label}:{line}", "it is not UTF-8", "save it as UTF-8") from None
    try:
        data: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, line = _syntax(str(error), text)
        raise ConfigurationFileError(
            f"{label}:{line}", f"it is not TOML: {message}", "mend the line (texts stand in quotes)"
        ) from None
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


def _syntax(message: str, text: str) -> tuple[str, int]:
    """Split the parser's message into text and line."""
    if match := re.search(r" \(at line (\d+), column \d+\)$", message):
        return message[: match.start()], int(match[1])
    return message.removesuffix(" (at end of document)"), len(text.rstrip("\n").split("\n"))


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, counted from 1, of every key, table and array element of a valid TOML document.

    The parser of the standard library keeps no positions. As it has accepted the document, this only has to
    know where keys and values begin and end.
    """
    return _Scanner(text).scan()


class _Scanner:
    """Walks a valid document once, from key to key."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.lines: dict[KeyPath, int] = {}
        self.last: dict[KeyPath, int] = {}
        """Index of the newest element of each array of tables."""

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self.blank():
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
        return self.lines

    def blank(self) -> bool:
        """Skip space, newlines and comments; return whether something follows."""
        match = re.compile(r"(?:[ \t\r\n,]|#[^\n]*)*").match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at < len(self.text)

    def note(self, base: KeyPath, keys: list[str], at: int) -> KeyPath:
        """Record the line of a key, and of the tables that it opens on its way."""
        path, line = base, bisect_right(self.starts, at)
        for key in keys:
            path = (*path, key)
            self.lines.setdefault(path, line)
        return path

    def header(self) -> KeyPath:
        start = self.at
        several = self.text.startswith("[[", start)
        self.at += 2 if several else 1
        keys = self.key()
        self.at += 2 if several else 1
        path: KeyPath = ()
        for key in keys[:-1]:
            path = self.note(path, [key], start)
            if path in self.last:
                path = (*path, self.last[path])
        path = self.note(path, keys[-1:], start)
        if several:
            self.last[path] = self.last.get(path, -1) + 1
            path = (*path, self.last[path])
            self.lines[path] = bisect_right(self.starts, start)
        return path

    def key(self) -> list[str]:
        """Read a dotted key and the space around it."""
        keys = []
        while True:
            self.blank()
            match = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""").match(self.text, self.at)
            if match is None:  # pragma: no cover - the parser has accepted the document
                raise ValueError(f"no key at {self.at}")
            token = match[0]
            keys.append(tomllib.loads(f"k = {token}")["k"] if token[0] in "\"'" else token)
            self.at = match.end()
            self.blank()
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def pair(self, table: KeyPath) -> None:
        start = self.at
        keys = self.key()
        path = self.note(table, keys, start)
        self.at += 1  # the equals sign
        self.blank()
        self.value(path)

    def value(self, path: KeyPath) -> None:
        if self.text[self.at] == "[":
            self.at += 1
            index = 0
            while self.blank() and self.text[self.at] != "]":
                self.lines[(*path, index)] = bisect_right(self.starts, self.at)
                self.value((*path, index))
                index += 1
            self.at += 1
        elif self.text[self.at] == "{":
            self.at += 1
            while self.blank() and self.text[self.at] != "}":
                self.pair(path)
            self.at += 1
        else:
            match = _SCALAR.match(self.text, self.at)
            self.at = match.end() if match else len(self.text)


_SCALAR = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'"
    r"|[^,\]}\n#]+",
    re.DOTALL,
)
