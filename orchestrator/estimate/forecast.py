"""The total time of a running training: what it has taken, and what is left by its own pace.

It uses the formula of the estimate (`formula`) with measured rates. What is left is as uncertain as machines drift and,
on a shared machine, as its neighbours are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpu_offload.orchestrator.estimate.correction import DRIFT, Estimate
from gpu_offload.orchestrator.estimate.formula import PHI, Rates, load_seconds
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.estimate.posterior import RatioPrediction, predict
from gpu_offload.orchestrator.estimate.workload import Workload
from gpu_offload.remote_job.pace.ending import COPY_S, SAVE_S, publishing, reread
from gpu_offload.remote_job.pace.meter import QUIET

if TYPE_CHECKING:  # It loads pydantic, which planning alone does not need.
    from gpu_offload.remote_job.pace.pace import Pace

UNSEEN, FOREIGN = 0.15, 0.35
"""Relative uncertainty of parts that no step shows, on the machine of their constants, and what each e-fold of another speed adds:
on a Xeon that runs Python at half the speed, two cores took 1.6 times as long for the end as four."""

EPOCH_SPREAD = 0.1
"""Relative uncertainty of an epoch's time by the training's own account, before an epoch was completed."""


@dataclass(frozen=True, slots=True)
class ForecastPosition:
    """How far a training is."""

    epochs: int
    """Completed."""
    batches: int
    """Of the epoch in progress."""
    elapsed: float
    """Seconds that it has taken, since the beginning from which the whole is counted."""
    measured: int = 0
    """Epochs that the pace rests on: those of this attempt."""


def rates_of(work: Workload, pace: "Pace") -> Rates:
    """Return a training's rates by its pace; unmeasured ones are derived. Raises ValueError: no step was measured."""
    known = pace.plain or pace.mosaic
    if known is None:
        raise ValueError("the pace holds no step")
    plain, mosaic = pace.plain or known, pace.mosaic or known
    load = load_seconds(work, mosaic=False)
    forward = max(0.0, plain.batch / work.batch_images - load) * 0.3
    return Rates(
        start=pace.ready,
        first=0.0,
        batch_mosaic=mosaic.batch,
        batch_plain=plain.batch,
        optimizer_step=pace.optimizer,
        validation_image=forward + load if pace.validation is None else pace.validation,
        save=(SAVE_S + COPY_S) * work.parameters if pace.save is None else pace.save,
        final=pace.final,
    )


def forecast(work: Workload, pace: "Pace", at: ForecastPosition, past: Sequence[float] = ()) -> Estimate:
    """Estimate the whole of a running training from its pace at a position.

    `past` holds ln(actual / forecast) of what was left after the first steps of earlier trainings of the same key.
    Raises ValueError: no steps or epochs, or a position past the end; ArithmeticError: numbers too large.
    """
    if not 0 <= at.epochs <= work.epochs or not at.elapsed >= 0:
        raise ValueError(f"{at.epochs} of {work.epochs} epochs in {at.elapsed} s cannot be")
    if pace.batches >= 1.5 * work.batches:  # memory did not suffice for the batch that was asked for
        work = replace(work, batch=max(1, round(work.train_images / pace.batches)))
    left = (
        _by_epochs(work, pace, at)
        if pace.plain is None and pace.mosaic is None
        else _by_steps(work, pace, at)
    )
    prediction = _prediction(pace, at, past, _unseen(pace, left))
    rest = prediction.interval(math.fsum(left.values()))
    stays = at.measured / (at.measured + 2)
    shared = contention(pace) ** (1 - stays / 2)
    low = rest.low / shared
    if work.earliest_epochs < work.epochs:
        soonest = max(at.epochs, work.earliest_epochs)
        low *= (soonest - at.epochs) / max(1, work.epochs - at.epochs)
    whole = Interval(low, rest.likely, rest.high * shared) + at.elapsed
    notes = ["by the training's own steps"]
    if contention(pace) > 1:
        notes.append(
            f"other programs run here: the training gets {pace.share:.0%} of the time it could use, "
            "and the interval allows for that to end or to get worse"
        )
    return Estimate(
        interval=whole,
        breakdown={"so far": at.elapsed, **left},
        basis="measured while it trains",
        kind="pace",
        epoch_seconds=(),
        before=at.elapsed,
        earliest_epochs=work.earliest_epochs,
        contention=contention(pace),
        notes=tuple(notes),
    )


