"""`command: train`: train and publish, and report the run, also when it failed."""

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from gpu_offload.errors import EXIT_FAILED, EXIT_RESUMABLE, OffloadError
from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.backends.isolated_training import not_isolated, why_open
from gpu_offload.orchestrator.cleanup.prune import after_publication
from gpu_offload.orchestrator.cleanup.sweep_note import dead_sweep
from gpu_offload.orchestrator.github.cached_store import KeptFolder
from gpu_offload.orchestrator.github.section import SummaryContext, bounded
from gpu_offload.orchestrator.github.small_summaries import done_summary, plan_summary, trouble_summary
from gpu_offload.orchestrator.github.step import Step, flag
from gpu_offload.orchestrator.github.summary import run_summary
from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.registry.alias import alias_of
from gpu_offload.orchestrator.registry.attestation import checksums
from gpu_offload.orchestrator.registry.index import entry_of, versions
from gpu_offload.orchestrator.registry.manifest import STABLE, model_key
from gpu_offload.orchestrator.registry.semver import version_text
from gpu_offload.orchestrator.report.content import Before
from gpu_offload.orchestrator.report.outcome import headline
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.site.write import update_site

if TYPE_CHECKING:
    from gpu_offload.orchestrator.lifecycle.train_report import TrainReport
    from gpu_offload.orchestrator.plan.planned import Planned
    from gpu_offload.orchestrator.run.record import RunRecord

CLOCK_SLACK_S = 2.0
"""Seconds between our clock and the journal's when looking for a run that has just ended."""


def train(step: Step) -> int:
    """Train and publish, or resume an open run; report the outcome, also of a failure."""
    from gpu_offload.orchestrator.github.store import store_on_runner
    from gpu_offload.orchestrator.lifecycle.new_run import with_forecast
    from gpu_offload.orchestrator.lifecycle.train import Training
    from gpu_offload.orchestrator.lifecycle.train_report import trained_text
    from gpu_offload.orchestrator.plan.planner import planning_of
    from gpu_offload.orchestrator.plan.receipt import receipt_text
    from gpu_offload.orchestrator.workspace import Workspace

    store, workspace = store_on_runner(step.settings, os.environ), Workspace.of(step.settings.root)
    before, now = _newest(store), clock_of(store)
    began = now()
    # The publisher's role of this job is not allowed to ask EC2.
    planning = planning_of(step.settings, store, step.console, asks_ec2=not step.inputs.launched_later)
    planning.launched_later = step.inputs.launched_later
    planning.job_installs, planning.installed_s = step.inputs.installed_s > 0, step.inputs.installed_s
    planned = planning.plan(on=step.inputs.on, calibrate=step.inputs.calibrate, only_if_it_matters=True)
    if planned.report.already_trained is None and not step.inputs.because:
        step.console.text(receipt_text(with_forecast(planned, store).report))
    try:
        training = Training(
            planned,
            store,
            workspace,
            step.console,
            detach=step.inputs.detach,
            launched_later=step.inputs.launched_later,
            clock=now,
        )
        done = training.run()
    except OffloadError as error:
        resumable = error.exit_code == EXIT_RESUMABLE
        with contextlib.suppress(StoreError):  # a store that fails, too, must not hide why the training did
            _report_failure(step, planned, store, (began, now()), str(error), can_resume=resumable)
        _warn_of_dead_sweep(step, store)
        raise
    step.console.text(trained_text(done))
    _report(step, planned, store, done, before, moves=training.moves)
    # The folder of a hosted runner is deleted with it, so that there is nothing to prune and no site to update.
    if done.status == "trained" and not isinstance(store, KeptFolder):
        for warning in after_publication(store, step.settings, step.console):
            step.runner.summary(f"> [!WARNING]\n> {bounded(warning)}")
    if not isinstance(store, KeptFolder):
        update_site(store, step.settings, step.console, is_private=step.event.is_private)
    _warn_of_dead_sweep(step, store)
    return EXIT_FAILED if done.candidate and step.settings.registry.on_candidate == "fail" else 0


