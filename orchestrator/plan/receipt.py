"""The receipt of a decision: a table, one sentence why, then what would change it. As text and as Markdown."""

from collections.abc import Sequence

from gpu_offload.orchestrator.output.markdown import escape_markdown, plain_markdown
from gpu_offload.orchestrator.output.units import human_bytes, human_duration, human_money
from gpu_offload.orchestrator.plan.option import Option, PlanReport

SHOWN = 10
"""Rows before the rest is summed up; what was chosen is always among them."""

FEW = 4
"""Rows of a summary before the rest is folded away."""

BASES = {
    "prior, not measured": "Times are a first estimate: nothing was measured yet.",
    "calibrated": "Times rest on a measurement of this machine.",
    "history": "Times rest on earlier trainings.",
}

_HEADINGS = ("", "where", "low", "likely", "high", "cost", "at most", "fits", "basis", "reason")
_LEFT = {1, 7, 8, 9}


def receipt_text(plan: PlanReport) -> str:
    """Render a plan for a terminal or a log: fixed width, no control characters whatever the names hold."""
    rows = [_HEADINGS, *(_row(plan, option) for option in _shown(plan))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    table = [
        "  ".join(
            cell.ljust(w) if i in _LEFT else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    table.insert(1, "-" * min(110, max(len(line) for line in table)))
    hidden = len(plan.options) - len(_shown(plan))
    if hidden:
        table.append(f"   and {hidden} more, no better")
    parts = [[_dataset_line(plan)], table, [plan.decision.why]]
    if plan.already_trained is not None:
        parts.insert(1, [f"Already trained: version {plan.already_trained}. Nothing would be trained again."])
    if plan.decision.changes:
        parts.append(["What would change that:", *(f"  - {change}" for change in plan.decision.changes)])
    if plan.notes:
        parts.append(["On what it rests:", *(f"  - {note}" for note in plan.notes)])
    return "\n\n".join("\n".join(plain_markdown(line) for line in part) for part in parts) + "\n"


def receipt_markdown(plan: PlanReport, *, title: str = "") -> str:
    """Render a plan for a job summary; whatever comes from elsewhere is escaped.

    Few places are shown and few columns; the rest is folded away.

    Args:
        plan: What was decided.
        title: Instead of where and how long.
    """
    lines = [f"### {escape_markdown(title) if title else f'Plan: {_title(plan)}'}", ""]
    shown = _shown(plan)
    if plan.already_trained is not None:
        lines += [f"Already trained: version {escape_markdown(plan.already_trained)}. Nothing is spent.", ""]
        lines += _folded("Where it would run otherwise", _places(plan, shown))
    else:
        chosen = plan.decision.option
        first = [option for option in shown if option == chosen or option.where == "cpu"]
        others = sorted((o for o in shown if o not in first), key=lambda o: (not o.feasible, o.cost_likely))
        first += others[: max(0, FEW - len(first))]
        lines += [f"**Why.** {escape_markdown(plan.decision.why)}", ""]
        lines += _places(plan, [option for option in shown if option in first])
        rest = [option for option in shown if option not in first]
        hidden = len(plan.options) - len(shown)
        if rest:
            more = f"{len(rest)} more places" + (
                f" (and {hidden} others that are no better)" if hidden else ""
            )
            lines += ["", *_folded(more, _places(plan, rest))]
        if plan.decision.changes:
            lines += ["", "**What would change that**", ""]
            lines += [f"- {escape_markdown(change)}" for change in plan.decision.changes]
    notes = [_dataset_line(plan), *plan.notes]
    lines += ["", *_folded("On what it rests", [f"- {escape_markdown(note)}" for note in notes])]
    return "\n".join(lines) + "\n"


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>"]


def _places(plan: PlanReport, options: Sequence[Option]) -> list[str]:
    """Return a table of places; what is the same for all of them is said once, below it."""
    bases = {option.basis for option in options}
    headings = ["", "where", "likely", "at most", "cost", "at most", "fits"]
    if len(bases) > 1:
        headings.append("basis")
    rows = []
    for option in options:
        is_chosen = option == plan.decision.option
        cells = [
            option.offer.name,
            human_duration(option.interval.likely),
            human_duration(option.interval.high),
            human_money(option.cost_likely),
            human_money(option.cost_high),
            "yes" if option.feasible else f"no: {option.reason}",
        ]
        cells += [option.basis] if len(bases) > 1 else []
        # A time that breaks over three lines is no time at a glance.
        shown = [
            escape_markdown(cell).replace(" ", "\u00a0") if 1 <= i <= 4 else escape_markdown(cell)
            for i, cell in enumerate(cells)
        ]
        rows.append(["→" if is_chosen else "", *(f"**{cell}**" if is_chosen else cell for cell in shown)])
    lines = [
        f"|{'|'.join(f' {heading} ' for heading in headings)}|",
        f"|{'|'.join(' --: ' if 2 <= i <= 5 else ' --- ' for i in range(len(headings)))}|",
        *(f"|{'|'.join(f' {cell} ' for cell in row)}|" for row in rows),
    ]
    if len(bases) == 1 and (told := BASES.get(bases.pop())):
        lines += ["", told]
    return lines


def _title(plan: PlanReport) -> str:
    option = plan.decision.option
    if option is None:
        return "nothing fits"
    where = "the free CPU" if option.where == "cpu" and not option.cost_high else option.offer.name
    return f"{escape_markdown(where)}, {human_duration(option.interval.likely)}"


def _dataset_line(plan: PlanReport) -> str:
    counts = ", ".join(f"{n:,} {split}" for split, n in plan.images.items() if n)
    return (
        f"Dataset {plan.fingerprint[:12]}: {counts or 'no'} images, {human_bytes(plan.dataset_bytes)}; "
        f"training {plan.training_key[:12]}"
    )


def _shown(plan: PlanReport) -> list[Option]:
    """Pick the rows: what was chosen, the CPU, and the cheapest place of each instance type and market."""
    chosen = plan.decision.option
    best: dict[tuple[str | None, str | None], Option] = {}
    for option in sorted(plan.options, key=lambda o: (o != chosen, o.cost_likely, o.offer.name)):
        best.setdefault((option.instance_type, option.market), option)
    kept = list(best.values())[:SHOWN]
    return [option for option in plan.options if option in kept]


def _row(plan: PlanReport, option: Option) -> tuple[str, ...]:
    time = option.interval
    return (
        ">" if option == plan.decision.option else "",
        option.offer.name,
        human_duration(time.low),
        human_duration(time.likely),
        human_duration(time.high),
        human_money(option.cost_likely),
        human_money(option.cost_high),
        "yes" if option.feasible else "no",
        option.basis,
        option.reason,
    )
