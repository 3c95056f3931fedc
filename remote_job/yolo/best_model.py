"""The best model of a training: chosen by fitness, averaged, halved, and written as Ultralytics would."""

import csv
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import ultralytics
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.torch_utils import unwrap_model

from gpu_offload.remote_job.progress import finite
from gpu_offload.remote_job.yolo import tensors as states
from gpu_offload.remote_job.yolo.protocol import Trainer


def capture(trainer: Trainer) -> dict[str, Any]:
    """Return the averaged weights in half precision, as Ultralytics publishes them, and how good they are."""
    weights = {}
    for name, value in trainer.ema.ema.state_dict().items():
        half = value.half() if value.is_floating_point() else value.clone()
        # Half precision overflows where single precision does not.
        weights[name] = torch.nan_to_num(half) if half.is_floating_point() else half
    return {
        "format": states.FORMAT,
        "weights": weights,
        "epoch": trainer.epoch + 1,
        "metrics": {**trainer.metrics, "fitness": trainer.fitness},
    }


def heal_average(trainer: Trainer) -> None:
    """Replace NaN in the average by the model's own finite weights; an average never forgets a NaN."""
    own = unwrap_model(trainer.model).state_dict()
    for name, value in trainer.ema.ema.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all() and torch.isfinite(own[name]).all():
            value.copy_(own[name])


def write(trainer: Trainer, best: dict[str, Any], path: Path) -> None:
    """Write a file that `YOLO(path)` loads: what Ultralytics' `strip_optimizer` leaves of a checkpoint.

    This machine's paths and clock are left out, so that the same training yields the same bytes, interrupted
    or not.
    """
    include = ["yaml", "nc", "args", "names", "stride", "class_weights"]
    trainer.ema.update_attr(trainer.model, include=include)
    model = deepcopy(trainer.ema.ema).half()
    model.load_state_dict(best["weights"])
    model = model.to("cpu", memory_format=torch.contiguous_format)
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.criterion = None  # it holds tensors of the training's device, and is made again when needed
    if hasattr(model, "end2end"):
        model.end2end = (
            trainer.args.nms is False
        )  # as the validator sets it, for a training that only had to finish
    _forget_last_shape(model)
    arguments = {name: value for name, value in vars(trainer.args).items() if name in DEFAULT_CFG_DICT}
    arguments |= {
        "data": Path(str(trainer.args.data)).name,
        "model": Path(str(trainer.args.model)).name,
        "project": None,
        "name": None,
        "device": None,
    }
    model.args = arguments
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "epoch": -1,  # as `strip_optimizer` marks a finished model: nothing to resume
            "best_fitness": None,
            "model": model,
            "ema": None,
            "updates": None,
            "optimizer": None,
            "scaler": None,
            "train_args": arguments,
            "train_metrics": finite(
                {name: value for name, value in best["metrics"].items() if value is not None}
            ),
            "train_results": {k: v for k, v in results(trainer.csv).items() if k != "time"},
            "version": ultralytics.__version__,
            "license": "AGPL-3.0 License (https://ultralytics.com/license)",
            "docs": "https://docs.ultralytics.com",
        },
        path,
    )


Column = list[int] | list[float] | list[str]


def results(path: Path) -> dict[str, Column]:
    """Return the columns of results.csv with the types that Ultralytics' reader gives them; nothing where it would.

    Ultralytics takes polars, whose import is longer than an epoch of a small training.
    """
    try:
        with path.open(newline="") as file:
            names, *rows = csv.reader(file)
        return {name: _typed([row[column] for row in rows]) for column, name in enumerate(names)}
    except (OSError, ValueError, IndexError):
        return {}


def _typed(cells: list[str]) -> Column:
    if "nan" in cells:
        return cells  # which is no number to polars
    for kind in (int, float):
        with suppress(ValueError):
            return [kind(cell) for cell in cells]
    return cells


def _forget_last_shape(model: torch.nn.Module) -> None:
    """Drop the anchors that a detection head made for the last images it saw; it makes them again when needed."""
    for module in model.modules():
        if "anchors" in module.__dict__ and "shape" in module.__dict__:
            module.anchors, module.strides, module.shape = torch.empty(0), torch.empty(0), None
