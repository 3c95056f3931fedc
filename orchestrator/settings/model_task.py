"""The task that a model is for, and whether a dataset's labels are for the same."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gpu_offload.dataset.finding import DatasetError, error
from gpu_offload.dataset.snapshot import Snapshot
from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.model_name import TASK_OF_SUFFIX, built_in_task

_SUFFIX_OF_TASK: Final = {Task.DETECT: "", **{task: f"-{suffix}" for suffix, task in TASK_OF_SUFFIX.items()}}
_LARGEST_DEFINITION: Final = 1 << 20

_HEAD: Final = re.compile(
    r"(?m)^\s*-.*\b(?:(?P<pose>Pose(?:26)?)|(?P<segment>(?:YOLOE)?Segment(?:26)?)|(?P<classify>Classify)"
    r"|(?P<foreign>OBB(?:26)?|SemanticSegment|Depth)|(?P<detect>\w*Detect|RTDETRDecoder))\b"
)
"""The last module of a model definition, by the names of Ultralytics 8.4."""
_FOREIGN: Final = {
    "OBB": "oriented boxes (OBB)",
    "SemanticSegment": "semantic segmentation",
    "Depth": "depth",
}


def check_task(settings: Settings, snapshot: Snapshot) -> None:
    """Check that model and hyperparameters are for such labels. Raises DatasetError with settings that would fit."""
    if settings.training.entrypoint is not None:
        return  # the user's own code decides what it does with the labels
    model = settings.training.model
    faults = [("hyperparameters", message) for message in _hyperparameter_faults(settings, snapshot)]
    task, foreign = _task_of(settings.root / model, model)
    if foreign is not None:
        message = (
            f"training.model {model} is for {foreign}, which is not trained here; take a model for "
            + ", ".join(Task)
        )
        faults.append(("model-task", message))
    elif task is not None and task is not snapshot.task:
        faults.append(("model-task", _message(model, task, snapshot)))
    if faults:
        raise DatasetError([error("", code, message) for code, message in faults])


def _hyperparameter_faults(settings: Settings, snapshot: Snapshot) -> Iterator[str]:
    given, count = settings.training.hyperparameters, len(snapshot.classes)
    batch, images = settings.training.batch, snapshot.images["train"]
    smallest = max(32, int(settings.training.image_size * (1 - given.get("multi_scale", 0.0))))
    # Batch normalisation has no variance of one image whose features are one pixel at the last stride.
    if smallest < 64 and (images % batch or batch) == 1 and not {"compile", "fraction"} & given.keys():
        yield (
            f"the last batch has one image ({images} images, training.batch {batch}), which cannot be normalised at {smallest} "
            "pixels; change training.batch, or set training.image-size to 64 or more without multi_scale"
        )
    classes = given.get("classes", [])
    if unknown := [i for i in ([classes] if isinstance(classes, int) else classes) if i >= count]:
        yield (
            f"training.hyperparameters.classes names {', '.join(map(str, unknown))}, and the dataset's classes are 0 to "
            f"{count - 1}; correct it"
        )
    if given.get("split") == "test" and not snapshot.images["test"]:
        yield (
            'training.hyperparameters.split is "test", and the dataset has no test images; remove it, or set '
            "dataset.split.test"
        )


def _task_of(file: Path, model: str) -> tuple[Task | None, str | None]:
    """Return a model's task, or what it is for instead; None where that is not known before it is loaded."""
    if file.is_file() and file.suffix in {".yaml", ".yml"}:
        if file.stat().st_size > _LARGEST_DEFINITION:
            return None, None
        heads = list(_HEAD.finditer(file.read_text("utf-8", errors="replace")))
        if not heads:
            return None, None
        kind = heads[-1].lastgroup
        if kind == "foreign":
            return None, _FOREIGN[heads[-1][kind].removesuffix("26")]
        return Task(str(kind)), None
    if "/" in model or ":" in model:
        return None, None
    return built_in_task(model.rpartition(".")[0]), None


def _message(model: str, task: Task, snapshot: Snapshot) -> str:
    labels = {
        Task.DETECT: "boxes",
        Task.SEGMENT: "polygons",
        Task.POSE: "boxes with keypoints",
        Task.CLASSIFY: "class folders",
    }[snapshot.task]
    message = f"the dataset has {labels}, and training.model {model} is for {task}"
    remedies = []
    fitting = _model_for(model, snapshot.task)
    if fitting is not None:
        remedies.append(f'set training.model = "{fitting}"')
    if snapshot.task is Task.SEGMENT and task is Task.DETECT:
        remedies.append('set dataset.task = "detect" to train on the boxes around the polygons')
    if snapshot.task is Task.DETECT and task is Task.SEGMENT:
        remedies.append("draw polygons")
    if task is Task.POSE:
        remedies.append("write a data.yaml with kpt_shape: [number, 2 or 3] if the labels hold keypoints")
    note = ""
    if any(finding.code == "four-corners" for finding in snapshot.warnings):
        note = ". Oriented boxes (OBB), which have four corners too, are not trained here"
    for finding in snapshot.warnings:
        if finding.code == "mixed-labels" and task is Task.SEGMENT:
            note = f". {finding.text().partition(';')[0]}"
    return f"{message}; {', or '.join(remedies) or 'take a model for ' + snapshot.task}{note}"


def _model_for(model: str, task: Task) -> str | None:
    """Return the variant of a built-in model that is for a task; None where the name is not of that kind."""
    match = re.fullmatch(r"(yolo(?:v8|v9|11|12|26)\w*?)(?:-(?:seg|pose|cls))?\.(ya?ml|pt)", model)
    return f"{match[1]}{_SUFFIX_OF_TASK[task]}.{match[2]}" if match else None
