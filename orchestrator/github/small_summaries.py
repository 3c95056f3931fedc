"""Job summaries without a run's report: planned, skipped, rolled back, kept, cleaned up, failed."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpu_offload.dataset.finding import counted
from gpu_offload.orchestrator.github.annotations import Annotation
from gpu_offload.orchestrator.github.section import (
    FEW_ROWS,
    SummaryContext,
    SummarySection,
    bounded,
    fitted,
    model_line,
    not_stable,
    rows_section,
    safe_url,
)
from gpu_offload.orchestrator.output.markdown import escape_markdown, table
from gpu_offload.orchestrator.output.units import human_bytes, human_duration, human_money
from gpu_offload.orchestrator.plan.option import Decision, PlanReport
from gpu_offload.orchestrator.plan.receipt import receipt_markdown
from gpu_offload.orchestrator.registry.manifest import STABLE
from gpu_offload.orchestrator.registry.promote import Moved
from gpu_offload.remote_job.result import Artifact

if TYPE_CHECKING:
    from gpu_offload.orchestrator.report.rows import Rows


def plan_summary(plan: PlanReport, *, proposed: bool = False, change: str = "") -> str:
    """Render a plan: one sentence as the heading, then the receipt. `change` describes changes of the dataset."""
    sentence = plan_sentence(plan, proposed=proposed)
    short = (
        f"### {bounded(sentence)}\n\n**Why.** {bounded(plan.decision.why)}\n\n"
        "(the receipt is too long for this page: `offload plan` shows it)"
    )
    return fitted([SummarySection((receipt_markdown(plan, title=sentence, change=change), short), 5)])


def plan_sentence(plan: PlanReport, *, proposed: bool) -> str:
    """Return the outcome of a plan as one sentence."""
    subject = "Merging this" if proposed else "This"
    if plan.already_trained is not None:
        return f"{subject} trains nothing: version {plan.trained_name} has the same data and settings"
    return f"{subject} {_will(plan.decision)}"


def _will(decision: Decision) -> str:
    option = decision.option
    if option is None:
        return "will train nowhere: no place fits the limits"
    time = f"{human_duration(option.interval.likely)} (at most {human_duration(option.interval.high)})"
    if option.where == "cpu":
        return f"will train for {time} on the GitHub runner, free"
    money = f"{human_money(option.cost_likely)} (at most {human_money(option.cost_high)})"
    return f"will train for {time} on {option.offer.name} for {money}"


def _stacked(*texts: str) -> str:
    return fitted([SummarySection((text,), 9) for text in texts])


def done_summary(version: str, context: SummaryContext, *, moved: bool) -> str:
    """Render a skipped training, or a rollback if it moved `stable` back."""
    was = f", it was {context.before.name}" if context.before else ""
    title = f"Rolled back: stable is {version} again{was}" if moved else f"Already trained: version {version}"
    text = (
        "The same dataset and settings were trained before; nothing was trained again and nothing was spent."
    )
    return _stacked(f"### {bounded(title)}", not_stable(context), text, model_line(context))


def rollback_summary(done: Moved) -> str:
    """Render a rollback, or that there was nothing to roll back."""
    stable = done.aliases.get(STABLE)
    now = f": stable is {done.entry.semver or stable} again" if stable == done.entry.version else ""
    title = f"Rolled back{now}" if done.changed else "Nothing to roll back"
    lines = "\n".join(f"- {bounded(line)}" for line in done.text().splitlines())
    return _stacked(f"### {bounded(title)}", lines)


def unfinished_summary() -> str:
    """Say that an unfinished run is kept."""
    text = "The run is not finished. What it has so far is kept: run the workflow again, and it carries on."
    return f"### Kept for the next run\n\n{text}\n"


def kept_summary(address: str, model: Artifact, name: str, url: str, picture: str, *, stable: bool) -> str:
    """Render where the model of a hosted runner is kept.

    Args:
        address: The release's.
        model: The model's file.
        name: The version's number, or its digits.
        url: The model's.
        picture: The address of its predictions; "" for none.
        stable: Whether `stable` means it.
    """
    rows = table([("file", "size", "version"), ("FILE", human_bytes(model.size), name)])
    # The link is put in afterwards, because the table escapes the text of its cells.
    row = rows.replace(" FILE ", f" [{escape_markdown(model.name)}]({safe_url(url)}) ", 1)
    seen = (
        f"What it sees on pictures that it was not trained on:\n\n![predictions]({safe_url(picture)})\n\n"
        if picture
        else ""
    )
    return (
        f"### Kept: {'version' if stable else 'candidate'} {bounded(name)}\n\n{row}\n\n{seen}"
        "It stays in this repository's release until you delete it. In an application or on any machine:\n\n"
        f"```sh\noffload pull {shlex.quote(model.name)}{'' if stable else f' --version {name}'} --from {safe_url(address)}\n```\n"
    )


def clean_up_summary(runs: int, ended: Sequence[str]) -> str:
    """Render the instances that a clean-up terminated."""
    rows: Rows = [("terminated",), *((instance,) for instance in ended[:FEW_ROWS])]
    more = f"\n\nand {len(ended) - FEW_ROWS} more" if len(ended) > FEW_ROWS else ""
    return (
        f"### Clean-up: {len(ended)} terminated\n\n{table(rows)}{more}\n\n"
        f"Found by tag, rented by {counted(runs, 'run')}: the job was cancelled, or ended before it could terminate them. "
        "**Next:** run the workflow again; it carries on from the last checkpoint.\n"
    )


def trouble_summary(trouble: str) -> str:
    """Render a failure before a run began."""
    return _stacked("### gpu-offload could not do it", f"> {bounded(trouble)}")


def faults_summary(annotations: Sequence[Annotation], *, dataset: bool) -> str:
    """Render the faults of a dataset or of a configuration, one in a row."""
    errors = [one for one in annotations if one.kind == "error"]
    subject = "The dataset" if dataset else "The configuration"
    rows: Rows = [("where", "what"), *((one.place, one.message) for one in errors)]
    check = " `offload check` lists all of them on your machine." if dataset else ""
    return fitted(
        [
            SummarySection((f"### {subject} has {counted(len(errors), 'fault')}",), 9),
            SummarySection((f"Nothing was planned, trained or spent.{check}",), 8),
            rows_section("Faults", rows, 7),
        ]
    )


def tend_summary(text: str, failures: Sequence[str]) -> str:
    """Render what `tend` did, failures first."""
    lines = [line for line in text.splitlines() if line.strip()]
    rows = "\n".join(f"- {bounded(line)}" for line in lines)
    few = "\n".join(f"- {bounded(line)}" for line in lines[:FEW_ROWS])
    wrong = "\n".join(f"> {bounded(line)}" for line in failures[:FEW_ROWS])
    title = "### Tend: " + ("not everything could be done" if failures else "everything is in order")
    return fitted(
        [
            SummarySection((title,), 9),
            SummarySection((f"> [!CAUTION]\n{wrong}" if wrong else "",), 8),
            SummarySection((rows, f"{few}\n- and {len(lines) - FEW_ROWS} more: see the log"), 5),
        ]
    )
