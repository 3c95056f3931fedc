"""Line numbers of keys in a TOML file."""

import re
import tomllib
from bisect import bisect_right

KeyPath = tuple[str | int, ...]
"""The way to a value: names of keys, and indexes into arrays."""


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, counted from 1, of every key, table and array element of a valid TOML document.

    The standard library's parser keeps no positions. It has accepted the document, so this only finds where keys and
    values begin and end.
    """
    return _Scanner(text).scan()


class _Scanner:
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
        # Commas count as space: the parser has checked where they are.
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
            # Below `[[a]]`, `[a.b]` belongs to the newest element of `a`.
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
    # A text in three quotes may end with one or two quotes of its own.
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'"
    r"|[^,\]}\n#]+",
    re.DOTALL,
)
