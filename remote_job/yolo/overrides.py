"""The arguments that a training passes to Ultralytics."""

from pathlib import Path
from typing import Any

from gpu_offload.remote_job.spec import TrainingSpec


def overrides(
    spec: TrainingSpec,
    *,
    data: Path,
    model: str,
    weights: Path | None,
    folder: Path,
    batch: int | None = None,
) -> dict[str, Any]:
    """Return Ultralytics' settings for a spec; ours win over hyperparameters.

    `data` is data.yaml, or the tree for classification; `model` a model definition, or the name of weights that bring their
    own. Ultralytics may write into `folder`. A smaller `batch` is taken where memory did not suffice before.
    """
    is_definition = model.endswith((".yaml", ".yml"))
    return {
        **spec.hyperparameters,  # first, so that nothing below can be overridden
        "task": spec.task.value,
        "mode": "train",
        "model": model if is_definition or weights is None else str(weights),
        "pretrained": str(weights) if is_definition and weights else True,
        "data": str(data),
        "epochs": spec.epochs,
        "batch": batch or spec.batch,
        "imgsz": spec.image_size,
        "seed": spec.seed,
        "save_dir": str(folder),
        "exist_ok": True,
        **device_settings(spec),
    }


def device_settings(spec: TrainingSpec) -> dict[str, Any]:
    """Return on which devices Ultralytics computes; several batches at once cannot keep the shapes of pictures (`rect`)."""
    if spec.gpus > 1:
        several = ",".join(map(str, range(spec.gpus)))
        return {"device": "cpu" if spec.device == "cpu" else several, "rect": False}
    return {} if spec.device == "auto" else {"device": device_argument(spec.device)}


def device_argument(device: str) -> str:
    """Return a device as Ultralytics takes it: a GPU by its number."""
    name, _, index = device.partition(":")
    return index or "0" if name == "cuda" else name


def device_fault(spec: TrainingSpec) -> str | None:
    """Return why this machine cannot compute on a spec's device; None where it can. Imports torch."""
    import torch

    device, argument = spec.device, device_argument(spec.device)
    if spec.gpus > 1 and device != "cpu" and spec.gpus > torch.cuda.device_count():
        return (
            f"gpus: {spec.gpus} are asked for, and PyTorch finds {torch.cuda.device_count()} CUDA GPUs here"
        )
    if argument.isdigit() and not int(argument) < torch.cuda.device_count():
        return f"device: {device} is asked for, and PyTorch finds {torch.cuda.device_count()} CUDA GPUs here"
    if argument == "mps" and not torch.backends.mps.is_available():
        return "device: mps is asked for, and PyTorch finds no Apple GPU here"
    return None
