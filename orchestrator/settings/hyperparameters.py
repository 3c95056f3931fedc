"""Ultralytics' hyperparameters: type and bounds of each, and which do not fit together. Pure.

Ultralytics checks some of them itself (`cfg.check_cfg`), in the process that trains: on an instance that is paid for by then.
It takes seconds to import, and a machine that only rents does not have it. A test compares these types with its own check.
"""

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, PlainValidator, ValidationError, create_model
from pydantic.json_schema import WithJsonSchema

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.settings.fault import wrong
from gpu_offload.orchestrator.settings.messages import Problem, explain, shown
from gpu_offload.orchestrator.settings.types import Count, Flag, Number, Text
from gpu_offload.remote_job.hyperparameters import OURS, known

TABLE = ("training", "hyperparameters")

Fraction = Annotated[Number, Field(ge=0, le=1)]
Gain = Annotated[Number, Field(ge=0)]
# Ultralytics takes 10.0 as 10.
_Whole = Annotated[Count, BeforeValidator(lambda v: int(v) if isinstance(v, float) and v.is_integer() else v)]
FromZero = Annotated[_Whole, Field(ge=0)]
FromOne = Annotated[_Whole, Field(ge=1)]


def _choice(*names: str, flag: bool = False, exact: bool = False) -> Any:
    """Return the type of one of these texts, in any case unless `exact`; with `flag` also true and false."""

    def check(value: object) -> object:
        if flag and isinstance(value, bool):
            return value
        if isinstance(value, str) and (value if exact else value.lower()) in spelled:
            return value
        written = [*(("true", "false") if flag else ()), *(f'"{name}"' for name in names)]
        raise wrong(f"it is {shown(value)}", f"write {', '.join(written[:-1])} or {written[-1]}")

    spelled = set(names) if exact else {name.lower() for name in names}
    texts = sorted(spelled | set(names))
    kinds = {"type": ["boolean", "string"], "enum": [True, False, *texts]} if flag else {"enum": texts}
    return Annotated[Any, PlainValidator(check), WithJsonSchema(kinds)]


def _number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _scale(value: object) -> object:
    if _number(value, 0, 1):
        return value
    # An image that is scaled to nothing has no inverse.
    if isinstance(value, list | tuple) and len(value) == 2 and all(_number(v, 1e-3, 1e3) for v in value):
        return value
    raise wrong(f"it is {shown(value)}", "write a number from 0 to 1, or two factors: [0.5, 2.0]")


def _fraction(value: object) -> object:
    def part(one: object, low: float) -> bool:
        return (isinstance(one, float) and low < one <= 1) or (_index(one) and one > low)  # type: ignore[operator]

    if isinstance(value, list | tuple):
        if len(value) in {2, 3} and all(part(one, 0) for one in value[:2]) and part(value[-1], -1e-9):
            return value
    elif part(value, 0):
        return value
    raise wrong(
        f"it is {shown(value)}",
        "write a part of the training images up to 1.0, a number of them, or both for [train, val]",
    )


def _indices(value: object) -> object:
    if _index(value) or (isinstance(value, list | tuple) and value and all(map(_index, value))):
        return value
    raise wrong(f"it is {shown(value)}", "write an index from 0 on, or a list of them: [0, 2]")


def _freeze(value: object) -> object:
    if _index(value):
        return value
    if isinstance(value, list | tuple) and all(
        _index(one) or (isinstance(one, str) and one) for one in value
    ):
        return value
    raise wrong(
        f"it is {shown(value)}",
        'write a number of layers, or a list of their indices or names: [0, "23.cv2"]',
    )


def _either(check: Any, *types: str) -> Any:
    return Annotated[Any, PlainValidator(check), WithJsonSchema({"type": list(types)})]


_COMPILERS = "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"

