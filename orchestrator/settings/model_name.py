"""Model names and starting weights in settings."""

import re
from typing import Final

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.settings.fault import wrong

BUILT_IN_MODEL = (
    r"(?:(?:yolov(?:3|5|6|8|9|10)|yolo(?:11|12|26))[nsmlxbtce]?(?:6?u)?"
    r"(?:-(?:seg|pose|cls|p2|p6|ghost|sppu?|tinyu?|rtdetr|oiv7|resnet\d+))*|rtdetr-(?:l|x|resnet\d+))"
)
"""Stems of the models that Ultralytics 8.4 defines or publishes for the four tasks we train."""

_WEB_WEIGHTS = r"https://[^\s#@]+\.(?:pt|pth)(?:\?[^\s#]*)?#sha256=[0-9a-f]{64}"

_STORE_KEY = r"store:(?!/)(?!(?:\S*/)?\.{1,2}(?:/|$))[^\s\\]*[^\s\\/]"

WEIGHTS_PATTERN = rf"{BUILT_IN_MODEL}\.pt|{_WEB_WEIGHTS}|{_STORE_KEY}"

MODEL_PATTERN = rf"[^:#]+\.ya?ml|{WEIGHTS_PATTERN}"

VERSION_PATTERN = r"stable|v?\d{1,7}\.\d{1,7}\.\d{1,7}|[0-9a-f]{16}"
"""A published version: the alias, a number, the digits of its training key."""

INIT_PATTERN = rf"scratch|{VERSION_PATTERN}|{WEIGHTS_PATTERN}"

_WEIGHTS_REMEDY = (
    "weights are a published name (yolo11n.pt), https://HOST/FILE.pt#sha256=64 hex digits, or store:KEY "
    "for an object in the store"
)


TASK_OF_SUFFIX: Final = {"seg": Task.SEGMENT, "pose": Task.POSE, "cls": Task.CLASSIFY}


def built_in_task(stem: str) -> Task | None:
    """Return the task of a model that Ultralytics defines, by its name; None for any other name."""
    if not stem.startswith(("yolo", "rtdetr")):
        return None
    # `yolov8n-seg-p6.yaml`: the task need not be the last suffix.
    suffixes = re.findall(r"-(seg|pose|cls)(?=[-.]|$)", stem)
    return TASK_OF_SUFFIX[suffixes[0]] if suffixes else Task.DETECT


def is_weights(model: str) -> bool:
    """Whether a `model` or `init-from` names trained weights, as opposed to a definition or `scratch`."""
    return re.fullmatch(WEIGHTS_PATTERN, model, re.ASCII) is not None


def check_model(value: str) -> str:
    """Validate a model's name."""
    if re.fullmatch(MODEL_PATTERN, value, re.ASCII):
        return value
    if value.startswith("http:") or (value.startswith("https:") and "#sha256=" not in value):
        raise wrong(
            f"{value!r} could be anything", "write https://HOST/FILE.pt#sha256=64 hex digits of the file"
        )
    if re.fullmatch(BUILT_IN_MODEL, value):
        raise wrong(
            f"{value!r} lacks its ending",
            f"write {value}.yaml to start from nothing, {value}.pt from published weights",
        )
    raise wrong(
        f"{value!r} is no model", f"write a definition (yolov8n.yaml or a path to yours); {_WEIGHTS_REMEDY}"
    )


def check_init_from(value: str) -> str:
    """Validate where a training starts from."""
    if re.fullmatch(INIT_PATTERN, value, re.ASCII):
        return value
    raise wrong(
        f"{value!r} is nothing to start from",
        f"write scratch; stable or a version, to continue it; {_WEIGHTS_REMEDY}",
    )
