"""A run's report as Markdown for a job summary or an issue: diagrams that GitHub draws, each beside its table."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from gpu_offload.orchestrator.receipt import escape_markdown
from gpu_offload.orchestrator.report import Report, Rows

LIMIT = 900_000
"""Characters: a job's summary holds 1 MiB a step, and what is over it is lost without a word."""

MOST_POINTS = 60

NUMBER = re.compile(r"[-+<]*\$?\d[\d.,:/%]*(?: (?:s|min|h|d|\d+))*(?: \(at most .+\))?")
"""A number, an amount, a time or a length of time: what is read down a column."""

TICKS = (
    (30, "5second", "%H:%M:%S"),
    (90, "15second", "%H:%M:%S"),
    (360, "1minute", "%H:%M"),
    (1800, "5minute", "%H:%M"),
    (7200, "20minute", "%H:%M"),
    (8 * 3600, "1hour", "%H:%M"),
    (float("inf"), "6hour", "%a %H:%M"),
)
"""For a timeline of at most so many seconds: the distance of the axis' marks, and how they are written."""


CHART_STYLE = (
    '%%{init: {"xyChart": {"height": 260}, "themeVariables": {"xyChart": {"plotColorPalette": "#0969da"}}}}%%'
)
"""Mermaid's own first colour is hardly to be seen on white."""


def report_markdown(report: Report) -> str:
    """Render a report, in the order of a job summary; whatever comes from elsewhere is escaped."""
    parts = [
        f"### {escape_markdown(report.title)}",
        f"**Where and why.** {escape_markdown(report.run.why)}",
        titled("Metrics", table(report.metric_rows())),
        details("By class", table(report.class_rows())),
        *charts(report),
        titled("Estimate and actual", table(report.estimate_rows())),
        titled("Cost", table(report.cost_rows())),
        titled("It could have cost", table(report.alternative_rows())),
        titled("Attempts", table(report.attempt_rows())),
        gantt(report),
        details("What was offered", table(report.where_rows())),
        details("Facts", table(report.fact_rows())),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    if len(text) > LIMIT:
        text = text[:LIMIT].rpartition("\n")[0] + "\n\n(cut here: `offload report` has all of it)\n"
    return text


def titled(title: str, text: str) -> str:
    """Put a heading over a text; empty where the text is."""
    return f"#### {title}\n\n{text}" if text else ""


def table(rows: Sequence[Sequence[str]]) -> str:
    """Render rows, the headings first; numbers stand to the right and are not broken. Empty for headings alone."""
    if len(rows) < 2:
        return ""
    head, *body = rows
    numeric = [_is_numeric([row[i] for row in body if i < len(row)]) for i in range(len(head))]
    rule = "|" + "|".join(" --: " if number else " --- " for number in numeric) + "|"
    return "\n".join([_row(head), rule, *(_row(row, numeric) for row in body)])


def _is_numeric(cells: Sequence[str]) -> bool:
    return any(cells) and all(NUMBER.fullmatch(cell) for cell in cells if cell)


def _row(cells: Sequence[str], numeric: Sequence[bool] = ()) -> str:
    shown = [
        escape_markdown(cell).replace(" ", "\u00a0")
        if i < len(numeric) and numeric[i]
        else escape_markdown(cell)
        for i, cell in enumerate(cells)
    ]
    return "|" + "|".join(f" {cell} " for cell in shown) + "|"


def details(title: str, text: str) -> str:
    """Fold a text away under a title of our own words; empty where the text is."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>" if text else ""


def gantt(report: Report) -> str:
    """The timeline; it says nothing but our own words, because Mermaid has no escape for others'."""
    spans = [span for span in report.spans if span.end > span.start]
    if not spans:
        return ""
    lasted = max(span.end for span in spans) - min(span.start for span in spans)
    tick, written = next((t, f) for longest, t, f in TICKS if lasted <= longest)
    lines = ["```mermaid", "gantt", "  title Timeline (UTC)", "  dateFormat x"]
    lines += [f"  axisFormat {written}", f"  tickInterval {tick}"]
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
    """Return the curves as diagrams, what the model is worth and whether it still learns, and as a table."""
    curves = {
        curve_name(name): values
        for name, values in report.curves.items()
        if len(values) > 1 and not name.startswith("lr/")
    }
    if not curves:
        return []
    drawn = []
    chosen = next((n for n in curves if n in {"mAP50", "top-1 accuracy", "top1"}), None)
    if chosen is not None:
        drawn.append(_chart(f"{chosen} by epoch", curves[chosen], zero=True))
    losses = [
        values for name, values in curves.items() if name.startswith("train ") and name.endswith("loss")
    ]
    if losses:
        drawn.append(_chart("Training loss by epoch", [sum(step) for step in zip(*losses, strict=False)]))
    if not drawn:
        name, values = next(iter(curves.items()))
        drawn.append(_chart(f"{name} by epoch", values))
    rows: Rows = [("epoch", *curves)]
    longest = max(len(v) for v in curves.values())
    rows += [
        (str(i + 1), *(f"{v[i]:.4f}" if i < len(v) else "" for v in curves.values()))
        for i in range(0, longest, max(1, -(-longest // MOST_POINTS)))
    ]
    return ["#### Curves", *drawn, details("Every curve as a table", table(rows))]


def curve_name(name: str) -> str:
    """Write a curve's name as the field does: `metrics/mAP50(B)` is `mAP50`, `train/box_loss` is `train box loss`."""
    group, slash, rest = name.partition("/")
    plain = re.sub(r"\([A-Z]\)$", "", rest if slash else name)
    return plain if group == "metrics" or not slash else f"{group} {plain}".replace("_", " ")


def _chart(title: str, values: Sequence[float], *, zero: bool = False) -> str:
    """Draw one curve over the epochs; with `zero` from nothing up, as a share of one is looked at."""
    step = max(1, -(-len(values) // MOST_POINTS))
    shown = values[::step]
    epochs = ", ".join(str(1 + i * step) for i in range(len(shown)))
    name = re.sub(r"[^A-Za-z0-9 ._()/-]", " ", title)
    # A share of a thousandth must not look like a steep success.
    low, high = (0.0, max(*shown, 0.1)) if zero else (min(shown), max(shown))
    if not high > low:
        high = low + 1
    return "\n".join(
        [
            "```mermaid",
            CHART_STYLE,
            "xychart-beta",
            f'  title "{name}"',
            f'  x-axis "epoch" [{epochs}]',
            f"  y-axis {low:.4g} --> {_above(high):.4g}",
            f"  line [{', '.join(f'{v:.5g}' for v in shown)}]",
            "```",
        ]
    )


def _above(value: float) -> float:
    """Leave some air above the highest point."""
    return value + abs(value) * 0.05
