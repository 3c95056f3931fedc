"""A run's report for a terminal: the outcome, what was expected, and the tables that matter."""

from gpu_offload.orchestrator.output.table import text_table, wrapped
from gpu_offload.orchestrator.report.content import Report
from gpu_offload.orchestrator.report.outcome import explained, glance_rows, headline, missed
from gpu_offload.orchestrator.report.rows import (
    Rows,
    alternative_rows,
    attempt_rows,
    class_rows,
    cost_rows,
    fact_rows,
    metric_rows,
)

KEYS = ("training key", "dataset")
"""Facts whose first digits are enough for a reader."""


def report_text(report: Report, *, width: int = 80) -> str:
    """Render a report in at most `width` columns, without the control characters that a run may have written."""
    sections: tuple[tuple[str, Rows], ...] = (
        ("Metrics", metric_rows(report)),
        ("By class", class_rows(report)),
        # One attempt that went as planned is described above.
        ("Attempts", _attempts(report) if len(report.attempts) > 1 else []),
        ("Cost", [] if report.is_on_cpu else [(row[0], row[1], row[5]) for row in cost_rows(report)]),
        ("It could have cost", [] if report.is_on_cpu else alternative_rows(report)),
        ("Facts", [(name, value[:16] if name in KEYS else value) for name, value in fact_rows(report)]),
    )
    parts = [
        wrapped(headline(report), width=width),
        wrapped(explained(report), width=width),
        text_table(glance_rows(report), width=width),
        wrapped(missed(report), width=width),
        wrapped(report.run.why, width=width),
    ]
    for title, rows in sections:
        if len(rows) > 1 and (table := text_table(rows, width=width - 2, indent=2)):
            parts.append(f"{title}\n{table}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _attempts(report: Report) -> Rows:
    """Return the attempts without what a terminal has no room for."""
    return [
        (number, offer, lasted, epochs, end, why)
        for number, offer, _, _, lasted, epochs, end, why in attempt_rows(report)
    ]
