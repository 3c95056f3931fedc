"""`command: pack` and `keep`: move the content of a folder store from the runner to the repository's release."""

import os
import re
from pathlib import Path

from gpu_offload.errors import UsageError
from gpu_offload.infra.store.web import asset_name
from gpu_offload.orchestrator.github.cached_store import KeptFolder, unfinished_key
from gpu_offload.orchestrator.github.console import GitHubConsole
from gpu_offload.orchestrator.github.event import WorkflowEvent
from gpu_offload.orchestrator.github.inputs import InputsError, WorkflowInputs
from gpu_offload.orchestrator.github.runner import Runner
from gpu_offload.orchestrator.github.small_summaries import kept_summary, unfinished_summary
from gpu_offload.orchestrator.github.step import Step
from gpu_offload.orchestrator.registry.alias import alias_of
from gpu_offload.orchestrator.registry.attestation import checksums
from gpu_offload.orchestrator.registry.index import entry_of, versions
from gpu_offload.orchestrator.registry.manifest import STABLE, model_key
from gpu_offload.remote_job.result import PREDICTIONS


def pack(step: Step) -> int:
    """Pack what has to outlive this runner for a job that may write to the repository."""
    from gpu_offload.orchestrator.github.packed import pack_for_keeping
    from gpu_offload.orchestrator.github.store import store_on_runner

    if not step.inputs.training_key:
        raise InputsError("'pack' needs the input training-key")
    store = store_on_runner(step.settings, os.environ)
    if not isinstance(store, KeptFolder):
        step.console.text(f"{store.url} outlives this runner by itself")
        return 0
    folder = Path(os.environ["RUNNER_TEMP"]) / "gpu-offload-packed"
    packed = pack_for_keeping(store, step.inputs.training_key, folder)
    if packed.is_empty:
        step.console.text(f"everything is kept at {store.kept.url} already")
        return 0
    # Named after the training: `keep` downloads by this name, and a workflow run may train several projects.
    step.runner.outputs({"packed": str(folder), "artifact": f"gpu-offload-{step.inputs.training_key}"})
    if packed.version:
        what = f"version {packed.version}"
    else:
        what = "the aliases" if packed.moved else f"{packed.unfinished} unfinished run(s)"
    step.console.text(f"packed {what}")
    return 0


def keep(inputs: WorkflowInputs, event: WorkflowEvent, runner: Runner, console: GitHubConsole) -> int:
    """Bring what a training packed into the repository's release, without a configuration. Raises UsageError."""
    from gpu_offload.orchestrator.github import release
    from gpu_offload.orchestrator.github.store import release_to_change

    if not event.is_trusted:
        raise UsageError(f"'keep' does not run on {event.name}: it publishes")
    store = release_to_change(inputs, event)
    if not re.fullmatch(r"[0-9a-f]{64}", inputs.training_key):
        raise InputsError(
            "'keep' needs the input training-key, which train.yml has as an output: run `offload init` again"
        )
    packed = inputs.packed.resolve()
    kept = release.keep(store, packed, console.note, inputs.training_key)
    if kept is None:
        if (packed / asset_name(unfinished_key(inputs.training_key))).exists():
            runner.summary(unfinished_summary())
            console.notice(f"kept an unfinished run in {store.url}")
        return 0
    url = store.public_url(model_key(kept.version, kept.model.name))
    manifest, _ = store.read(model_key(kept.version, "manifest.json"))
    runner.outputs({"model-url": url, "version": kept.version, "checksums": checksums(manifest)})
    picture = model_key(kept.version, PREDICTIONS)
    shown = store.public_url(picture) if asset_name(picture) in store.release.assets() else ""
    entry, stable = entry_of(versions(store), kept.version), alias_of(store, STABLE)
    name = entry.semver if entry and entry.semver else kept.version
    is_stable = stable is not None and stable.version == kept.version
    runner.summary(kept_summary(store.url, kept.model, name, url, shown, stable=is_stable))
    console.notice(f"kept: {url}")
    return 0
