"""Training time as a sum of measured terms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.estimate.correction import Estimate, correct
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.estimate.posterior import Kind
from gpu_offload.orchestrator.estimate.workload import Workload

PHI = 0.67
"""The final validation's share of an epoch's: 0.6 to 0.74 were measured."""

MOSAIC_S = 0.0024
"""What an image costs more with mosaic."""

DECODE_S = 0.0015
"""Processor seconds to read and decode a JPEG of 640 x 640 pixels: the default where the dataset's pictures were not measured."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds of each piece of a training on one machine; the formula is the same for all."""

    start: float
    first: float
    batch_mosaic: float
    batch_plain: float
    optimizer_step: float
    validation_image: float
    save: float
    final: float


def assemble(
    work: Workload,
    rates: Rates,
    *,
    kind: Kind,
    notes: Sequence[str],
    extra: Mapping[str, float] | None = None,
    contention: float = 1.0,
) -> Estimate:
    """Add up the terms of the formula."""
    extra = dict(extra or {})
    ending = {name: extra.pop(name) for name in ("upload and terminate",) if name in extra}
    batches = work.train_images / work.batch_images
    mosaic = work.mosaic_epochs
    plain = work.epochs - mosaic
    validation = work.val_images * rates.validation_image
    validations = work.epochs if work.validate else 1
    optimizer = work.optimizer_steps() * rates.optimizer_step
    breakdown = {
        **extra,
        "start": rates.start,
        "first step": rates.first,
        "training": batches * (mosaic * rates.batch_mosaic + plain * rates.batch_plain),
        "optimiser": optimizer,
        "validation": validations * validation,
        "saving": work.epochs * rates.save,
        "final validation": PHI * validation,
        "end": rates.final,
        **ending,
    }
    every_epoch = (optimizer + validations * validation) / work.epochs + rates.save
    modes = ((mosaic, batches * rates.batch_mosaic), (plain, batches * rates.batch_plain))
    raw = Estimate(
        interval=Interval(0, 0, 0),
        breakdown=breakdown,
        basis="calibrated" if kind == "cpu" else "prior, not measured",
        kind=kind,
        epoch_seconds=tuple((count, seconds + every_epoch) for count, seconds in modes if count),
        before=math.fsum((*extra.values(), rates.start, rates.first)),
        earliest_epochs=work.earliest_epochs,
        contention=contention,
        notes=tuple(notes),
    )
    return correct(raw, ())


def load_seconds(work: Workload, *, mosaic: bool) -> float:
    """CPU-seconds to read, decode and augment one image.

    Fits what one core needed from 640 px JPEGs: 13.7 ms at 640 px with mosaic; at 160 px 4.1 with mosaic and 1.7 without; at
    640 px on a Xeon 12.2 with and 9.9 without.
    """
    augment = 0.0098 * (work.image_size / 640) ** 2
    if work.task is Task.CLASSIFY:
        augment = 0.2 * (augment + MOSAIC_S)
    elif mosaic:
        augment += MOSAIC_S
    return decode_seconds(work) + augment


def decode_seconds(work: Workload) -> float:
    """CPU-seconds to read and decode one image."""
    return DECODE_S if work.decode is None else work.decode


def unknowns(work: Workload) -> list[str]:
    """List the assumptions."""
    assumed = []
    if work.is_assumed:
        assumed.append(
            f"{work.model} is no standard model: until it was measured, it counts as yolov8s, give or take a factor of 5"
        )
    if work.decode is None:
        assumed.append(f"decoding a picture was taken to take {1000 * DECODE_S} ms: it was not measured")
    return assumed
