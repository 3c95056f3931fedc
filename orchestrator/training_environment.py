"""The environment variables of a training on this machine: no credentials."""

import os.path
from collections.abc import Mapping
from pathlib import Path

from gpu_offload.remote_job import allocator

COMMAND_FILES = ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STATE", "GITHUB_STEP_SUMMARY")
"""Files by which a step sets variables for later steps."""

TOKENS = ("ACTIONS_RUNTIME_", "ACTIONS_RESULTS_", "GH_", "GITHUB_TOKEN", "GPU_OFFLOAD_INPUT_", "INPUT_")
"""Beginnings of variables that hold a workflow's tokens and inputs; a training needs none."""

STORE_CREDENTIALS = ("ACTIONS_ID_TOKEN_", "AWS_", "HF_OIDC_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "STORE_")
"""Beginnings of variables by which a bucket or a repository of the Hub is opened; a store that is a folder needs none."""


def training_environment(
    variables: Mapping[str, str], *, project: Path, in_bucket: bool, own_code: bool
) -> dict[str, str]:
    """Return the variables for a training's process, from those of this one.

    What PYTHONPATH finds in the project is neither in the training key nor on an instance. A training needs credentials
    only if it uploads to a bucket (`in_bucket`). The user's `own_code` finds modules beside a script that it starts.
    """
    dropped = TOKENS if in_bucket else (*TOKENS, *STORE_CREDENTIALS)
    kept = {
        name: value
        for name, value in variables.items()
        if name not in COMMAND_FILES and not name.startswith(dropped)
    }
    outside = [path for path in kept.pop("PYTHONPATH", "").split(os.pathsep) if _is_outside(path, project)]
    if outside:
        kept["PYTHONPATH"] = os.pathsep.join(outside)
    # Processes that PyTorch or Ultralytics start must not import from the working folder.
    return kept if own_code else kept | {"PYTHONSAFEPATH": "1"}


def local_environment(
    variables: Mapping[str, str], *, project: Path, store_url: str, own_code: bool, speed: Mapping[str, bool]
) -> dict[str, str]:
    """Return the same for a process that trains right here; with the allocator's settings, for which it need not restart."""
    in_bucket = not store_url.startswith("file:")
    kept = training_environment(variables, project=project, in_bucket=in_bucket, own_code=own_code)
    return kept | allocator.environment(kept) if speed.get("allocator", True) else kept


def _is_outside(path: str, project: Path) -> bool:
    """Whether an entry of PYTHONPATH leads elsewhere than into the project; an empty one means the working folder."""
    return bool(path) and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(project))
