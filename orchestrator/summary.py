"""What a reader sees on a workflow's page: the plan before, the account of the run after, and what to do next.

A summary is a list of sections, each in several lengths. What does not fit is shortened by a rule, never cut: the
least important section gives way first, a length at a time, and says what it leaves out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpu_offload.orchestrator.plan import Decision, PlanReport
from gpu_offload.orchestrator.quantity import human_bytes, human_duration, human_money
from gpu_offload.orchestrator.receipt import escape_markdown, receipt_markdown
from gpu_offload.orchestrator.report import Report, Rows, named
from gpu_offload.orchestrator.report_markdown import charts, details, gantt, table

LIMIT = 1_000_000
"""Bytes: GitHub keeps 1 MiB (1 048 576) of a step, and drops all of a longer summary without a word."""

LONGEST = 2000
"""Characters of a text from elsewhere."""

FEW_ROWS, LAST_ATTEMPTS = 20, 12

LOG_LINES = 40

LEARNT_NOTHING = 0.01
"""Of a share such as mAP50: below it, a model finds as good as nothing."""

LOWER_IS_BETTER = ("loss",)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a summary: its texts from the longest to the shortest; the last one is a line or nothing."""

    lengths: tuple[str, ...]
    weight: int
    """What weighs less gives way first."""


def fitted(sections: Sequence[Section], limit: int = LIMIT) -> str:
    """Join sections in their order so that the whole has at most `limit` bytes.

    Raises:
        ValueError: they do not fit even at their shortest, which bounded last lengths rule out.
    """
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


def plan_summary(plan: PlanReport, *, proposed: bool = False, limit: int = LIMIT) -> str:
    """Render a plan: one sentence for who reads nothing else as the heading, then the receipt.

    Args:
        plan: What was decided.
        proposed: Whether it is about code that is not merged yet.
        limit: Bytes.
    """
    sentence = plan_sentence(plan, proposed=proposed)
    short = (
        f"### {_bounded(sentence)}\n\n**Why.** {_bounded(plan.decision.why)}\n\n"
        "(the receipt is too long for this page: `offload plan` shows it)"
    )
    return fitted([Section((receipt_markdown(plan, title=sentence), short), 5)], limit)


def plan_sentence(plan: PlanReport, *, proposed: bool) -> str:
    """Say in one sentence what comes of a plan."""
    subject = "Merging this" if proposed else "This"
    if plan.already_trained is not None:
        return f"{subject} trains nothing: version {plan.already_trained} is this very training"
    return f"{subject} {_will(plan.decision)}"


def _will(decision: Decision) -> str:
    option = decision.option
    if option is None:
        return "will train nowhere: no place fits the limits"
    time = f"{human_duration(option.interval.likely)} (at most {human_duration(option.interval.high)})"
    if option.where == "cpu":
        return f"will train {time} on the free runner"
    money = f"{human_money(option.cost_likely)} (at most {human_money(option.cost_high)})"
    return f"will train {time} on {option.offer.name} for {money}"


@dataclass(frozen=True, slots=True)
class Before:
    """The version that was published before this one, to compare with."""

    version: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Around:
    """What a run's summary tells beside the run itself.

    Attributes:
        because: The plan's reason; the run's own where it is empty.
        reason: Why a person asked for it, in their words.
        before: The version before.
        model_url: Where anybody may download the model.
        pictures_url: A picture of predictions that anybody may see.
        trouble: What ended the command, if something did.
        log: The end of the training's log.
        can_resume: Whether the same command would carry on.
        detached: Whether the instance trains on by itself.
        kept: Whether the job `keep` puts the model where `model_url` says, after this one.
    """

    because: str = ""
    reason: str = ""
    before: Before | None = None
    model_url: str | None = None
    pictures_url: str | None = None
    trouble: str = ""
    log: str = ""
    can_resume: bool = False
    detached: bool = False
    kept: bool = False


