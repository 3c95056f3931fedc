"""What a training's first steps cannot show: a taste of its validation, its other mode and its cache of pictures.

Takes some tenths of a second, between two steps. Works on copies, draws its own random numbers and puts the generators
back: the training goes on as if nothing had happened.
"""

import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

from gpu_offload.remote_job.yolo import tensors as states
from gpu_offload.remote_job.yolo.protocol import Trainer

IMAGES = 8
"""Images that are loaded for a look."""
VALIDATED = 16
"""Images of a look at validation: by the image, smaller batches take longer than those of a validation."""


def other_mode(trainer: Trainer, *, mosaic: bool) -> float:
    """Return how much longer a batch loads with mosaic off, if it is on now, in seconds; below zero where it is shorter.

    The trainer is in the middle of an epoch, with pictures in the buffer that mosaics draw from.
    """
    dataset = trainer.train_loader.dataset
    indices = list(dict.fromkeys(dataset.buffer))[-IMAGES:]  # they are in memory: only augmentation differs
    if not mosaic or not indices:
        return 0.0
    before = states.random_state()
    try:
        seconds = [_loading(_with_mosaic(trainer, dataset, on=on), indices) for on in (False, True)]
    finally:
        states.set_random_state(before)
    return (seconds[0] - seconds[1]) * float(trainer.train_loader.batch_size)


def _with_mosaic(trainer: Trainer, dataset: Any, *, on: bool) -> Any:
    changed = copy.copy(dataset)
    arguments = copy.copy(trainer.args)
    if on:
        changed.transforms = changed.build_transforms(arguments)
    else:
        changed.close_mosaic(arguments)
    return changed


def _loading(dataset: Any, indices: Sequence[int]) -> float:
    """Return the seconds of an image."""
    times = []
    for index in indices:
        begun = time.perf_counter()
        dataset[index]
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def decoding(trainer: Trainer) -> float:
    """Return what a batch of the first epoch takes more, because its pictures are not cached yet, in seconds."""
    dataset, batch = trainer.train_loader.dataset, trainer.train_loader.batch_size
    if not trainer.speed.on("image_cache") or trainer.train_loader.num_workers:
        return 0.0
    whole = not hasattr(dataset, "load_image")
    load: Any = getattr(dataset, "imread" if whole else "load_image", None)
    cache = getattr(load, "cache", None)
    if cache is None:
        return 0.0
    apart = copy.copy(dataset)
    if not whole:
        count = len(dataset.ims)
        apart.ims, apart.im_hw0, apart.im_hw, apart.buffer = (
            [None] * count,
            [None] * count,
            [None] * count,
            [],
        )
    times, size = [], 0
    chosen = range(0, len(dataset), max(1, len(dataset) // IMAGES))[:IMAGES]
    for index in chosen:
        begun = time.perf_counter()
        image = load.read(dataset.samples[index][0]) if whole else type(dataset).load_image(apart, index)[0]
        times.append(time.perf_counter() - begun)
        size += image.nbytes
    fits = min(1.0, float(cache.limit) / max(1.0, size / len(times) * len(dataset)))
    return statistics.median(times) * fits * float(batch)


class _Look:
    """A batch of a loader's first images, twice, as a validator sees a loader: the first time warms up."""

    def __init__(self, loader: Any) -> None:
        self.dataset = loader.dataset
        self.batch_size = loader.batch_size
        self.images = min(VALIDATED, loader.batch_size, len(loader.dataset))
        self.seconds = 0.0
        self._collate = loader.collate_fn

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Any]:
        for _ in range(2):
            begun = time.perf_counter()
            yield self._collate([self.dataset[index] for index in range(self.images)])
            self.seconds = time.perf_counter() - begun
        self.ended = time.perf_counter()


def validation(trainer: Trainer) -> float:
    """Return the seconds of a validation image, loading included."""
    loader = trainer.test_loader
    look = _Look(loader)
    validator = copy.copy(trainer.validator)
    validator.args = copy.copy(validator.args)
    validator.args.plots = False
    validator.metrics = copy.deepcopy(validator.metrics)
    validator.callbacks = {}  # an interruption is obeyed between two steps, not in here
    validator.dataloader = look
    before = states.random_state()
    try:
        validator(trainer)
    finally:
        states.set_random_state(before)
    summing = time.perf_counter() - look.ended
    return float(look.seconds / look.images + summing / max(1, len(loader.dataset)))
