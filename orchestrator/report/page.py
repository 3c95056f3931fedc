"""A run's report as one HTML page that loads nothing: no script, no style sheet, no font, no picture from elsewhere."""

from collections.abc import Mapping, Sequence

from gpu_offload.orchestrator.output.metrics import curve_name
from gpu_offload.orchestrator.report.content import Report
from gpu_offload.orchestrator.report.markup import (
    document,
    html_table,
    picture_html,
    prose,
    tiles_html,
    without_controls,
)
from gpu_offload.orchestrator.report.outcome import explained, headline, missed, money, tiles
from gpu_offload.orchestrator.report.rows import (
    alternative_rows,
    attempt_rows,
    class_rows,
    cost_rows,
    estimate_rows,
    fact_rows,
    metric_rows,
    where_rows,
)
from gpu_offload.orchestrator.report.svg import curves_svg, timeline_svg


def report_html(report: Report) -> str:
    """Render a report; text from a run is escaped."""
    losses, metrics = _split(report.curves)
    title = headline(report)
    free = money(report) == "free"
    cost = html_table(cost_rows(report), total=True) + html_table(alternative_rows(report))
    quality = html_table(metric_rows(report)) + html_table(class_rows(report))
    curves = curves_svg("Metrics by epoch", metrics) + curves_svg("Losses by epoch", losses)
    sections = [
        ("Where and why", f"<p>{prose(report.run.why)}</p>"),
        ("Quality", quality + curves),
        ("Predictions", picture_html(report.picture)),
        # A bill of nothing is folded away below.
        ("Cost", "" if free else cost),
        ("Time", html_table(estimate_rows(report)) + timeline_svg(report.spans)),
        ("Attempts", html_table(attempt_rows(report))),
    ]
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections if content)
    folded = "".join(
        f"<details><summary>{name}</summary>{content}</details>"
        for name, content in (
            ("Cost", cost if free else ""),
            ("What was offered", html_table(where_rows(report))),
            ("Facts", html_table(fact_rows(report))),
        )
        if content
    )
    notes = "".join(f"<p>{prose(text)}</p>" for text in (explained(report), missed(report)) if text)
    return document(title, f"{tiles_html(tiles(report))}{notes}{body}{folded}")


def _split(
    curves: Mapping[str, Sequence[float]],
) -> tuple[dict[str, Sequence[float]], dict[str, Sequence[float]]]:
    """Separate losses from metrics: they need scales of their own. Learning rates fit neither."""
    kept = {without_controls(n): v for n, v in curves.items() if not n.startswith("lr/")}
    losses = {curve_name(n): v for n, v in kept.items() if "loss" in n}
    return losses, {curve_name(n): v for n, v in kept.items() if "loss" not in n}