def _report(
    step: Step,
    planned: "Planned",
    store: ObjectStore,
    done: "TrainReport",
    before: Before | None,
    *,
    moves: str,
) -> None:
    from gpu_offload.orchestrator.github.predictions import publish_picture
    from gpu_offload.orchestrator.report.load import gather

    # Skipping needs no journal: that of an old run may be pruned.
    skipped = done.status == "already_trained"
    manifest = model_key(done.version, "manifest.json")
    report = None if skipped else gather(store, step.settings.store, done.run)
    step.runner.outputs(
        {
            "where": done.where,
            "version": done.version,
            "semver": done.semver or "",
            "candidate": plain(done.candidate or ""),
            "run": done.run,
            # The whole bill, with store and disks.
            "cost-usd": f"{report.bill.total if report else 0:.4f}",
            "seconds": f"{report.seconds if report else 0:.0f}",
            "model-url": done.model_url or "",
            "checksums": checksums(store.read(manifest)[0]) if done.status == "trained" else "",
            "already-trained": flag(skipped),
            "training-key": done.training_key,
            "moves": flag(done.status == "moves"),
            "why": plain(moves) or step.inputs.because or plain(planned.report.decision.why),
        }
    )
    context = SummaryContext(
        because=step.inputs.because,
        reason=step.inputs.reason,
        before=before if before and before.version != done.version else None,
        model_url=done.model_url,
        detached=done.status == "detached",
        moves=moves,
        kept=done.status == "trained" and isinstance(store, KeptFolder),
        moved=done.stable_moved,
        candidate=done.candidate or "",
    )
    if report is None:
        step.runner.summary(done_summary(done.semver or done.version, context, moved=done.stable_moved))
        step.console.notice(f"already trained: version {version_text(done.version, done.semver)}")
        return
    # The pictures of a private repository stay private, even if its models are public.
    if done.status == "trained" and not step.event.is_private:
        picture = publish_picture(step.settings, store, report, step.console)
        # A picture that `keep` publishes later is in the summary of that job.
        context = context if context.kept else replace(context, pictures_url=picture)
    step.runner.summary(run_summary(report, context))
    if done.where == "cpu" and (reason := why_open(step.settings, os.environ)):
        step.runner.summary(f"> [!NOTE]\n> {bounded(not_isolated(reason))}")
    step.console.notice(plain(headline(report, context.before, moved=context.moved, leaving=bool(moves))))


def _report_failure(
    step: Step,
    planned: "Planned",
    store: ObjectStore,
    lasted: tuple[float, float],
    trouble: str,
    *,
    can_resume: bool,
) -> None:
    """Report a run that ended without a model, or that none was started; `lasted`: when the step began and ended."""
    from gpu_offload.orchestrator.lifecycle.logs import read_log
    from gpu_offload.orchestrator.report.load import gather

    began, ended = lasted
    run = _latest(store, planned.training_key, began)
    step.runner.outputs(
        {
            "where": planned.report.decision.where,
            "version": planned.version,
            "run": run.id if run else "",
            "seconds": f"{ended - began:.0f}",
            "already-trained": flag(False),
            "training-key": planned.training_key,
        }
    )
    if run is None:
        step.runner.summary(trouble_summary(trouble))
        step.runner.summary(plan_summary(planned.report))
        return
    report = gather(store, step.settings.store, run.id)
    context = SummaryContext(
        because=step.inputs.because,
        reason=step.inputs.reason,
        trouble=trouble,
        log="".join(read_log(store, run.id)),
        can_resume=can_resume,
    )
    step.runner.summary(run_summary(report, context))


def _warn_of_dead_sweep(step: Step, store: ObjectStore) -> None:
    """Warn if the scheduled `tend` does not run any more; a store that does not answer is no reason to fail."""
    with contextlib.suppress(StoreError):
        warning = dead_sweep(store, now=clock_of(store)())
        if warning is not None:
            step.console.warning(warning)
            step.runner.summary(f"> [!WARNING]\n> {bounded(warning)}")


def _newest(store: ObjectStore) -> Before | None:
    """Return the version that `stable` means, to compare a new one with."""
    alias = alias_of(store, STABLE)
    entry = entry_of(versions(store), alias.version) if alias else None
    return Before(entry.version, entry.metrics, entry.semver) if entry else None


def _latest(store: ObjectStore, training_key: str, began: float) -> "RunRecord | None":
    """Return the run that a failed command was about: one that is open, or ended meanwhile."""
    journal = Journal(store)
    runs = journal.runs_of(training_key)
    if not runs:
        return None
    # A run that ended before this step is not the one that failed.
    outcome = journal.outcome(runs[-1].id)
    return runs[-1] if outcome is None or outcome.at >= began - CLOCK_SLACK_S else None
