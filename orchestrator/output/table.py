"""Tables for a terminal: they fit its width, and text from elsewhere cannot move its cursor."""

import io
import re
import shutil
import textwrap
from collections.abc import Sequence

from gpu_offload.orchestrator.output.console import one_line
from gpu_offload.orchestrator.output.markdown import is_numeric

NARROWEST = 40
_DATE = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d)")
"""A day and its time, which stay on one line."""
GAP = 2
"""Spaces between two columns."""
UNBROKEN = 24
"""Letters of a word that a column is made wide enough for; longer ones are broken."""


def terminal_width() -> int:
    """Return the columns of the terminal, `COLUMNS` if set, 80 where there is none."""
    return max(NARROWEST, shutil.get_terminal_size((80, 24)).columns)


TYPED = frozenset({"run", "version", "number", "commit"})
"""Headings of columns whose cells are typed into other commands: they are never broken, whatever the width."""


def text_table(rows: Sequence[Sequence[str]], *, width: int = 80, indent: int = 0) -> str:
    """Render rows, the headings first, in at most `width` columns: numbers to the right, long cells broken at spaces.

    If that is too narrow for the longest words, each row becomes a list. Empty columns and all-empty headings are left
    out.
    """
    # Slow to import, and most commands draw no table.
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    head, *body = rows
    kept = [i for i in range(len(head)) if any(i < len(row) and row[i] for row in body)]
    if not body or not kept:
        return ""
    shown = [[one_line(row[i]) if i < len(row) else "" for i in kept] for row in (head, *body)]
    columns = [list(column) for column in zip(*shown, strict=True)]
    typed = [head[i] in TYPED for i in kept]
    numbers = [is_numeric(column[1:]) and not id_ for column, id_ in zip(columns, typed, strict=True)]
    widths = _allotted(columns, typed, numbers, width - indent)
    if widths is None:
        return _listed(shown, width, indent)
    table = Table(box=None, show_header=any(head), pad_edge=False, padding=(0, GAP, 0, 0), header_style="")
    for title, room, number in zip(shown[0], widths, numbers, strict=True):
        table.add_column(Text(title), justify="right" if number else "left", width=room, overflow="fold")
    for row in shown[1:]:
        table.add_row(*map(Text, row))
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(Padding(table, (0, 0, 0, indent), expand=False), soft_wrap=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _allotted(
    columns: Sequence[Sequence[str]], typed: Sequence[bool], numbers: Sequence[bool], width: int
) -> list[int] | None:
    """Divide `width` between columns: numbers whole where that is possible, then words; None where no word fits."""
    full = [max(map(len, column)) for column in columns]
    words = [
        # A date and its time are measured as one word, because they stay on one line.
        max(len(word) for cell in column for word in (_DATE.sub(r"\1-\2", cell).split() or [""]))
        for column in columns
    ]
    widths = [
        all_ if id_ else min(word, UNBROKEN) for all_, word, id_ in zip(full, words, typed, strict=True)
    ]
    left = width - sum(widths) - GAP * (len(columns) - 1)
    if left < 0:
        return None
    # Numbers first: one that is broken reads as two.
    for i in sorted(range(len(columns)), key=lambda i: (not numbers[i], full[i] - widths[i])):
        more = min(left, full[i] - widths[i])
        widths[i], left = widths[i] + more, left - more
    return widths


def _listed(rows: Sequence[Sequence[str]], width: int, indent: int) -> str:
    """Render each row as its first cell, with what stands before it, and below it the others by their headings."""
    head, *body = rows
    first = 1 + next((i for i, title in enumerate(head) if title), 0)
    lines = []
    for row in body:
        cells = [(head[first - 1], " ".join(cell for cell in row[:first] if cell), 0)]
        named = zip(head[first:], row[first:], strict=True)
        cells += [(title, f"{title}: {cell}" if title else cell, GAP) for title, cell in named if cell]
        for title, text, deeper in cells:
            margin = " " * (indent + deeper)
            lines += textwrap.wrap(
                text,
                width,
                initial_indent=margin,
                subsequent_indent=margin + " " * GAP,
                break_long_words=title not in TYPED,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def wrapped_lines(text: str, *, width: int) -> str:
    """Break each line of a text between words, and hang what follows below its beginning."""
    lines = []
    for line in text.splitlines():
        indent = re.match(r"\s*", line)[0]  # type: ignore[index]
        lines.append(wrapped(line.strip(), width=width, indent=indent, hanging=f"{indent}  "))
    return "\n".join(lines)


def for_terminal(text: str) -> str:
    """Break each line of a text to fit this terminal."""
    return wrapped_lines(text, width=terminal_width())


def wrapped(text: str, *, width: int, indent: str = "", hanging: str | None = None) -> str:
    """Break a text into lines of at most `width` columns; a longer word stays whole, and so does `10 %`."""
    # textwrap breaks no line at a no-break space, which becomes a space again below.
    together = re.sub(r"(?<=\d) (?=(?:%|s|min|h|d|[kMGT]?B)\b|%)", "\u00a0", one_line(text))
    return textwrap.fill(
        together,
        width,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    ).replace("\u00a0", " ")
