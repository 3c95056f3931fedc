"""What trainings really took, kept in the store: the estimator learns from it."""

import importlib.metadata
from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.posterior import HistoryKey, Ratio
from gpu_offload.orchestrator.run import RunRecord
from gpu_offload.orchestrator.seen import AttemptSeen
from gpu_offload.remote_job.result import TrainingResult
from gpu_offload.remote_job.wire import Wire

MOST_RECENT = 200
"""Timings read back at most: older ones say little of today's machines and releases."""


class Timing(Wire):
    """One training that is over; `predicted` is the uncorrected estimate.

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
    """Return the minor version of the Ultralytics that would train here, "" where it is not installed."""
    try:
        return ".".join(importlib.metadata.version("ultralytics").split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return ""


def family_of(model: str) -> str:
    """Return a model's family: what is left of `weights/yolo26n-seg.pt` is `yolo26-seg`."""
    stem = model.rsplit("/", 1)[-1].split(".", 1)[0]
    base, dash, task = stem.partition("-")
    return base.rstrip("nsmlx") + dash + task


def record_timing(
    store: ObjectStore, run: RunRecord, result: TrainingResult, attempts: Sequence[AttemptSeen]
) -> None:
    """Keep what a run took, if it was trained in one go from its first epoch and its time was predicted.

    Raises:
        StoreError: It could not be kept.
    """
    trained = next((a for a in attempts if a.record.number == result.attempt), None)
    whole = len(result.timings.epoch_train) == result.epochs and not result.stopped_early
    if trained is None or not whole or run.resumes is not None:
        return
    offer = trained.record.offer
    predicted = next((c.predicted for c in run.candidates if c.offer == offer), None)
    actual = result.timings.total
    if offer.where == "ec2":
        alone = not any(a.host for a in attempts if a is not trained)
        actual = trained.end.at - trained.host.launched_at if trained.host and trained.end and alone else 0.0
    if predicted is None or actual <= 0:
        return
    timing = Timing(
        run=run.id,
        machine=predicted.machine,
        ultralytics=predicted.ultralytics,
        dataset=run.dataset_name,
        family=family_of(run.spec.model),
        predicted=predicted.seconds,
        actual=actual,
    )
    store.put(f"timings/{run.id}.json", timing.model_dump_json(indent=1).encode())


def history(store: ObjectStore) -> Iterator[Ratio]:
    """Yield what is known of past trainings; what cannot be read says nothing, and is no reason to stop."""
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
