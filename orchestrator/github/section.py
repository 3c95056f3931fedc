"""Sections of a job summary, shortened to fit GitHub's limit."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpu_offload.orchestrator.output.markdown import escape_markdown, table
from gpu_offload.orchestrator.report.content import Before
from gpu_offload.orchestrator.report.rows import Rows


@dataclass(frozen=True, slots=True)
class SummaryContext:
    """What a summary shows in addition to the run's report."""

    because: str = ""
    """The plan's reason; the run's own where it is empty."""
    reason: str = ""
    """The words of the person who started it."""
    before: Before | None = None
    model_url: str | None = None
    pictures_url: str | None = None
    trouble: str = ""
    log: str = ""
    can_resume: bool = False
    detached: bool = False
    moves: str = ""
    """Why the job that rents continues it; empty if none does."""
    kept: bool = False
    """Whether the model is at `model_url` only after the job `keep`."""
    moved: bool = False
    candidate: str = ""
    """Why the new version did not become `stable`; empty if it did."""


LIMIT = 1_000_000
"""Bytes. GitHub keeps 1 MiB (1 048 576) of a step and drops a longer summary silently; warnings may follow this one."""

LONGEST = 2000
"""Characters of a text that others wrote."""

FEW_ROWS = 20
LAST_ATTEMPTS = 12


@dataclass(frozen=True, slots=True)
class SummarySection:
    """A part of a summary in several lengths, the longest first; the last one is a line or empty."""

    lengths: tuple[str, ...]
    weight: int
    """Sections of less weight are shortened first."""


def fitted(sections: Sequence[SummarySection], limit: int = LIMIT) -> str:
    """Join sections so that the whole has at most `limit` bytes. Raises ValueError: even the shortest do not fit."""
    chosen = [0] * len(sections)

    def joined() -> str:
        texts = (s.lengths[i] for s, i in zip(sections, chosen, strict=True))
        return "\n\n".join(text.strip("\n") for text in texts if text) + "\n"

    text = joined()
    for index in sorted(range(len(sections)), key=lambda i: sections[i].weight):
        while len(text.encode()) > limit and chosen[index] < len(sections[index].lengths) - 1:
            chosen[index] += 1
            text = joined()
    if len(text.encode()) > limit:
        raise ValueError(f"the shortest summary has {len(text.encode()):,} bytes, more than {limit:,}")
    return text


def rows_section(
    title: str, rows: Rows, weight: int, more: str = "and {n} more rows", *, after: str = ""
) -> SummarySection:
    """Return a table in three lengths: all, the first rows, and how many there are."""
    whole = table(rows)
    if not whole:
        return SummarySection(("",), weight)
    head = f"#### {title}\n\n"
    left = len(rows) - 1 - FEW_ROWS
    few = table([shorter_row(row) for row in rows[: FEW_ROWS + 1]])
    return SummarySection(
        (
            head + whole + after,
            head + few + (f"\n\n({more.format(n=left)})" if left > 0 else "") + after,
            f"({title}: {len(rows) - 1} rows, too long for this page)",
        ),
        weight,
    )


def model_line(context: SummaryContext) -> str:
    """Return the line that links to the model."""
    if context.model_url is None:
        return ""
    when = " (once the job `keep` is done)" if context.kept else ""
    return f"**Model:** <{safe_url(context.model_url)}>{when}"


def safe_url(url: str) -> str:
    """Return an address of our own store so that it cannot end the Markdown around it."""
    return "".join(c if c.isalnum() or c in "-._~:/?=&%@" else f"%{ord(c):02X}" for c in url[:LONGEST])


def bounded(text: str) -> str:
    """Escape a text that others wrote, and shorten a very long one."""
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text):,} characters)"
    return escape_markdown(short)


def not_stable(context: SummaryContext) -> str:
    """Return the warning that a version is not `stable`, with the reason; empty where it is."""
    return f"> [!WARNING]\n> Not stable: {bounded(context.candidate)}" if context.candidate else ""


def without_path(text: str) -> str:
    """Remove the path of a log on a runner, which is gone when the summary is read."""
    return re.sub(r" \(the whole log: [^()]*\)", "", text)


def shorter_row(row: Sequence[str]) -> tuple[str, ...]:
    """Return a row with its long cells cut."""
    return tuple(cell if len(cell) <= 200 else f"{cell[:200]} ..." for cell in row)
