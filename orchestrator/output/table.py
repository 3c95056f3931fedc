"""Tables for a terminal: they fit its width, and text from elsewhere cannot move its cursor."""

import io
import re
import shutil
import textwrap
from collections.abc import Sequence

from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.output.markdown import is_numeric

NARROWEST = 40
SHORTEST = 5
"""Columns that any cell needs at least."""
WORD = 12
"""Columns that a cell of words needs at least."""


def terminal_width() -> int:
    """Return the columns of the terminal, `COLUMNS` if set, 80 where there is none."""
    return max(NARROWEST, shutil.get_terminal_size((80, 24)).columns)


TYPED = frozenset({"run", "version", "number"})
"""Headings of columns whose cells are typed into other commands: they are never broken, whatever the width."""


def text_table(rows: Sequence[Sequence[str]], *, width: int = 80, indent: int = 0) -> str:
    """Render rows, the headings first, in at most `width` columns: numbers to the right, long cells wrapped.

    A table is wider than that only where `TYPED` columns leave no room. Columns that are empty in every row are left
    out, and so are headings that are all empty.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    head, *body = rows
    kept = [i for i in range(len(head)) if any(i < len(row) and row[i] for row in body)]
    if not body or not kept:
        return ""
    columns = [[row[i] for row in body if i < len(row)] for i in kept]
    widths = [max(map(len, (head[i], *cells))) + 2 for i, cells in zip(kept, columns, strict=True)]
    typed = [head[i] in TYPED for i in kept]
    numbers = [is_numeric(cells) and not id_ for cells, id_ in zip(columns, typed, strict=True)]
    # Numbers stay whole as long as that leaves room for words.
    least = [
        w if number or id_ else min(w, WORD) for w, number, id_ in zip(widths, numbers, typed, strict=True)
    ]
    needed = sum(least)
    whole = sum(widths) + indent <= width
    table = Table(box=None, show_header=any(head), pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for i, number, id_ in zip(kept, numbers, typed, strict=True):
        no_wrap = whole or id_ or (number and needed + indent <= width)
        table.add_column(
            Text(head[i]), justify="right" if number else "left", no_wrap=no_wrap, overflow="fold"
        )
    for row in body:
        table.add_row(*(Text(plain(row[i]) if i < len(row) else "") for i in kept))
    stream = io.StringIO()
    room = sum(w if id_ else min(w, SHORTEST) for w, id_ in zip(widths, typed, strict=True)) + indent
    console = Console(
        file=stream, width=max(width, room), color_system=None, force_terminal=False, legacy_windows=False
    )
    console.print(Padding(table, (0, 0, 0, indent), expand=False), soft_wrap=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def wrapped_lines(text: str, *, width: int) -> str:
    """Break each line of a text between words, and hang what follows below its beginning."""
    lines = []
    for line in text.splitlines():
        indent = re.match(r"\s*", line)[0]  # type: ignore[index]
        lines.append(wrapped(line.strip(), width=width, indent=indent, hanging=f"{indent}  "))
    return "\n".join(lines)


def wrapped(text: str, *, width: int, indent: str = "", hanging: str | None = None) -> str:
    """Break a text into lines of at most `width` columns; a longer word stays whole, and so does `10 %`."""
    together = re.sub(r"(?<=\d) (?=(?:%|s|min|h|d|[kMGT]?B)\b|%)", "\u00a0", plain(text).replace("\n", " "))
    return textwrap.fill(
        together,
        width,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    ).replace("\u00a0", " ")
