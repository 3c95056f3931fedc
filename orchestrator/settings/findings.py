"""Where the findings of a dataset are, relative to the repository."""

import os
from pathlib import Path

from gpu_offload.infra.git import git_output
from gpu_offload.orchestrator.settings.load import Settings


def findings_folder(settings: Settings) -> Path:
    """Return what the paths of findings are relative to."""
    return settings.dataset_path if settings.dataset_path.is_dir() else settings.dataset_path.parent


def findings_prefix(settings: Settings) -> str:
    """Return what stands before a finding's path to make it relative to the repository; empty or with a slash."""
    found = relative_to(findings_folder(settings), checkout_root(settings.root))
    return "" if found == "." else f"{found}/"


def checkout_root(folder: Path) -> Path:
    """Return the root of the checkout that a folder is in, else the folder itself."""
    top = git_output(folder, "rev-parse", "--show-toplevel")
    return Path(top) if top else folder.resolve()


def relative_to(path: Path, top: Path) -> str:
    """Return the path by which git knows a file; of a link its own path, not that of its target."""
    top = top.resolve()
    real = path.parent.resolve() / path.name
    if not real.is_relative_to(top) and path.is_relative_to(top):
        real = path  # below a link out of the repository
    return Path(os.path.relpath(real, top)).as_posix()
