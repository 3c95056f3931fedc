"""The job summary of a plan."""

from gpu_offload.orchestrator.github.section import LIMIT, SummarySection, bounded, fitted
from gpu_offload.orchestrator.output.units import human_duration, human_money
from gpu_offload.orchestrator.plan.option import Decision, PlanReport
from gpu_offload.orchestrator.plan.receipt import receipt_markdown


def plan_summary(plan: PlanReport, *, proposed: bool = False, change: str = "", limit: int = LIMIT) -> str:
    """Render a plan: one sentence as the heading, then the receipt; `change` is what changes in the dataset."""
    sentence = plan_sentence(plan, proposed=proposed)
    short = (
        f"### {bounded(sentence)}\n\n**Why.** {bounded(plan.decision.why)}\n\n"
        "(the receipt is too long for this page: `offload plan` shows it)"
    )
    return fitted(
        [
            SummarySection((receipt_markdown(plan, title=sentence, change=change), short), 5),
        ],
        limit,
    )


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
