"""Times of finished trainings, kept in the store; the estimate learns from them."""

import importlib.metadata
from collections.abc import Iterator

from pydantic import ValidationError

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.estimate.posterior import HistoryKey, Ratio
from gpu_offload.remote_job.wire import Wire

MOST_RECENT = 200
"""Most timings read: older ones say little about today's machines and releases."""


class Timing(Wire):
    """A finished training; `predicted` is the uncorrected estimate.

    Both are seconds: of the training's process on a CPU, from launch to the instance's end on EC2, boot and set-up
    included.
    """

    format: int = 1
    run: str
    machine: str
    ultralytics: str
    dataset: str
    family: str
    predicted: float
    actual: float


def ultralytics_minor() -> str:
    """Return the minor version of the installed Ultralytics, "" if it is not installed."""
    try:
        return ".".join(importlib.metadata.version("ultralytics").split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return ""


def family_of(model: str) -> str:
    """Return a model's family: `yolo26-seg` for `weights/yolo26n-seg.pt`."""
    stem = model.rsplit("/", 1)[-1].split(".", 1)[0]
    base, dash, task = stem.partition("-")
    return base.rstrip("nsmlx") + dash + task


def history(store: ObjectStore) -> Iterator[Ratio]:
    """Yield the ratios of past trainings; a timing that cannot be read is skipped."""
    try:
        recent = sorted(store.list("timings/"), key=lambda info: info.modified)[-MOST_RECENT:]
        for info in recent:
            body, _ = store.read(info.key)
            try:
                timing = Timing.model_validate_json(body)
                key = HistoryKey(timing.machine, timing.ultralytics, timing.dataset, timing.family)
                yield Ratio(timing.predicted, timing.actual, key)
            except (ValidationError, ValueError):
                continue
    except StoreError:
        return
