"""`command: pack` and `keep`: carry what a folder store holds from the runner into the repository's release."""

import os
import re
from pathlib import Path

from gpu_offload.orchestrator.github.cached_store import KeptFolder, unfinished_key
from gpu_offload.orchestrator.github.console import GitHubConsole
from gpu_offload.orchestrator.github.event import WorkflowEvent
from gpu_offload.orchestrator.github.inputs import InputsError, WorkflowInputs
from gpu_offload.orchestrator.github.runner import Runner
from gpu_offload.orchestrator.github.small_summaries import kept_summary, unfinished_summary
from gpu_offload.orchestrator.github.step import Step, UntrustedEventError
from gpu_offload.orchestrator.plan.training_key import version_of
from gpu_offload.orchestrator.registry.attestation import checksums
from gpu_offload.orchestrator.registry.manifest import model_key
from gpu_offload.remote_job.result import PREDICTIONS


def pack(step: Step) -> int:
    """Pack what has to outlive this runner, if anything does, for a job that may write to the repository."""
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
    step.runner.outputs(
        {"packed": str(folder), "artifact": f"gpu-offload-{version_of(step.inputs.training_key)}"}
    )
    told = f"version {packed.version}" if packed.version else f"{packed.unfinished} unfinished run(s)"
    step.console.text(f"packed {told if not packed.moved or packed.version else 'what stable means'}")
    return 0


def keep(inputs: WorkflowInputs, event: WorkflowEvent, runner: Runner, console: GitHubConsole) -> int:
    """Bring what a training packed into the repository's release; needs no configuration. Raises UntrustedEventError."""
    from gpu_offload.infra.github.release import GitHubRelease
    from gpu_offload.infra.store.web import asset_name, release_address
    from gpu_offload.orchestrator.github import release as keeping
    from gpu_offload.orchestrator.github import store

    if not event.is_trusted:
        raise UntrustedEventError(f"'keep' does not run on {event.name}: it publishes")
    if not inputs.token:
        raise InputsError("'keep' needs the input token: ${{ github.token }}, in a job with contents: write")
    if not re.fullmatch(r"[0-9a-f]{64}", inputs.training_key):
        raise InputsError(
            "'keep' needs the input training-key, which train.yml has as an output: run `offload init` again"
        )
    api = os.environ.get("GITHUB_API_URL") or "https://api.github.com"
    server = os.environ.get("GITHUB_SERVER_URL") or "https://github.com"
    tag = store.release_tag(inputs.directory, Path(os.environ.get("GITHUB_WORKSPACE") or "."))
    release = GitHubRelease(api, event.repository, inputs.token, tag)
    packed = inputs.packed.resolve()
    kept = keeping.keep(release, packed, console.note, inputs.training_key)
    if kept is None and not (packed / asset_name(unfinished_key(inputs.training_key))).exists():
        return 0
    address = release_address(server, event.repository, tag)
    url = f"{address}/{asset_name(model_key(kept.version, kept.model.name))}" if kept else ""
    there = release.assets() if kept else {}
    manifest = asset_name(model_key(kept.version, "manifest.json")) if kept else ""
    runner.outputs(
        {
            "model-url": url,
            "version": kept.version if kept else "",
            "checksums": checksums(release.read(there[manifest])) if kept else "",
        }
    )
    picture = asset_name(model_key(kept.version, PREDICTIONS)) if kept else ""
    shown = f"{address}/{picture}" if picture and picture in there else ""
    if kept:
        name, stable = keeping.standing(release, kept.version)
        runner.summary(kept_summary(address, kept.model, name, url, shown, stable=stable))
    else:
        runner.summary(unfinished_summary())
    console.notice(f"kept: {url}" if kept else f"kept an unfinished run in {address}")
    return 0
