"""Checks a model's name against those of Ultralytics 8.4, without a network and without importing it."""

import re
from itertools import product
from pathlib import Path

from gpu_offload.orchestrator.plan.project import UnknownNameError, check_inside, suggestion
from gpu_offload.orchestrator.settings.model_name import is_weights

_SCALED = {
    "yolov5": ("", "-p6"),
    "yolov6": ("",),
    "yolov8": (
        "", "-p2", "-p6", "-ghost", "-ghost-p2", "-ghost-p6", "-rtdetr", "-seg", "-seg-p6", "-pose", "-pose-p6",
        "-cls", "-cls-resnet50", "-cls-resnet101",
    ),
    "yolo11": ("", "-seg", "-pose", "-cls"),
    "yolo12": ("", "-seg", "-pose", "-cls"),
    "yolo26": ("", "-p2", "-p6", "-seg", "-pose", "-cls"),
}  # fmt: skip
"""Definitions in Ultralytics 8.4.190's cfg/models for our tasks; each takes a scale n, s, m, l, x, or none."""

_PLAIN = (
    "yolov3", "yolov3-spp", "yolov3-tiny", "yolov9t", "yolov9s", "yolov9m", "yolov9c", "yolov9e", "yolov9c-seg",
    "yolov9e-seg", "yolov10n", "yolov10s", "yolov10m", "yolov10b", "yolov10l", "yolov10x", "yolo11-cls-resnet18",
    "rtdetr-l", "rtdetr-x", "rtdetr-resnet50", "rtdetr-resnet101",
)  # fmt: skip
"""Definitions without scales."""

_PUBLISHED = {
    "yolov5": ("u", "6u"),
    "yolov8": ("", "-seg", "-pose", "-cls", "-oiv7"),
    "yolo11": ("", "-seg", "-pose", "-cls"),
    "yolo12": ("",),
    "yolo26": ("", "-seg", "-pose", "-cls"),
}
_PUBLISHED_PLAIN = (
    "yolov3u", "yolov3-sppu", "yolov3-tinyu", "yolov8x-pose-p6", "yolov9t", "yolov9s", "yolov9m", "yolov9c",
    "yolov9e", "yolov9c-seg", "yolov9e-seg", "yolov10n", "yolov10s", "yolov10m", "yolov10b", "yolov10l", "yolov10x",
    "rtdetr-l", "rtdetr-x",
)  # fmt: skip
"""Weights in the release v8.4.0 of ultralytics/assets for our tasks."""

_LAYERS = {
    "yolov3": 29, "yolov3-spp": 29, "yolov3-tiny": 21, "yolov5": 25, "yolov5-p6": 34, "yolov6": 29, "yolov8": 23,
    "yolov8-p2": 29, "yolov8-p6": 31, "yolov8-cls": 10, "yolov8-cls-resnet50": 6, "yolov8-cls-resnet101": 6, "yolov9": 23,
    "yolov9t": 23, "yolov9c": 23, "yolov9e": 43, "yolov10": 24, "yolov10b": 24, "yolo11": 24, "yolo11-cls": 11,
    "yolo11-cls-resnet18": 2, "yolo12": 22, "yolo12-cls": 10, "yolo26": 24, "yolo26-p2": 30, "yolo26-p6": 32,
    "yolo26-cls": 11, "rtdetr-l": 29, "rtdetr-x": 33, "rtdetr-resnet50": 24, "rtdetr-resnet101": 24,
}  # fmt: skip
"""Layers of each definition, of all scales and of the tasks that share it."""

DEFINITIONS = frozenset(
    f"{name}.yaml"
    for name in (
        *_PLAIN,
        *(f"yolov{family}{scale}6" for family, scale in product("58", "nsmlx")),  # read as -p6
        *(
            f"{family}{scale}{kind}"
            for family, kinds in _SCALED.items()
            for scale, kind in product(("", *"nsmlx"), kinds)
        ),
    )
)
WEIGHTS = frozenset(
    f"{name}.pt"
    for name in (
        *_PUBLISHED_PLAIN,
        *(
            f"{family}{scale}{kind}"
            for family, kinds in _PUBLISHED.items()
            for scale, kind in product("nsmlx", kinds)
        ),
    )
)


def layers_of(name: str) -> int | None:
    """Return the number of layers of a model by its name; None for one that Ultralytics does not know."""
    stem = re.sub(r"^(yolov[58][nsmlx])6", r"\1-p6", name.rpartition(".")[0])
    stem = re.sub(r"(\d+)[nslmx](?=-|u|$)", r"\1", stem)
    return _LAYERS.get(re.sub(r"-(?:seg|pose|ghost|rtdetr|oiv7)(?=-|$)|u$", "", stem))


def model_file(root: Path, name: str, *, is_own: bool) -> Path | None:
    """Return the model definition if it is a file of the user's, None for a name that Ultralytics knows.

    If the user's own code interprets the name (`is_own`), it can be anything. Raises UnknownNameError, with similar
    names.
    """
    path = root / name
    if path.is_file():
        check_inside(root, path)
        return path
    if is_own:
        return None
    if is_weights(name):
        check_weights("training.model", name)
        return None
    plain = name[: -len(".yml")] + ".yaml" if name.endswith(".yml") else name
    if "/" in name or plain not in DEFINITIONS:
        raise UnknownNameError(
            f"training.model: there is no file {name} in {root}, and no model of Ultralytics has this name"
            + suggestion(Path(plain).name, DEFINITIONS)
        )
    return None


def check_weights(setting: str, name: str) -> None:
    """Refuse a name of published weights that does not exist. Raises UnknownNameError."""
    if name.endswith(".pt") and "/" not in name and ":" not in name and name not in WEIGHTS:
        raise UnknownNameError(
            f"{setting}: Ultralytics publishes no weights {name}" + suggestion(name, WEIGHTS)
        )
