"""Checks a file of weights without loading it: whether PyTorch wrote it, and for which task Ultralytics' model in it is."""

import re
import zipfile
from pathlib import Path
from typing import Final

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.plan.project import PlanningError

LEGACY: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The magic number with which `torch.save` began a file before it wrote zip archives."""
MAX_BYTES: Final = 64 << 20
"""Of the pickled structure that is read, of which a model has less than one."""

_MODELS: Final = {
    "DetectionModel": Task.DETECT,
    "RTDETRDetectionModel": Task.DETECT,
    "SegmentationModel": Task.SEGMENT,
    "PoseModel": Task.POSE,
    "ClassificationModel": Task.CLASSIFY,
}


def check_checkpoint(path: Path, setting: str, task: Task | None) -> None:
    """Check a file of weights; `task` is the one that its model must be for, None if any serves. Raises PlanningError."""
    try:
        structure = _structure(path)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise PlanningError(
            f"{setting}: PyTorch did not write this file of weights ({error}); name another"
        ) from None
    # The names of classes are plain text in a pickle of PyTorch's; nothing is unpickled.
    found = {match.decode() for match in re.findall(rb"cultralytics\.nn\.tasks\n(\w+)\n", structure)}
    tasks = {_MODELS[name] for name in found if name in _MODELS}
    if task is not None and tasks and task not in tasks:
        raise PlanningError(
            f"{setting}: the model in it is for {min(tasks)}, and the dataset is for {task}; take one for {task}, or let "
            "training.model be a definition (.yaml) and training.init-from name these weights"
        )


def _structure(path: Path) -> bytes:
    """Return the pickle in a zip archive of PyTorch's; empty for its older format."""
    with path.open("rb") as file:
        if file.read(len(LEGACY)) == LEGACY:
            return b""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if not names:
            raise zipfile.BadZipFile("it has no data.pkl")
        with archive.open(names[0]) as file:
            return file.read(MAX_BYTES)
