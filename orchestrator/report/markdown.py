"""A run's report as Markdown for a job summary or an issue: diagrams that GitHub draws, each beside its table."""

import re
from collections.abc import Sequence

from gpu_offload.orchestrator.output.markdown import details, escape_markdown, table, titled
from gpu_offload.orchestrator.output.metrics import curve_name, main_curve
from gpu_offload.orchestrator.output.units import human_number, utc
from gpu_offload.orchestrator.report.content import Report, drawable, is_drawable
from gpu_offload.orchestrator.report.outcome import explained, glance_rows, headline, missed
from gpu_offload.orchestrator.report.rows import (
    Rows,
    alternative_rows,
    attempt_rows,
    class_rows,
    cost_rows,
    estimate_rows,
    fact_rows,
    metric_rows,
    where_rows,
)

LIMIT = 900_000
"""Bytes: a job's summary holds 1 MiB a step, and what is over it is lost without a word."""

MOST_POINTS = 60


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
    """Render a report in the order of a job summary; text from a run is escaped.

    Whole parts that do not fit `LIMIT` are left out: half a diagram would swallow what follows it.
    """
    parts = [
        f"### {escape_markdown(headline(report))}",
        escape_markdown(explained(report)),
        table(glance_rows(report)),
        escape_markdown(missed(report)),
        f"**Where and why.** {escape_markdown(report.run.why)}",
        titled("Metrics", table(metric_rows(report))),
        details("By class", table(class_rows(report))),
        *charts(report),
        titled("Estimate and actual", table(estimate_rows(report))),
        titled("Cost", table(cost_rows(report))),
        titled("It could have cost", table(alternative_rows(report))),
        titled("Attempts", table(attempt_rows(report))),
        gantt(report),
        details("What was offered", table(where_rows(report))),
        details("Facts", table(fact_rows(report))),
    ]
    there = [part for part in parts if part]
    kept: list[str] = []
    room = LIMIT
    for part in there:
        size = len(part.encode()) + 2
        if size <= room:
            kept.append(part)
            room -= size
    if len(kept) < len(there):
        kept.append("(What is too long for a summary is left out; `offload report` has all of it.)")
    return "\n\n".join(kept) + "\n"


def gantt(report: Report) -> str:
    """The timeline; it says nothing but our own words, because Mermaid has no escape for others'."""
    spans = drawable(report.spans)
    if not spans:
        return ""
    lasted = max(span.end for span in spans) - min(span.start for span in spans)
    tick, written = next((t, f) for longest, t, f in TICKS if lasted <= longest)
    # `x` is Unix time in milliseconds.
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
    return utc(at, "%H:%M:%S")


def charts(report: Report) -> list[str]:
    """Return the curves as diagrams, what the model is worth and whether it still learns, and as a table."""
    curves = {
        curve_name(name): values
        for name, values in report.curves.items()
        if len(values) > 1 and not name.startswith("lr/")
    }
    if not curves:
        return []
    drawn: list[str] = []
    chosen = main_curve(curves)
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
    drawn = [chart for chart in drawn if chart]
    rows: Rows = [("epoch", *curves)]
    longest = max(len(v) for v in curves.values())
    rows += [
        (str(i + 1), *(human_number(v[i], 4) if i < len(v) else "" for v in curves.values()))
        # Rounded up, so that at most MOST_POINTS rows are left.
        for i in range(0, longest, max(1, -(-longest // MOST_POINTS)))
    ]
    return ["#### Curves", *drawn, details("Every curve as a table", table(rows))]


def _chart(title: str, values: Sequence[float], *, zero: bool = False) -> str:
    """Draw one curve over the epochs, if it can be drawn; with `zero` on an axis from 0, as suits a share."""
    if not is_drawable(values):
        return ""
    step = max(1, -(-len(values) // MOST_POINTS))
    shown = values[::step]
    epochs = ", ".join(str(1 + i * step) for i in range(len(shown)))
    name = re.sub(r"[^A-Za-z0-9 ._()/-]", " ", title)
    # A share of a thousandth must not look like a steep success.
    low, high = (0.0, max(*shown, 0.1)) if zero else (min(shown), max(shown))
    if not high > low:
        high = low + max(1.0, abs(low))
    return "\n".join(
        [
            "```mermaid",
            CHART_STYLE,
            "xychart-beta",
            f'  title "{name}"',
            f'  x-axis "epoch" [{epochs}]',
            f"  y-axis {low:.4g} --> {high + abs(high) * 0.05:.4g}",
            f"  line [{', '.join(f'{v:.5g}' for v in shown)}]",
            "```",
        ]
    )
