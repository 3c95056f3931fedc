"""The receipt of a plan as text and as Markdown: a table, the reason, and what would change the decision."""

from collections.abc import Sequence

from gpu_offload.dataset.finding import counted
from gpu_offload.orchestrator.output.markdown import details, escape_markdown, table
from gpu_offload.orchestrator.output.table import text_table, wrapped
from gpu_offload.orchestrator.output.units import human_bytes, human_duration, human_money
from gpu_offload.orchestrator.plan.option import Option, PlanReport

SHOWN = 10
"""Rows before the rest is summed up; what was chosen is always among them."""

FEW = 4
"""Rows of a summary before the rest is folded away."""

BASES = {
    "prior, not measured": "a first estimate, by the sizes of model and dataset",
    "calibrated": "a measurement of this machine",
    "history": "earlier trainings",
}


def receipt_text(plan: PlanReport, *, width: int = 80, everything: bool = False) -> str:
    """Render a plan for a terminal or a log; with `everything` every place, its range and its reason."""
    shown = list(plan.options) if everything else _first(plan)
    rows: list[tuple[str, ...]] = [_HEADINGS, *(_row(plan, option) for option in shown)]
    parts = [[wrapped(_dataset_line(plan), width=width)]]
    if plan.already_trained is not None:
        done = f"Already trained: version {plan.trained_name}. Nothing would be trained again."
        parts.append([wrapped(done, width=width)])
    places = [text_table(rows, width=width)]
    if hidden := len(plan.options) - len(shown):
        places.append(f"   and {counted(hidden, 'more place')}: offload plan --all")
    parts.append(places)
    if plan.already_trained is not None and not everything:
        return _joined(parts)
    parts.append([wrapped(text, width=width) for text in (plan.decision.why, _certainty(plan)) if text])
    if plan.forecast:
        parts.append([wrapped(plan.forecast, width=width)])
    for title, texts in (
        ("Does not fit:", _unfit(shown, plan.decision.why)),
        ("What would change that:", plan.decision.changes),
        ("Based on:", (*_bases(shown, plan.notes), *plan.notes)),
    ):
        if texts:
            listed = [wrapped(text, width=width, indent="  - ", hanging="    ") for text in texts]
            parts.append([title, *listed])
    return _joined(parts)


def _certainty(plan: PlanReport) -> str:
    """Return a sentence on the certainty of the decision; empty without a choice, and where the reason contains it."""
    certainty = plan.decision.certainty
    if certainty is None or plan.decision.reversible:
        return ""
    if plan.is_guess:
        return "How sure this choice is cannot be said: its time is a guess."
    # An interval of 80 % supports neither 0 % nor 100 %.
    return f"This choice is right with {min(0.99, max(0.01, certainty)):.0%} probability, by the range of the times."


def _joined(parts: Sequence[Sequence[str]]) -> str:
    return "\n\n".join("\n".join(part) for part in parts if any(part)) + "\n"


_HEADINGS = ("", "where", "time", "at most", "cost", "at most", "fits")


def _row(plan: PlanReport, option: Option) -> tuple[str, ...]:
    return (
        ">" if option == plan.decision.option else "",
        option.offer.name,
        human_duration(option.interval.likely),
        human_duration(option.interval.high),
        *_costs(option),
        "yes" if option.feasible else "no",
    )


def _costs(option: Option) -> tuple[str, str]:
    """Return what a place costs likely and at most."""
    if not option.cost_high:
        return option.offer.unpriced, ""
    return human_money(option.cost_likely), human_money(option.cost_high)


def _unfit(options: Sequence[Option], told: str) -> list[str]:
    """Return why places do not fit, each reason once, without those that the text `told` contains."""
    by_reason: dict[str, list[str]] = {}
    for option in options:
        if not option.feasible and option.reason.removeprefix("needs ") not in told:
            by_reason.setdefault(option.reason, []).append(option.offer.name)
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
        for reason, names in by_reason.items()
    ]


def compared(plan: PlanReport) -> list[Option]:
    """Return the options that a decision compares: the CPU, the cheapest GPU that fits, else the cheapest, and the chosen one."""
    gpus = [option for option in plan.options if option.where == "ec2"]
    best = min(gpus, key=lambda o: (not o.feasible, o.cost_likely, o.offer.name), default=None)
    return [o for o in plan.options if o.where == "cpu" or o in (best, plan.decision.option)]


def _first(plan: PlanReport) -> list[Option]:
    """Return those of them that can be had."""
    chosen = plan.decision.option
    return [o for o in compared(plan) if o.where != "ec2" or o == chosen or not _no_gpu(plan)]


def _bases(options: Sequence[Option], notes: Sequence[str]) -> list[str]:
    """Explain times and prices once for all places of a kind."""
    texts = []
    for where, whose in (("cpu", "this CPU's"), ("ec2", "GPUs'")):
        bases = dict.fromkeys(BASES.get(o.basis, o.basis) for o in options if o.where == where)
        if where == "cpu" and any(note.startswith("this CPU: ") for note in notes):
            continue  # they say it in detail
        texts += [f"{whose} times: {', '.join(bases)}"] if bases else []
    return [*texts, *_price_bases(options)]


