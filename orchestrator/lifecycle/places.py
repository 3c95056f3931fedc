"""Where a project keeps what it made, and how much that is."""

import os
from pathlib import Path

from gpu_offload.orchestrator.output.units import human_bytes
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.workspace import Workspace


def places_text(settings: Settings, workspace: Workspace) -> str:
    """Say where models and runs are, where this machine's own files are, and what deletes of them what is not needed."""
    store = settings.store_url
    folder = Path(store.removeprefix("file:")) if store.startswith("file:") else None
    models = f"{folder} ({human_bytes(size_of(folder))})" if folder is not None else store
    # The default store is a folder of the same state.
    own = size_of(workspace.root, but=folder)
    return (
        f"models and runs: {models}; `offload prune` deletes what nothing needs\n"
        f"caches of this machine: {workspace.root} ({human_bytes(own)}); made again where they are deleted"
    )


def size_of(folder: Path, but: Path | None = None) -> int:
    """Return the bytes of the files below a folder, those below `but` left out; links count for themselves."""
    total = 0
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if but is None or Path(path, name) != but]
        for name in files:
            try:
                total += os.lstat(os.path.join(path, name)).st_size  # noqa: PTH118 - a Path for each of thousands is slow
            except OSError:  # deleted meanwhile
                continue
    return total
