"""The job summary of a run: the outcome at a glance, what to do next, then the details.

Each section has several lengths. If the summary is too long, the least important section is shortened first, a length
at a time, and says what it leaves out.
"""

from collections.abc import Mapping
from dataclasses import replace

from gpu_offload.orchestrator.github.section import (
    FEW_ROWS,
    LAST_ATTEMPTS,
    LIMIT,
    LONGEST,
    SummaryContext,
    SummarySection,
    bounded,
    fitted,
    model_line,
    not_stable,
    rows_section,
    safe_url,
    shorter_row,
    without_path,
)
from gpu_offload.orchestrator.output.markdown import details, escape_markdown, table
from gpu_offload.orchestrator.output.metrics import metric_table, named
from gpu_offload.orchestrator.output.units import human_number
from gpu_offload.orchestrator.report.content import Before, Report
from gpu_offload.orchestrator.report.markdown import charts, gantt
from gpu_offload.orchestrator.report.outcome import (
    glance_rows,
    headline,
    likely_causes,
    missed,
    money,
    place,
)
from gpu_offload.orchestrator.report.rows import (
    Rows,
    alternative_rows,
    attempt_rows,
    class_rows,
    cost_rows,
    estimate_rows,
    fact_rows,
    where_rows,
)

LOG_LINES = 40

LOWER_IS_BETTER = ("loss",)


def run_summary(report: Report, context: SummaryContext, *, limit: int = LIMIT) -> str:
    """Render a run: the outcome at a glance, what to do next, the model, then time, money and attempts."""
    # An interruption loses nothing; a failure needs the reader.
    alert = "WARNING" if context.can_resume else "CAUTION"
    trouble = f"> [!{alert}]\n> {bounded(without_path(context.trouble))}" if context.trouble else ""
    following = next_step(report, context)
    begin = "" if report.status == "published" and not context.detached else "**Next:** "
    sections = [
        SummarySection((f"### {_heading(report, context)}",), 99),
        SummarySection((trouble,), 98),
        SummarySection((not_stable(context),), 97),
        SummarySection((table(glance_rows(report, context.before)), ""), 94),
        SummarySection((escape_markdown(missed(report)),), 93),
        SummarySection((f"{begin}{following}" if following else "",), 97),
        SummarySection((model_line(context),), 95),
        SummarySection(
            (f"**Where and why.** {bounded(context.moves or context.because or report.run.why)}",), 96
        ),
        SummarySection((f"**Asked for by hand:** {bounded(context.reason)}" if context.reason else "",), 96),
        _log(context.log),
        *_metrics(report, context.before or report.before),
        SummarySection(("\n\n".join(charts(report)), "(the curves are too long for this page)"), 30),
        _pictures(context),
        *_costs(report),
        _attempts(report),
        SummarySection((gantt(report), "(the timeline is too long for this page)"), 20),
        SummarySection((details("Estimate and actual", table(estimate_rows(report))), ""), 12),
        SummarySection((details("What was offered", table(where_rows(report))), ""), 10),
        SummarySection((details("Facts", table(fact_rows(report))), ""), 5),
    ]
    return fitted(sections, limit)


def _heading(report: Report, context: SummaryContext) -> str:
    if context.detached:
        return bounded(f"Training by itself on {place(report)}: run {report.run.id}")
    interrupted = context.can_resume and report.status != "published"
    return bounded(
        headline(
            report, context.before, moved=context.moved, interrupted=interrupted, leaving=bool(context.moves)
        )
    )


def next_step(report: Report, context: SummaryContext) -> str:
    """Say what the reader has to do now, or what is wrong with a published model, in Markdown; empty if that is nothing."""
    run = escape_markdown(report.run.id)
    if context.detached:
        return f"the scheduled `tend` collects and publishes the model; `offload stop {run}` ends the run before that."
    if context.moves:
        return (
            "the job `Train on a rented GPU` goes on from the last checkpoint, once its environment lets it start. If it does "
            "not, nothing is lost: the next run of this workflow goes on from there."
        )
    if context.can_resume:
        return "run this workflow again: it carries on from the last completed epoch."
    if report.status == "published":
        begin, *causes = likely_causes(report)
        return "\n".join(
            (bounded(begin), *(["", *(f"- {bounded(cause)}" for cause in causes)] if causes else ()))
        )
    if report.status == "open":
        return (
            "run this workflow again, or wait for the scheduled `tend`: the run is open and nothing is lost."
        )
    where = "the log's last lines below" if context.log else f"`offload logs {run}`"
    return (
        f"see the reason above and {where}, fix the cause and push. If the training stays the same, it continues from "
        "its last checkpoint."
    )