def _price_bases(options: Sequence[Option]) -> list[str]:
    """Say where the prices come from, and of when they are."""
    prices = dict.fromkeys(option.offer.price_basis for option in options if option.where == "ec2")
    return [f"GPUs' prices: {'; '.join(prices)}"] if prices else []


def receipt_markdown(plan: PlanReport, *, title: str = "", change: str = "") -> str:
    """Render a plan for a job summary, names escaped; `change` is what a pull request changes in the dataset."""
    lines = [f"### {escape_markdown(title) if title else f'Plan: {_title(plan)}'}", ""]
    if change:
        lines += [f"**Data.** {escape_markdown(change)}", ""]
    shown = _shown(plan)
    if nowhere := _no_gpu(plan):
        shown = [option for option in shown if option.where == "cpu"]
    if plan.already_trained is not None:
        lines += [f"Already trained: version {escape_markdown(plan.trained_name)}. Nothing is spent.", ""]
        lines.append(details("Where it would run otherwise", "\n".join(_places(plan, shown))))
    else:
        chosen = plan.decision.option
        first = [option for option in shown if option == chosen or option.where == "cpu"]
        # Where something fits, a place that cannot be had is no alternative to look at.
        fitting = [o for o in shown if o not in first and (o.feasible or chosen is None)]
        others = sorted(fitting, key=lambda o: o.cost_likely)
        first += others[: max(0, FEW - len(first))]
        sure = f" {_certainty(plan)}" if _certainty(plan) else ""
        lines += [f"**Why.** {escape_markdown(plan.decision.why)}{sure}", ""]
        lines += [escape_markdown(plan.forecast), ""] if plan.forecast else []
        lines += _places(plan, [option for option in shown if option in first])
        rest = [option for option in shown if option not in first]
        hidden = len(plan.options) - len(shown)
        if nowhere:
            lines += ["", f"No GPU can be rented: {escape_markdown(nowhere)}."]
        if rest:
            more = f" (and {counted(hidden, 'other')}, no better)" if hidden else ""
            folded = "\n".join(_places(plan, rest))
            lines += ["", details(f"{counted(len(rest), 'more place')}{more}", folded)]
        if plan.decision.changes:
            lines += ["", "**What would change that**", ""]
            lines += [f"- {escape_markdown(change)}" for change in plan.decision.changes]
    notes = [_dataset_line(plan), *_price_bases(shown), *plan.notes]
    lines += ["", details("Based on", "\n".join(f"- {escape_markdown(note)}" for note in notes))]
    return "\n".join(lines) + "\n"


def _no_gpu(plan: PlanReport) -> str:
    """Return the reason why no GPU can be rented, if it is the same for all; rows would only repeat it."""
    gpus = [option for option in plan.options if option.where == "ec2"]
    reasons = {option.reason for option in gpus}
    return reasons.pop() if len(reasons) == 1 and not any(o.feasible for o in gpus) else ""


def _places(plan: PlanReport, options: Sequence[Option]) -> list[str]:
    """Return a table of options, and below it the basis of their times if all have the same."""
    bases = {option.basis for option in options}
    several = len(bases) > 1
    rows = [("", "where", "likely", "at most", "cost", "at most", "fits", *(["basis"] if several else []))]
    rows += [
        (
            "→" if option == plan.decision.option else "",
            option.offer.name,
            human_duration(option.interval.likely),
            human_duration(option.interval.high),
            *_costs(option),
            "yes" if option.feasible else f"no: {option.reason}",
            *([option.basis] if several else []),
        )
        for option in options
    ]
    lines = table(rows, bold=lambda row: bool(row[0])).split("\n")
    if not several and (told := BASES.get(bases.pop())):
        lines += ["", f"Times: {told}."]
    return lines


def _title(plan: PlanReport) -> str:
    option = plan.decision.option
    if option is None:
        return "nothing fits"
    where = "the free CPU" if option.where == "cpu" else option.offer.name
    return f"{escape_markdown(where)}, {human_duration(option.interval.likely)}"


def _dataset_line(plan: PlanReport) -> str:
    counts = ", ".join(f"{n:,} {split}" for split, n in plan.images.items() if n)
    return (
        f"Dataset {plan.fingerprint[:12]}: {counts or 'no'} images, {human_bytes(plan.dataset_bytes)}; "
        f"training {plan.training_key[:12]}"
    )


def _shown(plan: PlanReport) -> list[Option]:
    """Return the options to show: the chosen one, the CPU, and the cheapest of each instance type and market."""
    chosen = plan.decision.option
    best: dict[tuple[str | None, str | None], Option] = {}
    for option in sorted(plan.options, key=lambda o: (o != chosen, o.cost_likely, o.offer.name)):
        best.setdefault((option.offer.instance_type, option.market), option)
    kept = list(best.values())[:SHOWN]
    return [option for option in plan.options if option in kept]