def run_summary(report: Report, around: Around, *, limit: int = LIMIT) -> str:
    """Render what a run did: the outcome at a glance and what to do next, the model, then time, money and attempts."""
    # What can go on is no fault.
    alert = "WARNING" if around.can_resume else "CAUTION"
    trouble = f"> [!{alert}]\n> {_bounded(_without_path(around.trouble))}" if around.trouble else ""
    sections = [
        Section((f"### {_heading(report, around)}",), 99),
        Section((table(_glance(report, around)), ""), 94),
        Section((trouble,), 98),
        Section((f"**Next:** {next_step(report, around)}",), 97),
        Section((f"**Where and why.** {_bounded(around.because or report.run.why)}",), 96),
        Section((f"**Asked for by hand:** {_bounded(around.reason)}" if around.reason else "",), 96),
        Section((_model(around),), 95),
        _log(around.log),
        *_metrics(report, around.before),
        Section(("\n\n".join(charts(report)), "(the curves are too long for this page)"), 30),
        _pictures(around),
        _of_rows("Estimate and actual", report.estimate_rows(), 90),
        _of_rows("Cost", report.cost_rows(), 80, "and {n} more lines: `offload report` has them"),
        _of_rows("It could have cost", report.alternative_rows(), 40),
        _attempts(report),
        Section((gantt(report), "(the timeline is too long for this page)"), 20),
        Section((details("What was offered", table(report.where_rows())), ""), 10),
        Section((details("Facts", table(report.fact_rows())), ""), 5),
    ]
    return fitted(sections, limit)


def _heading(report: Report, around: Around) -> str:
    """Say how it went, for who reads nothing else."""
    if report.status == "published":
        return f"Trained: version {_bounded(report.run.version)}"
    if around.detached:
        return f"Run {_bounded(report.run.id)} trains by itself"
    if around.can_resume or report.status == "open":
        return f"Interrupted: run {_bounded(report.run.id)} can go on"
    return f"Not trained: run {_bounded(report.run.id)} {'was stopped' if report.status == 'stopped' else 'failed'}"


def _glance(report: Report, around: Around) -> Rows:
    """Where, how long, how much and how good, in a row; below it, what each is to be held against."""
    estimate, record = report.run.estimate, report.run
    expected = f"{human_duration(estimate.likely)} (at most {human_duration(estimate.high)})"
    columns = [
        ("", "actual", "expected"),
        ("where", report.attempts[-1].record.offer.name if report.attempts else "nowhere", ""),
        ("time", human_duration(report.seconds), expected),
        ("cost", human_money(report.bill.total), f"limit {human_money(record.max_cost_usd)}"),
    ]
    if report.attempts and (beat := report.attempts[-1].heartbeat) is not None:
        columns.append(("epochs", str(beat.epochs_completed), str(beat.epochs)))
    if (best := next(iter(report.metrics.items()), None)) is not None:
        name, value = best
        old = named(around.before.metrics).get(name) if around.before else None
        columns.append((name, f"{value:.3f}", f"before: {old:.3f}" if old is not None else "first version"))
    return list(zip(*columns, strict=True))


def done_summary(version: str, around: Around, *, moved: bool) -> str:
    """Render that a training was done before."""
    again = " `stable` points at it again." if moved else ""
    title = f"### Already trained: version {_bounded(version)}"
    text = f"This very dataset with these very settings yielded it before; nothing was trained again.{again}"
    return fitted([Section((title,), 9), Section((text,), 8), Section((_model(around),), 7)])


def kept_summary(address: str, version: str | None, url: str, size: int) -> str:
    """Render where a model is kept that a hosted runner trained; without a version, that an unfinished run is."""
    if version is None:
        text = (
            "The run is not finished. What it has so far is kept: run the workflow again, and it carries on."
        )
        return f"### Kept for the next run\n\n{text}\n"
    rows = table([("file", "size", "version"), ("model.pt", human_bytes(size), version)])
    row = rows.replace(" model.pt ", f" [model.pt]({_url(url)}) ", 1)
    return (
        f"### Kept: version {_bounded(version)}\n\n{row}\n\n"
        "It stays in this repository's release until somebody deletes it. In an application or on any machine:\n\n"
        f"```sh\noffload pull model.pt --from {_url(address)}\n```\n"
    )