def metric_changes(now: Mapping[str, float], before: Before | None) -> Rows:
    """Compare metrics with those of the version before: metric, before, now, change, verdict."""
    if before is None:
        return metric_table(now)
    rows: Rows = [("metric", before.semver or "before", "now", "change", "")]
    for name, value in now.items():
        old = before.metrics.get(name)
        if old is None:
            rows.append((name, "", f"{human_number(value, 4)}", "", "new"))
            continue
        change = value - old
        lower = any(word in name for word in LOWER_IS_BETTER)
        # Less than half of the last digit that is shown.
        verdict = "the same" if abs(change) < 5e-5 else "better" if (change < 0) == lower else "worse"
        rows.append((name, f"{human_number(old, 4)}", f"{human_number(value, 4)}", f"{change:+.4f}", verdict))
    return rows


def _metrics(report: Report, before: Before | None) -> list[SummarySection]:
    if report.result is None:
        return []
    earlier = replace(before, metrics=named(before.metrics)) if before else None
    changes = metric_changes(report.metrics, earlier)
    note = "" if before else "\n\nThis is the first version: there is none to compare with."
    per_class = class_rows(report)
    more = f"(and {len(per_class) - 1 - FEW_ROWS} more classes: `offload report` has them)"
    whole = table(per_class)
    few = f"{table(per_class[: FEW_ROWS + 1])}\n\n{more}" if len(per_class) > FEW_ROWS + 1 else whole
    return [
        rows_section("Metrics", changes, 85, "and {n} more: `offload report` has them", after=note),
        SummarySection(
            (
                details("By class", whole),
                details("By class", few),
                f"({len(per_class) - 1} classes: `offload report` has their metrics)" if whole else "",
            ),
            15,
        ),
    ]


def _costs(report: Report) -> list[SummarySection]:
    """Show the bill; that of a free run is folded away, because it says nothing that the heading does not."""
    if money(report) == "free":
        bill = table(cost_rows(report)), table(alternative_rows(report))
        return [SummarySection((details("Cost", "\n\n".join(part for part in bill if part)), ""), 30)]
    return [
        rows_section("Cost", cost_rows(report), 80, "and {n} more lines: `offload report` has them"),
        rows_section("It could have cost", alternative_rows(report), 40),
    ]


def _log(text: str) -> SummarySection:
    """Fold the end of a log away, in a block that no Markdown rule reads."""
    lines = [escape_markdown(line[:LONGEST]) for line in text.splitlines()]
    if not lines:
        return SummarySection(("",), 50)

    def shown(count: int) -> str:
        return details("The log's last lines", "<pre>\n" + "\n".join(lines[-count:]) + "\n</pre>")

    return SummarySection((shown(LOG_LINES), shown(5), ""), 50)


def _attempts(report: Report) -> SummarySection:
    rows = [tuple(map(without_path, row)) for row in attempt_rows(report)]
    head, body = rows[0], rows[1:]
    if not body:
        return SummarySection(("",), 60)
    last: Rows = [head, *(shorter_row(row) for row in body[-LAST_ATTEMPTS:])]
    title = "#### Attempts\n\n"
    return SummarySection(
        (
            title + table(rows),
            f"{title}The last {len(last) - 1} of {len(body)}:\n\n{table(last)}",
            f"({len(body)} attempts: `offload report` has them)",
        ),
        60,
    )


def _pictures(context: SummaryContext) -> SummarySection:
    if context.pictures_url is None:
        return SummarySection(("",), 35)
    title = "#### What it sees\n\nPredictions on pictures that it was not trained on."
    return SummarySection((f"{title}\n\n![predictions]({safe_url(context.pictures_url)})", ""), 35)
