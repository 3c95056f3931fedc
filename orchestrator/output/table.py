"""Tables for a terminal: they fit its width, and text from elsewhere cannot move its cursor."""

import io
import re
import shutil
import textwrap
from collections.abc import Sequence

from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.output.markdown import is_numeric

NARROWEST = 40
WORD = 12
"""Columns that a cell of words needs at least."""


def terminal_width() -> int:
    """Return the columns of the terminal, `COLUMNS` if set, 80 where there is none."""
    return max(NARROWEST, shutil.get_terminal_size((80, 24)).columns)


def text_table(rows: Sequence[Sequence[str]], *, width: int = 80, indent: int = 0) -> str:
    """Render rows, the headings first, in at most `width` columns: numbers to the right, long cells wrapped.

    Columns that are empty in every row are left out, and so are headings that are all empty.
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
    numbers = [is_numeric(cells) for cells in columns]
    # Numbers stay whole as long as that leaves room for words.
    needed = sum(w if number else min(w, WORD) for w, number in zip(widths, numbers, strict=True))
    whole = sum(widths) + indent <= width
    table = Table(box=None, show_header=any(head), pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for i, number in zip(kept, numbers, strict=True):
        no_wrap = whole or (number and needed + indent <= width)
        table.add_column(
            Text(head[i]), justify="right" if number else "left", no_wrap=no_wrap, overflow="fold"
        )
    for row in body:
        table.add_row(*(Text(plain(row[i]) if i < len(row) else "") for i in kept))
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(Padding(table, (0, 0, 0, indent), expand=False), soft_wrap=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


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