def clean_up_summary(runs: int, ended: Sequence[str]) -> str:
    """Render what a clean-up found by tag; `ended` are the instances that it terminated."""
    if not ended:
        return f"### Clean-up: nothing was left\n\nLooked by tag for what {_counted(runs)} had rented.\n"
    rows: Rows = [("terminated",), *((instance,) for instance in ended[:FEW_ROWS])]
    more = f"\n\nand {len(ended) - FEW_ROWS} more" if len(ended) > FEW_ROWS else ""
    return (
        f"### Clean-up: {len(ended)} terminated\n\n{table(rows)}{more}\n\n"
        f"Found by tag, rented by {_counted(runs)}: the job was cancelled, or ended before it could do this itself. "
        "**Next:** run the workflow again; it carries on from the last checkpoint.\n"
    )


def _counted(runs: int) -> str:
    return "one run" if runs == 1 else f"{runs} runs"


def trouble_summary(trouble: str, *, next_step: str = "") -> str:
    """Render a failure that left no run to tell of."""
    sections = [Section(("### gpu-offload could not do it",), 9), Section((f"> {_bounded(trouble)}",), 8)]
    return fitted([*sections, Section((f"**Next:** {next_step}" if next_step else "",), 7)])


def tend_summary(text: str, failures: Sequence[str]) -> str:
    """Render what a `tend` did, a line each; failures first."""
    lines = [line for line in text.splitlines() if line.strip()]
    rows = "\n".join(f"- {_bounded(line)}" for line in lines)
    few = "\n".join(f"- {_bounded(line)}" for line in lines[:FEW_ROWS])
    wrong = "\n".join(f"> {_bounded(line)}" for line in failures[:FEW_ROWS])
    title = "### Tend: " + ("not everything could be done" if failures else "everything is in order")
    return fitted(
        [
            Section((title,), 9),
            Section((f"> [!CAUTION]\n{wrong}" if wrong else "",), 8),
            Section((rows, f"{few}\n- and {len(lines) - FEW_ROWS} more: see the log"), 5),
        ]
    )


def next_step(report: Report, around: Around) -> str:
    """Say what the reader does now, in Markdown."""
    run = escape_markdown(report.run.id)
    if around.detached:
        return (
            f"nothing. The instance trains by itself; the scheduled `tend` collects and publishes run {run}, "
            f"and `offload stop {run}` ends it."
        )
    if around.can_resume:
        return "run this workflow again: it carries on from the last completed epoch."
    if report.status == "published":
        first = next(iter(report.metrics.items()), None)
        if first is not None and first[1] < LEARNT_NOTHING:
            return (
                f"train longer, or look at the labels. The model is published, but its {first[0]} is "
                f"{first[1]:.4f}: it has learnt next to nothing in {report.run.spec.epochs} epochs."
            )
        if around.kept:
            return "nothing. The job `keep` puts the model into this repository's releases in a minute."
        if around.model_url:
            return "nothing. Applications get this model with the next `offload pull`."
        return "nothing. `offload pull model.pt` downloads the model with credentials for the store."
    if report.status == "open":
        return (
            "run this workflow again, or wait for the scheduled `tend`: the run is open and nothing is lost."
        )
    where = "the log's last lines below" if around.log else f"`offload logs {run}`"
    return (
        f"see the reason above and {where}, change what it names and push. Where the training stays the same, it "
        "carries on from its last checkpoint."
    )


def metric_changes(now: Mapping[str, float], before: Before | None) -> Rows:
    """Compare metrics with those of the version before: metric, before, now, change, verdict."""
    if before is None:
        return [
            ("metric", "value"),
            *((name, f"{value:.4f}") for name, value in now.items()),
        ]
    rows: Rows = [("metric", f"before ({before.version})", "now", "change", "")]
    for name, value in now.items():
        old = before.metrics.get(name)
        if old is None:
            rows.append((name, "", f"{value:.4f}", "", "new"))
            continue
        change = value - old
        lower = any(word in name for word in LOWER_IS_BETTER)
        verdict = "the same" if abs(change) < 5e-5 else "better" if (change < 0) == lower else "worse"
        share = f" ({change / old:+.1%})" if old else ""
        rows.append((name, f"{old:.4f}", f"{value:.4f}", f"{change:+.4f}{share}", verdict))
    return rows


