"""A run's report as Markdown for a job summary or an issue: diagrams that GitHub draws, each beside its table."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.receipt import escape_markdown
from orchestrator.report import Report, Rows

LIMIT = 900_000
"""Characters: a job's summary holds 1 MiB a step, and what is over it is lost without a word."""

MOST_POINTS = 60


def report_markdown(report: Report) -> str:
    """Render a report; whatever comes from elsewhere is escaped."""
    parts = [
        f"### {escape_markdown(report.title)}",
        f"**Where and why.** {escape_markdown(report.run.why)}",
        details("What was offered", table(report.where_rows())),
        "#### Estimate and actual",
        table(report.estimate_rows()),
        "#### Cost",
        table(report.cost_rows()),
        table(report.alternative_rows()),
        "#### Attempts",
        table(report.attempt_rows()),
        gantt(report),
    ]
    if metrics := report.metric_rows():
        parts += ["#### Metrics", table(metrics)]
    parts += charts(report)
    parts.append(details("Facts", table(report.fact_rows())))
    text = "\n\n".join(part for part in parts if part) + "\n"
    if len(text) > LIMIT:
        text = text[:LIMIT].rpartition("\n")[0] + "\n\n(cut here: `offload report` has all of it)\n"
    return text


def table(rows: Sequence[Sequence[str]]) -> str:
    """Render rows, the headings first; empty where there are only headings."""
    if len(rows) < 2:
        return ""
    head, *body = rows
    lines = [_row(head), "|" + "|".join(" --- " for _ in head) + "|"]
    return "\n".join([*lines, *(_row(row) for row in body)])


def _row(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {escape_markdown(cell)} " for cell in cells) + "|"


def details(title: str, text: str) -> str:
    """Fold a text away under a title of our own words; empty where the text is."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>" if text else ""


def gantt(report: Report) -> str:
    """The timeline; it says nothing but our own words, because Mermaid has no escape for others'."""
    spans = [span for span in report.spans if span.end > span.start]
    if not spans:
        return ""
    lines = ["```mermaid", "gantt", "  title Timeline", "  dateFormat x", "  axisFormat %H:%M:%S"]
    for number in dict.fromkeys(span.attempt for span in spans):
        lines.append(f"  section Attempt {number}")
        lines += [
            f"  {span.phase} :{round(span.start * 1000)}, {round(span.end * 1000)}"
            for span in spans
            if span.attempt == number
        ]
    rows = table(
        [
            ("attempt", "phase", "from", "to", "seconds"),
            *(
                (str(s.attempt), s.phase, _time(s.start), _time(s.end), f"{s.end - s.start:.1f}")
                for s in spans
            ),
        ]
    )
    return "\n".join([*lines, "```"]) + "\n\n" + details("Timeline as a table", rows)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def charts(report: Report) -> list[str]:
    """Return the curves as a diagram and as a table."""
    curves = {name: values for name, values in report.curves.items() if len(values) > 1}
    if not curves:
        return []
    chosen = next((n for n in curves if re.search(r"map50(?!.?95)", n, re.IGNORECASE)), next(iter(curves)))
    values = curves[chosen]
    step = max(1, -(-len(values) // MOST_POINTS))
    shown = values[::step]
    epochs = ", ".join(str(1 + i * step) for i in range(len(shown)))
    name = re.sub(r"[^A-Za-z0-9 ._()/-]", " ", chosen)
    chart = "\n".join(
        [
            "```mermaid",
            "xychart-beta",
            f'  title "{name}"',
            f'  x-axis "epoch" [{epochs}]',
            f"  line [{', '.join(f'{v:.5g}' for v in shown)}]",
            "```",
        ]
    )
    rows: Rows = [("epoch", *curves)]
    longest = max(len(v) for v in curves.values())
    rows += [
        (str(i + 1), *(f"{v[i]:.4f}" if i < len(v) else "" for v in curves.values()))
        for i in range(0, longest, max(1, -(-longest // MOST_POINTS)))
    ]
    return ["#### Curves", chart, details("Every curve", table(rows))]
