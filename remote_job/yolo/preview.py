"""What a training's first steps cannot show: a taste of its validation, checkpoints, other mode and cache of pictures.

Takes some tenths of a second, between two steps. Works on copies, draws its own random numbers and puts the generators
back: the training goes on as if nothing had happened.
"""

import copy
import hashlib
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

from gpu_offload.remote_job.files import durable
from gpu_offload.remote_job.speed.image_cache import ScaledImages, WholeImages
from gpu_offload.remote_job.yolo import best_model, trainer_state
from gpu_offload.remote_job.yolo import tensors as states
from gpu_offload.remote_job.yolo.protocol import Trainer

IMAGES = 8
"""Images that are loaded for a look."""
VALIDATED = 16
"""Least images of a look at validation: by the image, smaller batches take longer than those of a validation."""
CHEAP_S = 0.5
"""Seconds up to which a look at validation takes more images."""


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


def loading(trainer: Trainer, first: float) -> float:
    """Return the seconds that later epochs take to load a batch of the first epoch, which took `first`.

    Their pictures are in the cache, as far as it has room.
    """
    dataset, loader = trainer.train_loader.dataset, trainer.train_loader
    load: Any = getattr(dataset, "load_image", None) or getattr(dataset, "imread", None)
    if loader.num_workers or not isinstance(load, ScaledImages | WholeImages) or not load.kept:
        return first
    apart = copy.copy(dataset)
    if isinstance(load, ScaledImages):
        size = statistics.fmean(image.nbytes for image, *_ in load.kept.values())
        indices = list(dict.fromkeys(key[0] for key in load.kept))
        apart.load_image = copy.copy(load)
        apart.load_image.dataset = apart
        apart.ims, apart.im_hw0, apart.im_hw, apart.buffer = (
            list(each) for each in (dataset.ims, dataset.im_hw0, dataset.im_hw, dataset.buffer)
        )
    else:
        size = statistics.fmean(image.nbytes for image in load.kept.values())
        indices = [index for index, sample in enumerate(dataset.samples) if str(sample[0]) in load.kept]
    before = states.random_state()
    try:
        again = _loading(apart, indices[-IMAGES:]) * float(loader.batch_size)
    finally:
        states.set_random_state(before)
    fits = min(1.0, load.cache.limit / max(1.0, size * len(dataset)))
    return min(first, fits * again + (1 - fits) * first)


class _Look:
    """A batch of a loader's first images, as a validator sees a loader."""

    def __init__(self, loader: Any, images: int) -> None:
        self.dataset = loader.dataset
        self.batch_size = loader.batch_size
        self.images = images
        self._collate = loader.collate_fn

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        begun = time.perf_counter()
        yield self._collate([self.dataset[index] for index in range(self.images)])
        self.ended = time.perf_counter()
        self.seconds = self.ended - begun


def validation(trainer: Trainer, step_image: float) -> float:
    """Return the seconds of a validation image, loading included; `step_image` are those of an image of a step."""
    loader = trainer.test_loader
    affordable = max(VALIDATED, int(CHEAP_S / (0.35 * step_image)))
    images = min(affordable, loader.batch_size, len(loader.dataset))
    before = states.random_state()
    seconds = 0.0
    try:
        for _ in range(2):  # the first time warms up: libraries, kernels, decoded images
            look = _Look(loader, images)
            validator = copy.copy(trainer.validator)
            validator.args = copy.copy(validator.args)
            validator.args.plots = False
            validator.metrics = copy.deepcopy(validator.metrics)
            validator.callbacks = {}  # an interruption is obeyed between two steps, not in here
            validator.dataloader = look
            validator(trainer)
            summing = time.perf_counter() - look.ended
            seconds = look.seconds / images + summing / max(1, len(loader.dataset))
    finally:
        states.set_random_state(before)
    return seconds


def saving(trainer: Trainer, *, batches: int) -> float:
    """Return the seconds of a checkpoint with a new best model, after so many batches of the epoch. Raises OSError."""
    folder = trainer.bench.checkpoints.folder
    scratch = folder / ".look.tmp"
    seconds = 0.0
    try:
        for _ in range(2):  # the first time warms up
            begun = time.perf_counter()
            for state in (
                best_model.capture(trainer),
                trainer_state.capture(trainer, trainer.epoch, batches),
            ):
                data = states.dumps(state)
                hashlib.sha256(data).hexdigest()
                durable.write(scratch, data)
            for _ in range(2):  # the manifest, and the one of the newest checkpoint
                durable.write(scratch, b"{}")
            seconds = time.perf_counter() - begun
    finally:
        durable.sweep(folder)  # on a full disk, half a file would take the checkpoint's room
    return seconds