def contention(pace: "Pace") -> float:
    """Return by what factor other programs slow a training down, 1.0 for a machine of its own."""
    return 1.0 if pace.share >= QUIET else 1 / max(pace.share, 0.05)


def _unseen(pace: "Pace", left: Mapping[str, float]) -> float:
    """Return the share of what is left that follows from no measurement of this training."""
    names = ["final validation", "end", *(["saving"] if pace.save is None else [])]
    return math.fsum(left.get(name, 0.0) for name in names) / max(math.fsum(left.values()), 1e-9)


def _prediction(pace: "Pace", at: ForecastPosition, past: Sequence[float], unseen: float) -> RatioPrediction:
    """Return the distribution of ln(actual / forecast) of what is left, of which the share `unseen` was not measured."""
    usual = predict("pace", past)
    modes = [mode for mode in (pace.mosaic, pace.plain) if mode is not None and mode.steps]
    main = max(modes, key=lambda mode: mode.steps, default=None)
    if main is None:
        own = max(pace.spread, EPOCH_SPREAD) / math.sqrt(max(1, at.measured))
    else:
        own = main.spread / math.sqrt(main.steps)
    # Each epoch shows more of what the first steps could not; what stays is the machine's drift.
    unknown = UNSEEN + FOREIGN * abs(math.log(max(pace.slowness, 0.01)))
    scale = math.hypot(DRIFT, own, usual.scale / math.sqrt(1 + at.measured), unknown * unseen)
    mean = usual.mean / (1 + at.measured)
    return replace(usual, mean=mean, scale=scale, freedom=usual.freedom + at.measured)


def _by_epochs(work: Workload, pace: "Pace", at: ForecastPosition) -> dict[str, float]:
    """Return what is left of a training that reports no more than its epochs."""
    if pace.epoch is None:
        raise ValueError("the pace holds neither steps nor epochs")
    part = at.batches / pace.batches if pace.batches else 0.0
    return {"training": max(0.0, work.epochs - at.epochs - min(1.0, part)) * pace.epoch, "end": pace.final}


def _by_steps(work: Workload, pace: "Pace", at: ForecastPosition) -> dict[str, float]:
    rates = rates_of(work, pace)
    batches = work.train_images / work.batch_images
    begun = min(float(at.batches), batches)
    mosaic_left = max(0.0, work.mosaic_epochs - at.epochs) * batches
    plain_left = (work.epochs - max(at.epochs, work.mosaic_epochs)) * batches
    if at.epochs < work.mosaic_epochs:
        mosaic_left -= begun
    else:
        plain_left = max(0.0, plain_left - begun)
    steps = work.optimizer_steps() - work.optimizer_steps(at.epochs * work.batches + at.batches)
    validation = work.val_images * rates.validation_image
    epochs_left = work.epochs - at.epochs
    validations = epochs_left if work.validate else min(1, epochs_left)
    rereading = reread(work.val_images, work.exports) * pace.decoding / work.batch_images
    return {
        "training": mosaic_left * rates.batch_mosaic + plain_left * rates.batch_plain,
        "decoding": max(0.0, batches - begun) * pace.decoding if at.epochs == 0 else 0.0,
        "optimiser": steps * rates.optimizer_step,
        "validation": validations * validation,
        "saving": epochs_left * rates.save,
        "final validation": PHI * validation,
        "end": rates.final + publishing(work.parameters) + rereading,
    }
