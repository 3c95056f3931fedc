"""Escaped Markdown: tables and folded details."""

import html
import re
from collections.abc import Callable, Sequence


def escape_markdown(text: str) -> str:
    """Make foreign text harmless in GitHub's Markdown, also in a table's cell: it shows as it is written.

    HTML, links, images, mentions, emphasis, code and line breaks lose their meaning; control characters and direction
    marks become spaces. Parentheses stay: without brackets before them they mean nothing. GitHub makes a link of what
    begins with `www.` too (https://github.github.com/gfm/#autolinks-extension-).
    """
    # Replaced are what moves a terminal's cursor or a reader's eye: controls, line ends, direction marks.
    plain = re.sub(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]", " ", text)
    # Written as a number, a character is seen by no Markdown rule, and shows as itself.
    rules = r"([\\`*_{}\[\]#+!|~@$]|(?<=\w):(?=//)|(?i:(?<=www)\.))"
    return re.sub(rules, lambda found: f"&#{ord(found[0])};", html.escape(plain, quote=False))


NUMBER = re.compile(r"[-+<]*\$?\d[\d.,:/%]*(?:e[-+]\d+)?(?: (?:s|min|h|d|\d+))*(?: \(at most .+\))?")
"""A number, an amount, a time or a length of time: what is read down a column."""


def titled(title: str, text: str) -> str:
    """Put a heading over a text; empty where the text is."""
    return f"#### {title}\n\n{text}" if text else ""


def table(
    rows: Sequence[Sequence[str]], *, bold: Callable[[Sequence[str]], bool] = lambda _row: False
) -> str:
    """Render rows, the headings first; numbers stand to the right and are not broken. Empty for headings alone.

    Rows that `bold` picks are bold, their first cell apart.
    """
    if len(rows) < 2:
        return ""
    head, *body = rows
    numeric = [is_numeric([row[i] for row in body if i < len(row)]) for i in range(len(head))]
    rule = "|" + "|".join(" --: " if number else " --- " for number in numeric) + "|"
    return "\n".join([_row(head), rule, *(_row(row, numeric, bold=bold(row)) for row in body)])


def is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, amounts or times only."""
    return any(cells) and all(NUMBER.fullmatch(cell) for cell in cells if cell)


def _row(cells: Sequence[str], numeric: Sequence[bool] = (), *, bold: bool = False) -> str:
    shown = [escape_markdown(cell) for cell in cells]
    shown = [
        # A number that is broken at its space reads as two.
        cell.replace(" ", "\u00a0") if i < len(numeric) and numeric[i] else cell
        for i, cell in enumerate(shown)
    ]
    return (
        "|"
        + "|".join(f" **{cell}** " if bold and i and cell else f" {cell} " for i, cell in enumerate(shown))
        + "|"
    )


def details(title: str, text: str) -> str:
    """Fold a text away under a title of our own words; empty where the text is."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>" if text else ""
