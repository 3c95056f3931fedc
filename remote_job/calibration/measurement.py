"""Measuring a trainer: a few of its real steps, a look at its validation, one save."""

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ultralytics.utils.torch_utils import autocast, get_flops, get_num_params, unwrap_model

from gpu_offload.dataset.task import Task

STEPS = 3
VALIDATION_BATCHES = 3
DECODED = 12
"""Images that are decoded to see what a cache of decoded images saves."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Seconds, as `remote_job.result.Calibration` explains them."""

    ready: float
    """When the first step could begin, by `time.perf_counter`."""
    gflops: float
    parameters: int
    first_step_extra: float
    decoding: float
    step_mosaic: float | None
    step_plain: float
    optimizer_step: float
    validation_per_image: float
    save: float
    contention: float


@dataclass(slots=True)
class Steps:
    """What the steps of one mode took: each batch's load and compute, and each optimizer step."""

    batches: list[float]
    optimizer: list[float]

    @property
    def batch(self) -> float:
        """A batch's usual time."""
        return statistics.median(self.batches)


class Measured:
    """Mixed in right before one of Ultralytics' trainers: measures in place of the loop.

    Being the innermost, it runs with all that the other mixins put around the loop.
    """

    measurement: Measurement

    def _do_train(self) -> None:
        trainer: Any = self
        trainer._setup_train()  # noqa: SLF001 - Ultralytics' name
        ready = time.perf_counter()
        try:
            self.measurement = measure(trainer, ready)
        finally:
            for loader in (trainer.train_loader, trainer.test_loader):
                loader.close()


def measure(trainer: Any, ready: float) -> Measurement:
    """Measure a trainer that is set up."""
    with_mosaic, without = modes(trainer.bench.spec.task, trainer.args)
    wall, own = time.perf_counter(), time.thread_time()
    trainer.epoch = 0
    trainer.model.train()
    trainer.optimizer.zero_grad()
    if not with_mosaic:
        _close_mosaic(trainer)
    first = _steps(trainer, 1)
    usual = plain = _steps(trainer, STEPS)
    if with_mosaic and without:
        _close_mosaic(trainer)
        plain = _steps(trainer, STEPS)
    contention = (time.perf_counter() - wall) / max(time.thread_time() - own, 1e-9)
    decoding = _saved_by_cache(trainer) * trainer.train_loader.batch_size
    optimizer = statistics.median([*usual.optimizer, *plain.optimizer])
    validation = _validation(trainer)
    save = _save(trainer)
    model = unwrap_model(trainer.model)
    return Measurement(
        ready=ready,
        gflops=float(get_flops(model, trainer.args.imgsz)),
        parameters=int(get_num_params(model)),
        first_step_extra=max(0.0, first.batch + first.optimizer[0] - usual.batch - optimizer),
        decoding=decoding,
        step_mosaic=max(usual.batch - decoding, 1e-4) if with_mosaic else None,
        step_plain=max(plain.batch - decoding, 1e-4),
        optimizer_step=optimizer,
        validation_per_image=validation,
        save=save,
        # On a GPU the processor waits, also on an idle machine.
        contention=contention if trainer.device.type == "cpu" else 1.0,
    )


def _close_mosaic(trainer: Any) -> None:
    """Do what the loop does before its last epochs."""
    trainer._close_dataloader_mosaic()  # noqa: SLF001 - Ultralytics' name
    trainer.train_loader.reset()


def modes(task: Task, arguments: Any) -> tuple[bool, bool]:
    """Say whether the training has epochs with mosaic, and epochs without."""
    if task is Task.CLASSIFY or not arguments.mosaic:
        return False, True
    if not arguments.close_mosaic:
        return True, False
    return arguments.epochs > arguments.close_mosaic, True


def _steps(trainer: Any, count: int) -> Steps:
    """Load, propagate forward and back, and step, as the loop does."""
    result = Steps([], [])
    batches = _forever(trainer.train_loader)
    for _ in range(count):
        begun = time.perf_counter()
        batch = next(batches)
        with autocast(trainer.amp, device=trainer.device.type):
            batch = trainer.preprocess_batch(batch)
            loss, trainer.loss_items = trainer.model(batch)
            trainer.loss = loss.sum()
        trainer.tloss = trainer.loss_items
        trainer.loss_names = tuple(trainer.loss_items)
        trainer.scaler.scale(trainer.loss).backward()
        _synchronise(trainer)
        computed = time.perf_counter()
        trainer.optimizer_step()
        _synchronise(trainer)
        result.batches.append(computed - begun)
        result.optimizer.append(time.perf_counter() - computed)
    return result


def _forever(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def _synchronise(trainer: Any) -> None:
    if trainer.accelerator is not None:
        trainer.accelerator.synchronize()


def _saved_by_cache(trainer: Any) -> float:
    """Return the seconds an image that a cache of decoded images saves from the second epoch on.

    The steps above decoded every image; those that fit into memory are not decoded again.
    """
    dataset = trainer.train_loader.dataset
    if not trainer.speed.on("image_cache") or trainer.train_loader.num_workers:
        return 0.0
    load = getattr(dataset, "load_image", None) or getattr(dataset, "imread", None)
    cache, decode = getattr(load, "cache", None), getattr(load, "load", None) or getattr(load, "read", None)
    if cache is None or decode is None:
        return 0.0
    whole = not hasattr(dataset, "load_image")
    chosen = range(0, len(dataset), max(1, len(dataset) // DECODED))
    seconds, size = [], 0
    for index in chosen:
        if not whole:
            dataset.ims[index] = None
        begun = time.perf_counter()
        image = decode(dataset.samples[index][0] if whole else index)
        seconds.append(time.perf_counter() - begun)
        size += (image if whole else image[0]).nbytes
    fits = min(1.0, float(cache.limit) / max(1.0, size / len(chosen) * len(dataset)))
    return statistics.median(seconds) * fits


class _Head:
    """The first batches of a loader, as a validator sees a loader."""

    def __init__(self, loader: Any, batches: int) -> None:
        self.dataset = loader.dataset
        self.batch_size = loader.batch_size
        self.images = 0
        self._loader = loader
        self._batches = batches

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Any]:
        self._loader.reset()
        self.images = 0
        for batch in itertools.islice(iter(self._loader), self._batches):
            self.images += len(batch["img"])
            yield batch


def _validation(trainer: Any) -> float:
    """Return the seconds a validation image takes, loading included."""
    head = _Head(trainer.test_loader, min(len(trainer.test_loader), VALIDATION_BATCHES))
    trainer.validator.dataloader = head
    if trainer.speed.on("image_cache"):
        # Every validation but the first finds its images in memory.
        for _ in head:
            pass
    begun = time.perf_counter()
    trainer.validator(trainer)
    return (time.perf_counter() - begun) / max(1, head.images)


def _save(trainer: Any) -> float:
    """Return the seconds that saving an epoch takes."""
    trainer.history.append({"epoch": 1, "train": 0.0, "validation": 0.0, "save": 0.0})
    trainer.lr = {}
    trainer.fitness = trainer.best_fitness = 0.0
    begun = time.perf_counter()
    trainer.save_model()
    return time.perf_counter() - begun
