"""`command: find-revert` and `rollback`: move `stable` back after a push that took data back, or on a person's request."""

import os

from gpu_offload.errors import UsageError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.github.console import GitHubConsole
from gpu_offload.orchestrator.github.event import WorkflowEvent
from gpu_offload.orchestrator.github.inputs import InputsError, WorkflowInputs
from gpu_offload.orchestrator.github.runner import Runner
from gpu_offload.orchestrator.github.small_summaries import rollback_summary
from gpu_offload.orchestrator.github.step import Step
from gpu_offload.orchestrator.registry import promote, publish
from gpu_offload.orchestrator.registry.listing import named
from gpu_offload.orchestrator.registry.manifest import STABLE, Manifest
from gpu_offload.orchestrator.registry.promote import Moved
from gpu_offload.orchestrator.registry.revert import Revert

WHY = "its data was reverted"


def find_revert(step: Step) -> int:
    """Output which version a push brought back, and which ones it reverted, for a job that may write to the release.

    A folder that outlives a self-hosted runner is in no release: there the push is rolled back at once.
    """
    from gpu_offload.orchestrator.github.store import kept_at

    if step.settings.configured_store_folder is not None and kept_at(step.settings, os.environ) is None:
        if (done := _rolled_back(step)) is not None:
            _show(done, step.runner, step.console)
        return 0
    found = _found(step)
    if found is not None:
        _, wanted, reverted = found
        keeps = step.settings.registry.on_revert == "keep"
        step.runner.outputs(
            {"to": wanted.version, "withdraw": "" if keeps else " ".join(each.version for each in reverted)}
        )
    return 0


def rollback(step: Step) -> int:
    """Roll back in the configured store what a push reverted, or what a person asks for."""
    done = _rolled_back(step)
    if done is not None:
        _report(done, step.runner, step.console)
    return 0


def _rolled_back(step: Step) -> Moved | None:
    """Roll back in the configured store; None if the push reverts nothing."""
    from gpu_offload.orchestrator.site.write import update_site

    store = _store(step)
    if step.event.name != "push":
        done = promote.rollback(store, step.inputs.to or None, why=_why(step.inputs))
    elif (found := _found(step)) is not None:
        revert, wanted, reverted = found
        changed = revert.complete(wanted, publish.DEFAULT)
        entry = named(store, wanted.version)
        # If the reverted data still trains, `stable` stays, and only its history gets an entry.
        text = f"stable again, in place of {reverted[0].version}" if reverted else "kept as stable"
        done = Moved(text, entry, {STABLE: wanted.version}, changed or not reverted)
    else:
        return None
    update_site(store, step.settings, step.console, is_private=step.event.is_private)
    return done


def rollback_in_release(
    inputs: WorkflowInputs, event: WorkflowEvent, runner: Runner, console: GitHubConsole
) -> int:
    """Roll back in the repository's release; reads nothing of the repository. Raises UsageError."""
    from gpu_offload.orchestrator.github.store import release_to_change

    if not event.is_trusted:
        raise UsageError(f"'rollback' does not run on {event.name}: it changes what applications use")
    if event.name == "push" and not inputs.to:
        raise InputsError("'rollback' of a push needs the input to, which find-revert has as an output")
    store = release_to_change(inputs, event)
    if event.name != "push":
        done = promote.rollback(store, inputs.to or None, why=_why(inputs))
    else:
        commit = os.environ.get("GITHUB_SHA")
        done = promote.take_back(store, inputs.to, inputs.withdraw.split(), why=WHY, commit=commit)
    _report(done, runner, console)
    return 0


def _found(step: Step) -> tuple[Revert, Manifest, tuple[Manifest, ...]] | None:
    """Return the version that a push brought back and those that it reverted, none if they still train.

    None if the push reverts nothing.
    """
    from gpu_offload.orchestrator.github.store import kept_at
    from gpu_offload.orchestrator.plan.planner import planning_of
    from gpu_offload.orchestrator.run.journal import Journal

    store = _store(step)
    planned = planning_of(step.settings, store, step.console, asks_ec2=False).plan(on="cpu", calibrate=False)
    wanted = publish.manifest_of(store, planned.version)
    here = kept_at(step.settings, os.environ) is None
    training = Journal(store).open_commits(but=planned.version) if here else None
    revert = Revert(store, step.settings, step.console, training)
    reverted = revert.reverted(wanted) if wanted is not None else ()
    if wanted is None or not (reverted or revert.overtakes(wanted, publish.alias_of(store, STABLE))):
        step.console.text("this push takes no data back to that of an earlier version: nothing to roll back")
        return None
    what = f"the data of {reverted[0].version}" if reverted else "data that may still be training"
    step.console.text(f"this push takes back {what}: {wanted.version} is wanted again")
    return revert, wanted, reverted


def _store(step: Step) -> ObjectStore:
    from gpu_offload.orchestrator.github.store import store_on_runner

    return store_on_runner(step.settings, os.environ)


def _why(inputs: WorkflowInputs) -> str:
    if not inputs.reason:
        raise InputsError("'rollback' needs the input reason: it stays in the history of the alias")
    return inputs.reason


def _report(done: Moved, runner: Runner, console: GitHubConsole) -> None:
    stable = done.aliases.get(STABLE) or ""
    runner.outputs({"to": stable, "version": done.entry.version, "semver": done.entry.semver or ""})
    _show(done, runner, console)


def _show(done: Moved, runner: Runner, console: GitHubConsole) -> None:
    runner.summary(rollback_summary(done))
    console.notice(done.text().splitlines()[0])
