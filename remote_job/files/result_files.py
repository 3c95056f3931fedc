"""The result on disk: artifacts first, result.json last."""

import shutil
from pathlib import Path

from pydantic import ValidationError

from gpu_offload.remote_job.files import durable
from gpu_offload.remote_job.files.artifact import describe, fault
from gpu_offload.remote_job.result import Artifact, TrainingResult

RESULT = "result.json"


def stage(files: dict[str, Path], folder: Path) -> tuple[Artifact, ...]:
    """Copy artifacts into the result's folder under their names, and describe them in that order.

    An older result.json goes first: it would name what is being replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).unlink(missing_ok=True)
    for name, source in files.items():
        shutil.copyfile(source, folder / name)
    return tuple(describe(folder / name) for name in files)


def write(result: TrainingResult, folder: Path) -> None:
    """Write result.json; from then on the result counts."""
    durable.write(folder / RESULT, result.model_dump_json(indent=1, by_alias=True).encode())


def read(folder: Path, *, training_key: str) -> TrainingResult | None:
    """Return the result of this training if it is there and complete, else None."""
    try:
        result = TrainingResult.model_validate_json((folder / RESULT).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    if result.training_key != training_key or any(fault(folder, artifact) for artifact in result.artifacts):
        return None
    return result


def checked(folder: Path, *, training_key: str) -> TrainingResult:
    """Return the result that must be there. Raises FileNotFoundError."""
    result = read(folder, training_key=training_key)
    if result is None:
        raise FileNotFoundError(f"{folder / RESULT}: is missing or names files that are not what it says")
    return result
