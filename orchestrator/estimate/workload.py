"""The amount of work in a training, independent of the machine."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.estimate.architecture import UNKNOWN, facts, host_work

MUON_ITERATIONS = 10_000
"""Above so many iterations `optimizer=auto` takes MuSGD in AdamW's place (Ultralytics 8.4, `build_optimizer`)."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The properties of a training that its duration depends on.

    Raises ValueError: a count is below what a training needs.
    """

    task: Task
    model: str
    gflops_640: float
    """One forward pass of one 640 x 640 image, in 10^9 operations."""
    parameters: int
    dual_head: bool
    image_size: int
    batch: int
    epochs: int
    train_images: int
    val_images: int
    decode: float | None = None
    """Processor seconds to read and decode a picture, on average; None if not measured."""
    dataset_bytes: int = 0
    """What an instance downloads."""
    optimizer: str = "auto"
    mosaic: float = 1.0
    """Probability of mosaic augmentation; classification has none."""
    close_mosaic: int = 10
    """Mosaic is off for the last so many epochs; 0 never turns it off."""
    nbs: int = 64
    """Images that Ultralytics accumulates before an optimiser step."""
    warmup_epochs: float = 3.0
    patience: int = 100
    """Epochs without progress after which it stops; 0 never stops."""
    validate: bool = True
    """Whether every epoch is validated, or the last alone."""
    plots: bool = True
    mixed_precision: bool = True
    """Whether a GPU computes in half precision where it can (`amp`)."""
    exports: int = 0
    """Formats that the model is written in beside its own."""
    multi_scale: float = 0.0
    """By which part a batch is larger or smaller than `image_size`, at most and at random; classification has none."""
    is_assumed: bool = False
    """Whether arithmetic and parameters are those of yolov8s, because no standard model has this name and it was not measured."""
    host_work: float = 1.0
    """What a step costs the processor that issues it, relative to YOLOv8's detectors."""

    def __post_init__(self) -> None:
        least = {"image_size": 1, "batch": 1, "epochs": 1, "train_images": 1, "val_images": 0, "nbs": 1}
        wrong = [
            f"{name} is {getattr(self, name)}, not at least {n}"
            for name, n in least.items()
            if getattr(self, name) < n
        ]
        if not (math.isfinite(self.gflops_640) and self.gflops_640 > 0):
            wrong.append(f"gflops_640 is {self.gflops_640}, not above 0")
        if wrong:
            raise ValueError("a training cannot be estimated: " + "; ".join(wrong))

    @property
    def area(self) -> float:
        """Pixels of an image relative to 640 x 640, on average over the sizes of batches."""
        return (self.image_size / 640) ** 2 * (1 + self.multi_scale**2 / 3)

    @property
    def gflops(self) -> float:
        """One forward pass of one image at this training's size; arithmetic grows with the area."""
        return self.gflops_640 * self.area

    @property
    def batch_images(self) -> int:
        """Images of a full batch: no more than there are (`build_dataloader`)."""
        return min(self.batch, self.train_images)

    @property
    def batches(self) -> int:
        """Batches per epoch."""
        return math.ceil(self.train_images / self.batch)

    @property
    def mosaic_epochs(self) -> int:
        """Epochs with mosaic on: none of the last `close_mosaic`, so none at all in a short training."""
        if self.task is Task.CLASSIFY or self.mosaic <= 0:
            return 0
        return max(0, self.epochs - self.close_mosaic)

    @property
    def earliest_epochs(self) -> int:
        """The first epoch after which early stopping can end it: the case where epoch 1 was the best."""
        return min(self.epochs, self.patience + 1) if self.patience > 0 else self.epochs

    @property
    def heavy_optimizer(self) -> bool:
        """Whether each step orthogonalises matrices (MuSGD), chosen by name or by `auto`."""
        return self.optimizer.lower() == "musgd" or (
            self.optimizer.lower() == "auto" and self.epochs > self._light_epochs
        )

    @property
    def measured_epochs(self) -> int:
        """Epochs of the training measured in place of this one: the optimiser is the same, and mosaic is on at first."""
        return self._light_epochs + 1 if self.heavy_optimizer else max(1, self._light_epochs)

    @property
    def _light_epochs(self) -> int:
        """The most epochs with which `optimizer=auto` takes AdamW."""
        return MUON_ITERATIONS // math.ceil(self.train_images / max(self.batch, self.nbs))

    def optimizer_steps(self, batches: int | None = None) -> int:
        """Count the optimiser's steps in the first `batches` (None: all), replaying the accumulation's ramp.

        Ultralytics accumulates 1 batch at first and nbs/batch after the warm-up, in between linearly
        (`engine/trainer.py`, 8.4).
        """
        total = self.batches * self.epochs
        wanted = total if batches is None else min(batches, total)
        full = min(max(round(self.nbs / self.batch), 1), total)
        warm = round(max(0.0, min(self.warmup_epochs, self.epochs - 1)) * self.batches)
        steps, last, begin = 0, -1, 0
        ramp = range(min(warm + 1, wanted) if warm else 0)

        def accumulated(i: int) -> int:
            return max(1, round(1 + (full - 1) * i / warm))

        while begin < len(ramp):  # stretches of one accumulation, of which there are few, at any length
            each = accumulated(begin)
            end = bisect_right(ramp, each, lo=begin, key=accumulated)
            if (taken := (end - 1 - max(last, begin - each)) // each) > 0:
                steps, last = steps + taken, max(last, begin - each) + taken * each
            begin = end
        return steps + max(0, wanted - 1 - last) // full


def workload(
    *,
    task: Task,
    model: str,
    image_size: int,
    batch: int,
    epochs: int,
    train_images: int,
    val_images: int,
    hyperparameters: Mapping[str, Any] | None = None,
    decode: float | None = None,
    dataset_bytes: int = 0,
    exports: int = 0,
) -> Workload:
    """Describe a training by its settings; missing hyperparameters have Ultralytics' defaults. Raises ValueError.

    Until it is calibrated, a model of the user's counts as the standard one of its file's name, else as yolov8s.
    """
    given = hyperparameters or {}
    known = facts(model) or facts(model.partition("#")[0].rsplit("/", 1)[-1]) or UNKNOWN
    fractions = given.get("fraction", 1.0)
    fractions = [*fractions, 1.0][:2] if isinstance(fractions, list | tuple) else [fractions, 1.0]
    train_images, val_images = map(_taken, (train_images, val_images), fractions)
    return Workload(
        task=task,
        model=model,
        gflops_640=known.gflops_640,
        # Counted with 1000 classes, most of which a head of 1280 features for a few has not.
        parameters=known.parameters
        - (1_280_000 if task is Task.CLASSIFY and known.parameters > 1_290_000 else 0),
        dual_head=known.dual_head,
        image_size=image_size,
        batch=batch,
        epochs=epochs,
        train_images=train_images,
        val_images=val_images,
        decode=decode,
        dataset_bytes=dataset_bytes,
        exports=exports,
        is_assumed=known is UNKNOWN,
        host_work=host_work(known.name),
        optimizer=str(given.get("optimizer", "auto")),
        mosaic=0.0 if given.get("rect") else float(given.get("mosaic", 1.0)),
        close_mosaic=int(given.get("close_mosaic", 10)),
        nbs=int(given.get("nbs", 64)),
        warmup_epochs=float(given.get("warmup_epochs", 3.0)),
        patience=int(given.get("patience", 100)),
        validate=bool(given.get("val", True)),
        plots=bool(given.get("plots", True)),
        mixed_precision=str(given.get("amp", True)).lower() not in {"false", "fp32"},
        multi_scale=0.0 if task is Task.CLASSIFY else float(given.get("multi_scale", 0.0)),
    )


def _taken(images: int, fraction: float) -> int:
    """Return how many images of a split `fraction` takes: a part up to 1.0, or a number (`get_split_fraction`)."""
    if fraction in {0, 1}:
        return images
    return min(images, fraction if isinstance(fraction, int) else max(1, round(images * fraction)))
