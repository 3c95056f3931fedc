"""`command: plan`: what a training would take and cost, without credentials."""

import os
from dataclasses import replace

from gpu_offload.infra.store.read_only import PublicStore
from gpu_offload.orchestrator.github.annotations import SHOWN, annotate
from gpu_offload.orchestrator.github.cached_store import KeptFolder
from gpu_offload.orchestrator.github.data_change import base_of, data_change
from gpu_offload.orchestrator.github.small_summaries import plan_sentence, plan_summary
from gpu_offload.orchestrator.github.step import Step, flag
from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.plan.option import Obstacle
from gpu_offload.orchestrator.plan.prerequisites import may_rent
from gpu_offload.orchestrator.registry.manifest import INDEX_KEY

NO_LAUNCHER = Obstacle(
    "no job of this workflow has a role that may launch",
    "deploy `offload bootstrap` and set the repository's variable OFFLOAD_LAUNCHER_ROLE",
)

UNSEEN = (
    "the store is not public, so this job cannot tell whether the same was trained before; the job with a role checks that "
    "before it trains"
)


def plan(step: Step) -> int:
    """Show what would be done. Needs no credentials, and uses none."""
    from gpu_offload.orchestrator.github.store import readable_store
    from gpu_offload.orchestrator.lifecycle.new_run import with_forecast
    from gpu_offload.orchestrator.plan.planner import planning_of
    from gpu_offload.orchestrator.plan.receipt import receipt_text

    store = readable_store(step.settings, step.console)
    if isinstance(store, KeptFolder) and step.event.is_private:
        step.console.warning(
            "this repository is private, so its release cannot be read without credentials: every push would train "
            "again. Set store.url to a bucket and run `offload init` again"
        )
    planning = planning_of(step.settings, store, step.console, asks_ec2=False)
    # A self-hosted runner may have credentials of its own.
    if not step.inputs.may_rent and os.environ.get("RUNNER_ENVIRONMENT") == "github-hosted":
        planning.barred = (NO_LAUNCHER,)
    planning.job_installs = not step.inputs.python
    planning.launched_later = step.inputs.on == "auto"
    planned = planning.plan(on=step.inputs.on, calibrate=step.inputs.calibrate, only_if_it_matters=True)
    planned = with_forecast(planned, store)
    report = planned.report
    if report.already_trained is None and isinstance(store, PublicStore) and store.stat(INDEX_KEY) is None:
        report = replace(report, notes=(*report.notes, UNSEEN))
    option = report.decision.option
    step.runner.outputs(
        {
            # A training that exists is at most published again, as after a revert, which needs no instance.
            "where": report.decision.where if report.already_trained is None else "cpu",
            "version": planned.version,
            "training-key": planned.training_key,
            "already-trained": flag(report.already_trained is not None),
            "can-move": flag(
                report.already_trained is None
                and step.inputs.may_rent
                and planned.can_move
                and may_rent(step.settings, planned.inputs)
            ),
            "why": plain(report.decision.why),
            "estimate-seconds": f"{option.interval.likely:.0f}" if option else "",
            "estimate-usd": f"{option.cost_likely:.4f}" if option else "",
        }
    )
    step.console.text(receipt_text(report))
    if step.inputs.measured_later and report.decision.where != "cpu" and report.already_trained is None:
        step.console.text("measuring this runner before anything is rented")
        return 0
    proposed = step.event.name in {"pull_request", "pull_request_target"}
    base = base_of(step.event, step.settings.root) if proposed else None
    change = data_change(planned.snapshot, base) if base else None
    step.runner.summary(plan_summary(report, proposed=proposed, change=str(change) if change else ""))
    if proposed:
        for annotation in annotate(planned.snapshot.warnings, step.settings)[:SHOWN]:
            step.console.annotate(annotation)
    step.console.notice(plan_sentence(report, proposed=proposed))
    if report.decision.where == "none" and report.already_trained is None:
        step.console.warning(f"{report.decision.why} Nothing will be trained until that changes.")
    return 0
