"""A run's report as one HTML page that loads nothing: no script, no style sheet, no font, no picture from elsewhere."""

import html
import re
from collections.abc import Mapping, Sequence

from gpu_offload.orchestrator.report.content import Report
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

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#111827;background:#fff;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin:2rem 0 .5rem;border-bottom:1px solid #e5e7eb}
table{border-collapse:collapse;width:100%;font-size:.85rem;margin:.5rem 0}
th,td{text-align:left;padding:.25rem .5rem;border-bottom:1px solid #e5e7eb;vertical-align:top}
th{white-space:nowrap}td.long{overflow-wrap:anywhere}code{font-size:.9em}
tr.total td{font-weight:600}svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#374151}
.grid{stroke:#e5e7eb;stroke-width:1}
@media(prefers-color-scheme:dark){body{color:#e5e7eb;background:#111827}svg text{fill:#d1d5db}
.grid,th,td,h2{stroke:#374151;border-color:#374151}}
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Should something get past the escaping, it may neither run nor load nor send anything."""

LONG_WORD = 20
"""Letters; an instance's id has 19."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def report_html(report: Report) -> str:
    """Render a report; whatever comes from elsewhere is escaped."""
    losses, metrics = _split(report.curves)
    sections = [
        ("Where and why", f"<p>{_prose(report.run.why)}</p>" + _table(where_rows(report))),
        ("Estimate and actual", _table(estimate_rows(report))),
        ("Cost", _table(cost_rows(report), total=True) + _table(alternative_rows(report))),
        ("Timeline", timeline_svg(report.spans)),
        ("Attempts", _table(attempt_rows(report))),
        ("Metrics", _table(metric_rows(report)) + _table(class_rows(report))),
        ("Curves", curves_svg("Metrics by epoch", metrics) + curves_svg("Losses by epoch", losses)),
        ("Facts", _table(fact_rows(report))),
    ]
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections if content)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_safe(report.title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{_safe(report.title)}</h1>{body}</body></html>\n"
    )


def _split(
    curves: Mapping[str, Sequence[float]],
) -> tuple[dict[str, Sequence[float]], dict[str, Sequence[float]]]:
    """Tell losses from metrics: they need scales of their own. Learning rates fit neither."""
    kept = {_CONTROL.sub(" ", n): v for n, v in curves.items() if not n.startswith("lr/")}
    losses = {n: v for n, v in kept.items() if "loss" in n}
    return losses, {n: v for n, v in kept.items() if n not in losses}


def _safe(text: str) -> str:
    return html.escape(_CONTROL.sub(" ", text), quote=True)


def _prose(text: str) -> str:
    """Escape a sentence, and show as code what it has between backticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", _safe(text))


def _cell(text: str) -> str:
    """Return a cell of a table; only a word that would widen all of it may be broken."""
    kind = ' class="long"' if max(map(len, text.split()), default=0) > LONG_WORD else ""
    return f"<td{kind}>{_safe(text)}</td>"


def _table(rows: Sequence[Sequence[str]], *, total: bool = False) -> str:
    if len(rows) < 2:
        return ""
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{_safe(cell)}</th>" for cell in head) + "</tr>"] if any(head) else []
    for i, row in enumerate(body):
        kind = ' class="total"' if total and i == len(body) - 1 else ""
        lines.append(f"<tr{kind}>" + "".join(map(_cell, row)) + "</tr>")
    return f"<table>{''.join(lines)}</table>"
