"""Opens the store that a workflow reads and writes."""

import os
from collections.abc import Mapping
from pathlib import Path

from gpu_offload.infra.github.release_store import ReleaseStore, open_release
from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.infra.store.read_only import PublicStore
from gpu_offload.infra.store.web import release_address
from gpu_offload.orchestrator.github.cached_store import KeptFolder
from gpu_offload.orchestrator.github.event import WorkflowEvent
from gpu_offload.orchestrator.github.inputs import PREFIX, InputsError, WorkflowInputs
from gpu_offload.orchestrator.github.workflows import slug
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.settings.load import Settings

TAG = "offload-models"


def release_tag(directory: Path, workspace: Path) -> str:
    """Return the tag of the release that keeps a project's models; projects in one repository do not share one."""
    try:
        path = directory.resolve().relative_to(workspace.resolve()).as_posix()
    except ValueError:
        return TAG
    return TAG if path == "." else f"{TAG}-{slug(path)}"


def release_to_change(inputs: WorkflowInputs, event: WorkflowEvent) -> ReleaseStore:
    """Open the release that keeps a project's models, with the job's token. Raises InputsError: there is no token."""
    server = os.environ.get("GITHUB_SERVER_URL") or "https://github.com"
    tag = release_tag(inputs.directory, Path(os.environ.get("GITHUB_WORKSPACE") or "."))
    address = release_address(server, event.repository, tag)
    store = open_release(address, os.environ | {"GITHUB_TOKEN": inputs.token})
    if store is None:
        raise InputsError(
            f"'{inputs.command}' needs the input token: ${{{{ github.token }}}}, in a job with `contents: write`, to change "
            f"{address}"
        )
    return store


def kept_at(settings: Settings, environment: Mapping[str, str]) -> str | None:
    """Return the web address where a folder store is kept; None if its folder outlives the job by itself.

    The next checkout deletes a folder below the checkout, and a hosted runner is deleted with all its folders.
    """
    workspace, repository = environment.get("GITHUB_WORKSPACE"), environment.get("GITHUB_REPOSITORY")
    folder = settings.configured_store_folder
    if folder is None or not workspace or not repository:
        return None
    folder = folder.resolve()
    hosted = environment.get("RUNNER_ENVIRONMENT") == "github-hosted"
    if not hosted and not folder.is_relative_to(Path(workspace).resolve()):
        return None
    server = environment.get("GITHUB_SERVER_URL") or "https://github.com"
    directory = Path(environment.get(f"{PREFIX}DIRECTORY") or settings.root)
    tag = release_tag(directory, Path(workspace))
    return settings.store.public_url or release_address(server, repository, tag)


def store_on_runner(settings: Settings, environment: Mapping[str, str]) -> ObjectStore:
    """Return the configured store; a folder that will be deleted reads from where it is kept."""
    from gpu_offload.orchestrator.registry.stores import check_store_folder, store_of

    address = kept_at(settings, environment)
    if address is None:
        return store_of(settings)
    check_store_folder(settings)
    return KeptFolder(Path(settings.store_url.removeprefix("file:")), open_store(address))


def readable_store(settings: Settings, console: Console) -> ObjectStore:
    """Return the store for a plan: a folder as it is or is kept; any other store as the public sees it."""
    from gpu_offload.orchestrator.registry.stores import store_of

    if settings.store_url.startswith("file:"):
        return store_on_runner(settings, os.environ)
    console.note("reading the public part of the store: timings of earlier runs do not count in this plan")
    if settings.store.public_url:
        return PublicStore(open_store(settings.store.public_url))
    # A pull request may name any server, so that no request to it is signed with this runner's credentials.
    return PublicStore(store_of(settings, unsigned=settings.store.endpoint_url is not None))
