"""A sweep's report as text, Markdown, page and JSON. Pure."""

from gpu_offload.orchestrator.output.json_text import json_text
from gpu_offload.orchestrator.output.markdown import escape_markdown, table, titled
from gpu_offload.orchestrator.output.metrics import label
from gpu_offload.orchestrator.output.table import text_table, wrapped
from gpu_offload.orchestrator.output.units import human_cost, human_duration, human_money
from gpu_offload.orchestrator.registry.semver import promotion_hint
from gpu_offload.orchestrator.report.load import Format
from gpu_offload.orchestrator.report.markup import document, html_table, prose, tiles_html
from gpu_offload.orchestrator.report.rows import Rows
from gpu_offload.orchestrator.sweep.content import SweepReport, TrialReport
from gpu_offload.orchestrator.sweep.coordinates import coordinates_svg
from gpu_offload.orchestrator.sweep.space import shown, values_text


def render_sweep(report: SweepReport, form: Format, *, width: int = 80) -> str:
    """Return a report in a form; `width` is the terminal's, for `text`."""
    if form == "json":
        return json_text(report.json()) + "\n"
    if form == "html":
        return _html(report)
    return _markdown(report) if form == "markdown" else _text(report, width)


def headline(report: SweepReport) -> str:
    """Return the outcome of a sweep in a line."""
    best = report.best
    counts = [
        f"{n} {state}" for state in ("complete", "pruned", "failed", "open") if (n := report.count(state))
    ]
    spent = f"{human_duration(report.seconds)} of training, {human_cost(report.cost_usd, report.where)}"
    if best is None or best.score is None:
        return f"{report.record.id}: no trial is complete yet ({', '.join(counts) or 'no trials'}); {spent}"
    return (
        f"{report.record.id}: {label(report.record.metric or '')} {_score(best)} with {values_text(best.values)} "
        f"(trial {best.number}); {', '.join(counts)}; {spent}"
    )


def verdict(report: SweepReport) -> str:
    """Return how far the best trial is ahead, and what to do with its model."""
    best = report.best
    if best is None:
        return report.record.closed.message if report.record.closed else ""
    parts = []
    complete = report.count("complete")
    if complete > 1:
        level = [
            t.number
            for t in report.ranked
            if t.state == "complete" and t.scores == best.scores and t is not best
        ]
        if level:
            which = f"Trial{'' if len(level) == 1 else 's'} {', '.join(map(str, level))}"
            parts.append(f"{which} scored exactly the same: between these the sweep found no difference.")
        elif best.score is not None and best.score.low is None:
            parts.append(
                "Each trial was trained once: a small lead may be luck. `seed = 5` below [sweep] gives intervals."
            )
        elif report.equals:
            numbers = ", ".join(map(str, report.equals))
            parts.append(
                f"By their seeds and folds, trial {best.number} does not differ measurably from trial {numbers}."
            )
        else:
            parts.append("It differs from every other complete trial by more than seeds and folds do.")
    if report.saved_seconds:
        saved = f"Pruning saved about {human_duration(report.saved_seconds)} of training"
        parts.append(saved + (f" and {human_money(report.saved_usd)}." if report.saved_usd else "."))
    if report.candidate:
        parts.append(f"Its model is the candidate: {promotion_hint(report.candidate)}.")
    if report.record.closed is not None and report.record.closed.why != "complete":
        parts.append(f"It ended early: {report.record.closed.message}.")
    return " ".join(parts)


def trial_rows(report: SweepReport) -> Rows:
    """Return the trials, the best first."""
    names = list(report.record.space)
    metric = label(report.record.metric or "metric")
    rows: Rows = [("trial", *names, metric, "interval", "state", "epochs", "time", "cost")]
    rows += [
        (
            str(trial.number),
            *(shown(trial.values[name]) if name in trial.values else "" for name in names),
            "" if trial.value is None else f"{trial.value:.4g}",
            ""
            if trial.score is None or trial.score.low is None
            else f"{trial.score.low:.4g} to {trial.score.high:.4g}",
            trial.state + (", known before" if trial.known == trial.trainings else ""),
            f"{trial.epochs} of {trial.of}" if trial.of else "",
            human_duration(trial.seconds) if trial.seconds else "",
            human_cost(trial.cost_usd, trial.where),
        )
        for trial in report.ranked
    ]
    return rows


def sections(report: SweepReport) -> tuple[tuple[str, Rows], ...]:
    """Return the tables by title; an empty one has only its head."""
    pruned = [
        (
            str(trial.number),
            trial.message.removeprefix("after ").partition(":")[0],
            "" if trial.value is None else f"{trial.value:.4g}",
            human_duration(trial.saved_seconds),
            human_money(trial.saved_usd) if trial.saved_usd else "",
        )
        for trial in report.ranked
        if trial.state == "pruned"
    ]
    mattered = [(name, f"{share:.2f}") for name, share in report.importance.items()]
    failed = [(str(trial.number), trial.message) for trial in report.trials if trial.state == "failed"]
    return (
        ("Trials", trial_rows(report)),
        ("What mattered", [("value", "importance"), *mattered]),
        ("Pruned", [("trial", "pruned after", "at", "saved", "saved USD"), *pruned]),
        ("Failed", [("trial", "failed because"), *failed]),
    )


def _text(report: SweepReport, width: int) -> str:
    parts = [wrapped(headline(report), width=width), wrapped(verdict(report), width=width)]
    for title, rows in sections(report):
        if len(rows) > 1:
            parts.append(f"{title}\n{text_table(rows, width=width - 2, indent=2)}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(report: SweepReport) -> str:
    parts = [f"### {escape_markdown(headline(report))}", escape_markdown(verdict(report))]
    parts += [titled(title, table(rows)) for title, rows in sections(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _html(report: SweepReport) -> str:
    best, metric = report.best, label(report.record.metric or "metric")
    ends = f"{report.count('pruned')} pruned, {report.count('failed')} failed"
    saved = f"{human_duration(report.saved_seconds)} saved by pruning"
    tiles = [
        (metric, _score(best) if best else "none yet", f"trial {best.number}" if best else ""),
        ("trials", str(len(report.trials)), ends),
        ("cost", human_cost(report.cost_usd, report.where), f"of {human_money(report.record.budget_usd)}"),
        ("training", human_duration(report.seconds), saved),
    ]
    body = tiles_html(tiles) + f"<p>{prose(verdict(report))}</p>{coordinates_svg(report)}"
    for title, rows in sections(report):
        if content := html_table(rows):
            body += f"<section><h2>{title}</h2>{content}</section>"
    return document(headline(report), body)


def _score(trial: TrialReport) -> str:
    if trial.score is None:
        return ""
    interval = "" if trial.score.low is None else f" ({trial.score.low:.4g} to {trial.score.high:.4g})"
    return f"{trial.score.mean:.4g}{interval}"
