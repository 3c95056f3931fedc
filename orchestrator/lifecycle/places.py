"""Where a project keeps what it made, and how much that is."""

from pathlib import Path

from gpu_offload.orchestrator.output.units import human_bytes
from gpu_offload.orchestrator.project_states import size_of
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.workspace import Workspace


def places_text(settings: Settings, workspace: Workspace) -> str:
    """Return where models and runs are, where this machine's caches are, and what may be deleted of them."""
    store = settings.store_url
    folder = Path(store.removeprefix("file:")) if store.startswith("file:") else None
    models = f"{folder} ({human_bytes(size_of(folder))})" if folder is not None else store
    # The default store is a folder of the same state, and must not look like a cache.
    own = workspace.caches()
    return (
        f"models and runs: {models}; `offload prune` deletes what nothing needs\n"
        f"caches of this machine: {', '.join(path.name for path in own)} in {workspace.root} "
        f"({human_bytes(sum(map(size_of, own)))}); safe to delete; "
        "`offload state` lists all projects"
    )