def _metrics(report: Report, before: Before | None) -> list[Section]:
    if report.result is None:
        return []
    told = Before(before.version, named(before.metrics)) if before else None
    changes = metric_changes(report.metrics, told)
    note = "" if before else "\n\nThere is no earlier version to compare with."
    per_class = report.class_rows()
    more = f"(and {len(per_class) - 1 - FEW_ROWS} more classes: `offload report` has them)"
    whole = table(per_class)
    few = f"{table(per_class[: FEW_ROWS + 1])}\n\n{more}" if len(per_class) > FEW_ROWS + 1 else whole
    return [
        _of_rows("Metrics", changes, 85, "and {n} more: `offload report` has them", after=note),
        Section(
            (
                details("By class", whole),
                details("By class", few),
                f"({len(per_class) - 1} classes: `offload report` has their metrics)" if whole else "",
            ),
            15,
        ),
    ]


def _log(text: str) -> Section:
    """Fold the end of a log away, in a block that no Markdown rule reads."""
    lines = [escape_markdown(line[:LONGEST]) for line in text.splitlines()]
    if not lines:
        return Section(("",), 50)

    def shown(count: int) -> str:
        return details("The log's last lines", "<pre>\n" + "\n".join(lines[-count:]) + "\n</pre>")

    return Section((shown(LOG_LINES), shown(5), ""), 50)


def _attempts(report: Report) -> Section:
    rows = [tuple(map(_without_path, row)) for row in report.attempt_rows()]
    head, body = rows[0], rows[1:]
    if not body:
        return Section(("",), 60)
    last: Rows = [head, *(_shorter(row) for row in body[-LAST_ATTEMPTS:])]
    title = "#### Attempts\n\n"
    return Section(
        (
            title + table(rows),
            f"{title}The last {len(last) - 1} of {len(body)}:\n\n{table(last)}",
            f"({len(body)} attempts: `offload report` has them)",
        ),
        60,
    )


def _of_rows(
    title: str, rows: Rows, weight: int, more: str = "and {n} more rows", *, after: str = ""
) -> Section:
    """Return a table in three lengths: all, the first rows, and how many there are."""
    whole = table(rows)
    if not whole:
        return Section(("",), weight)
    head = f"#### {title}\n\n"
    left = len(rows) - 1 - FEW_ROWS
    few = table([_shorter(row) for row in rows[: FEW_ROWS + 1]])
    return Section(
        (
            head + whole + after,
            head + few + (f"\n\n({more.format(n=left)})" if left > 0 else "") + after,
            f"({title}: {len(rows) - 1} rows, too long for this page)",
        ),
        weight,
    )


def _model(around: Around) -> str:
    if around.model_url is None:
        return ""
    when = " (once the job `keep` is done)" if around.kept else ""
    return f"**Model:** <{_url(around.model_url)}>{when}"


def _pictures(around: Around) -> Section:
    if around.pictures_url is None:
        return Section(("",), 35)
    title = "#### What it sees\n\nPredictions on pictures that it was not trained on."
    return Section((f"{title}\n\n![predictions]({_url(around.pictures_url)})", ""), 35)


def _url(url: str) -> str:
    """Return an address of our own store so that it cannot end the Markdown around it."""
    return "".join(c if c.isalnum() or c in "-._~:/?=&%@" else f"%{ord(c):02X}" for c in url[:LONGEST])


def _bounded(text: str) -> str:
    """Escape a text from elsewhere, and shorten one that is very long."""
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text):,} characters)"
    return escape_markdown(short)


def _without_path(text: str) -> str:
    """Leave out where a runner that is gone had its log."""
    return re.sub(r" \(the whole log: [^()]*\)", "", text)


def _shorter(row: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell if len(cell) <= 200 else f"{cell[:200]} ..." for cell in row)