_NAMES: tuple[tuple[Any, str], ...] = (
    (
        Fraction,
        (
            "dropout lr0 lrf cls_pw momentum weight_decay warmup_momentum warmup_bias_lr hsv_h hsv_s hsv_v translate perspective "
            "flipud fliplr bgr mosaic mixup cutmix copy_paste erasing conf iou multi_scale dlam"
        ),
    ),
    (Gain, "warmup_epochs box cls dfl pose kobj rle angle dlog dgrad dis workspace"),
    (Number, "degrees shear"),
    (FromZero, "patience workers close_mosaic"),
    (FromOne, "nbs max_det mask_ratio vid_stride line_width opset"),
    (
        Flag,
        (
            "verbose deterministic single_cls rect cos_lr overlap_mask val save_json dnn plots show save_txt save_conf save_crop "
            "save_frames show_labels show_conf show_boxes visualize augment agnostic_nms retina_masks stream_buffer optimize "
            "dynamic simplify nms profile channels_last cls_remap"
        ),
    ),
    (Text, "format tracker"),
    (_choice("auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop"), "optimizer"),
    (_choice("fp16", "bf16", "fp32", flag=True), "amp"),
    (_choice("ram", "disk", flag=True), "cache"),
    (_choice(*_COMPILERS, flag=True, exact=True), "compile"),
    (_choice("flip", "mixup", exact=True), "copy_paste_mode"),
    (_choice("randaugment", "autoaugment", "augmix", "", exact=True), "auto_augment"),  # empty: none
    (_choice("val", "test", "train", exact=True), "split"),
    (_either(_scale, "number", "array"), "scale"),
    (_either(_fraction, "number", "array"), "fraction"),
    (_either(_indices, "integer", "array"), "classes embed"),
    (_either(_freeze, "integer", "array"), "freeze"),
)
"""Of Ultralytics 8.4.190. Stricter than its check where it would train in a way that was not meant: with true for a number,
a negative weight, a text that stands for nothing."""


@cache
def model() -> type[BaseModel]:
    """Return the hyperparameters as a pydantic model, in which each may be left out."""
    fields: dict[str, Any] = {name: (kind, None) for kind, names in _NAMES for name in names.split()}
    return create_model("Hyperparameters", **fields)


def problems(values: Mapping[str, Any], task: Task | None, image_size: int) -> Iterator[Problem]:
    """Yield what Ultralytics would refuse, or crash on; names that gpu-offload manages are not looked at."""
    if not values:
        return
    names = model().model_fields
    # The installed Ultralytics may be newer than the table.
    for name in [name for name in values if name not in names and name not in {*OURS, *(known() or ())}]:
        close = difflib.get_close_matches(name, names, n=3)
        remedy = f"did you mean {' or '.join(close)}?" if close else "remove it"
        yield Problem((*TABLE, name), f"{_of(name)}: Ultralytics has no such hyperparameter", remedy)
    try:
        model().model_validate(values)
    except ValidationError as error:
        yield from explain([{**e, "loc": (*TABLE, *e["loc"])} for e in error.errors(include_url=False)])
    else:
        yield from _unfit(values, task, image_size)


def _unfit(given: Mapping[str, Any], task: Task | None, image_size: int) -> Iterator[Problem]:
    """Yield what only torch and torchvision refuse: values that do not fit the others."""
    # The first beta of these: torch divides by 1 - momentum.
    if "adam" in str(given.get("optimizer", "auto")).lower() and given.get("momentum") == 1:
        yield Problem(
            (*TABLE, "momentum"),
            f"{_of('momentum')} is 1, which {given['optimizer']} cannot train with",
            "write for example 0.9",
        )
    if task is Task.CLASSIFY:
        if isinstance(given.get("scale"), list | tuple):
            yield Problem(
                (*TABLE, "scale"),
                f"{_of('scale')} is a list, which classifiers do not take",
                "write one number",
            )
        if given.get("auto_augment") == "" and given.get("hsv_h", 0) > 0.5:
            yield Problem(
                (*TABLE, "hsv_h"),
                f"{_of('hsv_h')} is {given['hsv_h']:g}",
                "write at most 0.5 for a classifier",
            )
    if task is Task.SEGMENT and given.get("mask_ratio", 4) > image_size:
        yield Problem(
            (*TABLE, "mask_ratio"),
            f"{_of('mask_ratio')} is {given['mask_ratio']}, more than training.image-size",
            "write for example 4",
        )


def _of(name: str) -> str:
    return ".".join((*TABLE, name))
