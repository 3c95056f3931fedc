"""Why a model finds next to nothing: the likely causes, by what its training measured."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from gpu_offload.dataset.finding import some
from gpu_offload.remote_job.result import LEARNT_NOTHING

CELL = 8
"""Pixels: the finest grid of Ultralytics' detectors has a stride of 8 (`P3/8` in their definitions)."""
LARGEST = 1280
"""The largest image size that is proposed."""
WARM_UP = 100
"""Batches over which Ultralytics raises the learning rate at least (`nw` of its trainer)."""
USUAL_EPOCHS = 100
"""Ultralytics' own default."""


@dataclass(frozen=True, slots=True)
class Objects:
    """The labelled objects of a split, one entry an object; no sizes where Ultralytics has dropped them."""

    classes: Sequence[int]
    """Their class indices."""
    pixels: Sequence[float]
    """The shorter side in the photograph, in pixels."""
    scales: Sequence[float]
    """The factor by which their photograph is scaled for the training."""

    @classmethod
    def of(cls, labels: Sequence[Mapping[str, Any]], image_size: int) -> "Objects":
        """Read the labels that Ultralytics' dataset holds: `shape` (height, width), `cls` and `bboxes` as shares."""
        classes: list[int] = []
        pixels: list[float] = []
        scales: list[float] = []
        for label in labels:
            classes += [int(index) for index in label["cls"].reshape(-1)]
            if "shape" not in label:  # `set_rectangle` takes it out
                continue
            height, width = label["shape"]
            pixels += [min(box[2] * width, box[3] * height) for box in label["bboxes"].tolist()]
            scales += [image_size / max(height, width, 1)] * len(label["bboxes"])
        return cls(classes, pixels, scales)


@dataclass(frozen=True, slots=True)
class Effort:
    """What a training did."""

    epochs: int
    batches: int
    """Of an epoch."""
    image_size: int
    model: str
    from_scratch: bool
    """Whether it began with random weights."""
    val_losses: Sequence[float] = ()
    """The sum of the validation's losses by epoch."""


def likely_causes(train: Objects, val: Objects, names: Mapping[int, str], effort: Effort) -> tuple[str, ...]:
    """Say what probably kept a detector from learning, each with what to change. Pure."""
    if not train.classes:
        return ("no training image shows a labelled object: label some, then run `offload check`",)
    found = [
        _unmeasured(val),
        _missing(train, names),
        _empty(train),
        _small(train, effort.image_size),
        _short(effort),
        _random(effort),
    ]
    return tuple(cause for cause in found if cause)


def _unmeasured(val: Objects) -> str:
    if val.classes:
        return ""
    return (
        "no validation image shows a labelled object, so nothing was measured: add images, or raise split.val"
    )


def _missing(train: Objects, names: Mapping[int, str]) -> str:
    count = Counter(train.classes)
    never = [name for index, name in names.items() if not count[index]]
    return f"no training image shows {some(never)}: add images of it" if never else ""


def _empty(train: Objects) -> str:
    """Labels that cover nothing: most often pixels or corners in place of shares of the image."""
    thin = sum(side < 2 for side in train.pixels)
    if 2 * thin < len(train.pixels) or not thin:
        return ""
    return f"{thin} of {len(train.pixels)} labels cover less than 2 pixels of their photograph: draw boxes around objects"


def _small(train: Objects, image_size: int) -> str:
    sides = [side * scale for side, scale in zip(train.pixels, train.scales, strict=True)]
    # The median: a few tiny objects among large ones do not keep a model from learning.
    middle = median(sides) if sides else CELL
    if middle >= CELL or middle <= 0:
        return ""
    enough = min(LARGEST, 32 * math.ceil(image_size * 2 * CELL / middle / 32))
    remedy = (
        f"set training.image-size to {enough}" if enough > image_size else "cut the photographs into tiles"
    )
    return (
        f"half of the objects are smaller than {max(1, math.ceil(middle))} px at image-size {image_size}, and a cell of the "
        f"model's finest grid is {CELL} px: {remedy}"
    )


def _short(effort: Effort) -> str:
    steps = effort.epochs * effort.batches
    losses = effort.val_losses
    falling = len(losses) > 1 and losses[-1] == min(losses) < losses[0]
    more = f"set training.epochs to {max(USUAL_EPOCHS, 2 * effort.epochs)}"
    if steps <= WARM_UP:
        return f"it trained for {steps} batches, and the learning rate rises over the first {WARM_UP}: {more}"
    return f"the validation's loss was still falling in epoch {effort.epochs}: {more}" if falling else ""


def _random(effort: Effort) -> str:
    if not effort.from_scratch:
        return ""
    weights = (
        f'training.model = "{effort.model.removesuffix(".yaml")}.pt"'
        if effort.model.endswith(".yaml") and "/" not in effort.model
        else "training.init-from"
    )
    return f"it began with random weights: {weights} begins with trained ones"


def causes(trainer: Any) -> tuple[str, ...]:
    """Return the likely causes where a trainer's model finds next to nothing; () for others and for classifiers."""
    found = trainer.metrics.get("metrics/mAP50(B)")
    if found is None or found >= LEARNT_NOTHING:
        return ()
    spec = trainer.bench.spec
    train, val = (
        Objects.of(loader.dataset.labels, spec.image_size)
        for loader in (trainer.train_loader, trainer.test_loader)
    )
    losses = [
        sum(value for name, value in entry.get("metrics", {}).items() if name.startswith("val/"))
        for entry in trainer.history
    ]
    effort = Effort(
        epochs=len(trainer.history),
        batches=len(trainer.train_loader),
        image_size=spec.image_size,
        model=spec.model,
        from_scratch=spec.weights is None,
        val_losses=losses,
    )
    return likely_causes(train, val, trainer.data["names"], effort)
