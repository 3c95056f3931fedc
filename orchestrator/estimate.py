"""How long a training will take, before it starts: on this CPU, on a GPU that nobody has rented yet.

Calibrated on the machine itself (3 real steps; every time below in seconds):

    T = start + sum over modes E_m * (N / B) * t_m + n_opt * t_opt + first
        + V * (n_val * t_val) + E * t_save + PHI * n_val * t_val + final

with E_m epochs in mode m (mosaic, plain), N images in batches of B, n_opt optimiser steps of the replayed
accumulation, V validations. Measured over 17 configurations on 2 cores: 3.6 % median, 9.2 % largest error.

Where nothing was measured, two priors of the same shape stand in, marked so. docs/estimate.md tells where each
number comes from and how well it held.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.interval import Interval
from gpu_offload.orchestrator.offers import Gpu
from gpu_offload.orchestrator.posterior import HistoryKey, Kind, Prediction, Ratio, matching, predict
from gpu_offload.orchestrator.quantity import human_duration
from gpu_offload.orchestrator.workload import Workload, workload

if TYPE_CHECKING:  # it loads pydantic, and planning alone has no use for that
    from gpu_offload.remote_job.result import Calibration

__all__ = [
    "Estimate",
    "HistoryKey",
    "Interval",
    "Kind",
    "Overheads",
    "Ratio",
    "Workload",
    "correct",
    "correct_running",
    "estimate_cpu",
    "estimate_cpu_prior",
    "estimate_gpu_prior",
    "gpu_seconds_per_image",
    "matching",
    "workload",
]

Basis = Literal["calibrated", "prior, not measured", "history"]

PHI = 0.67
"""The final validation's share of an epoch's: 0.6 to 0.74 were measured."""

CONTENTION_LIMIT = 1.3
"""Above it the machine was shared while it was calibrated, the one road to errors above 50 %: widen."""

DRIFT = 0.03
"""Even the rest of a training that runs is not known better: machines drift."""

EVERYDAY_MEGAPIXELS = 0.41
"""A 640 x 640 picture, where nobody looked at the dataset's."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a training takes, and what makes it up.

    Attributes:
        interval: What to show and decide by.
        breakdown: Uncorrected seconds by part; their sum is `point`.
        basis: Where it comes from.
        kind: Which spread belongs to it.
        epoch_seconds: (epochs, seconds of each) in the order in which they are trained.
        before: Seconds before the first epoch.
        earliest_epochs: After so many epochs early stopping could end it.
        contention: Of the calibration; 1.0 is a quiet machine.
        notes: What the reader should know, a sentence each.
    """

    interval: Interval
    breakdown: Mapping[str, float]
    basis: Basis
    kind: Kind
    epoch_seconds: tuple[tuple[int, float], ...]
    before: float
    earliest_epochs: int
    contention: float = 1.0
    notes: tuple[str, ...] = ()

    @property
    def point(self) -> float:
        """The uncorrected estimate in seconds: what history's ratios are taken against."""
        return math.fsum(self.breakdown.values())

    @property
    def epochs(self) -> int:
        """Epochs that it was made for."""
        return sum(count for count, _ in self.epoch_seconds)

    def epochs_seconds(self, first: int) -> float:
        """Return the uncorrected seconds of the first so many epochs."""
        total, left = 0.0, first
        for count, seconds in self.epoch_seconds:
            total += min(count, left) * seconds
            left -= min(count, left)
        return total

    def point_after(self, epochs: int) -> float:
        """Return the uncorrected seconds of a training that ends after so many of its epochs."""
        return self.point - self.epochs_seconds(self.epochs) + self.epochs_seconds(epochs)


@dataclass(frozen=True, slots=True)
class Overheads:
    """What an instance costs in time beside the training. Priors, in seconds and bytes a second, not measured."""

    boot: float = 90.0
    """From the launch's answer to a shell: capacity, kernel, cloud-init."""
    setup: float = 180.0
    """Installing the locked environment (some 3 GB with CUDA); near 20 where the image has it baked in."""
    bytes_per_second: float = 50e6
    """From the store in the same region to the instance."""
    seconds_per_image: float = 0.0005
    """Unpacking and verifying."""
    upload: float = 10.0
    terminate: float = 30.0

    def seconds(self, work: Workload) -> dict[str, float]:
        """Return the parts that go before and after a training on an instance."""
        images = work.train_images + work.val_images
        return {
            "boot": self.boot,
            "set-up": self.setup,
            "download": work.dataset_bytes / self.bytes_per_second + images * self.seconds_per_image,
            "upload and terminate": self.upload + self.terminate,
        }


@dataclass(frozen=True, slots=True)
class _Rates:
    """Seconds of each piece of a training on one machine; the formula is the same for all."""

    start: float
    first: float
    batch_mosaic: float
    batch_plain: float
    optimizer_step: float
    validation_image: float
    save: float
    final: float


def estimate_cpu(work: Workload, calibration: "Calibration", history: Sequence[Ratio] = ()) -> Estimate:
    """Estimate a training on the machine that was calibrated.

    Args:
        work: The training.
        calibration: A few steps of this very training on this machine: same model, size and batch.
        history: Earlier trainings of the same key, any order.

    Raises:
        ValueError: the calibration is of another training.
    """
    wrong = [
        f"{name}: calibrated {theirs}, to be trained {ours}"
        for name, theirs, ours in (
            ("model", calibration.model, work.model),
            ("task", calibration.task, work.task),
            ("image size", calibration.image_size, work.image_size),
            ("batch", calibration.batch, work.batch),
        )
        if theirs != ours
    ]
    plain, mosaic = calibration.step_plain, calibration.step_mosaic
    either = plain if plain is not None else mosaic
    if either is None:
        wrong.append("it measured no step")
        either = 0.0
    if wrong:
        raise ValueError("this calibration is of another training, calibrate again: " + "; ".join(wrong))
    rates = _Rates(
        start=calibration.start,
        first=calibration.first_step_extra,
        batch_mosaic=mosaic if mosaic is not None else either,
        batch_plain=either,
        optimizer_step=calibration.optimizer_step,
        validation_image=calibration.validation_per_image,
        save=calibration.save,
        final=calibration.final,
    )
    notes = [f"measured on this machine: {calibration.machine}"]
    if calibration.contention > CONTENTION_LIMIT:
        notes.append(
            f"the machine was shared while it was measured (wall time {calibration.contention:.1f} times the "
            "processor's), so the interval is wider"
        )
    return _assemble(
        work, rates, kind="cpu", history=history, notes=notes, contention=max(1.0, calibration.contention)
    )


def estimate_cpu_prior(
    work: Workload, cores: int, *, full_speed: bool = True, history: Sequence[Ratio] = ()
) -> Estimate:
    """Estimate a training on a CPU that nobody calibrated, from its arithmetic.

    Args:
        work: The training.
        cores: That the machine really has for us.
        full_speed: All cores and the fast memory layout, as this project trains; False for plain Ultralytics,
            which uses one core less, eight at most.
        history: Earlier trainings of the same key.

    Raises:
        ValueError: there are no cores.
    """
    if cores < 1:
        raise ValueError(f"{cores} cores cannot train")
    threads = cores if full_speed else max(1, min(8, cores - 1))
    # Core-seconds of one image's forward and backward pass: yolov8n at 640 px took 0.25 and 0.49 on two machines.
    arithmetic = 0.35 * (work.gflops / 8.9) ** 0.9 * (2.0 if work.dual_head else 1.0)
    speed_up = threads if threads <= 2 else 2 * (threads / 2) ** 0.85
    compute = arithmetic / speed_up * (1.0 if full_speed else 1.16)
    batch = compute * work.batch + 0.04
    rates = _Rates(
        start=5.4 + (work.train_images + work.val_images) / 2000,
        first=0.5 * batch,
        batch_mosaic=batch + work.batch * _load_seconds(work, mosaic=True),
        batch_plain=batch + work.batch * _load_seconds(work, mosaic=False),
        optimizer_step=(0.67 if work.heavy_optimizer else 0.034) * work.parameters / 3.16e6 * 2 / threads,
        validation_image=0.3 * compute + _load_seconds(work, mosaic=False) + 0.002,
        save=0.2 + work.parameters * 1e-8,
        final=2.0 + (2.6 if work.plots else 0.0),
    )
    notes = [f"a prior for {cores} cores, not measured; a calibration takes 15 s and is within 10 %"]
    return _assemble(work, rates, kind="cpu-prior", history=history, notes=notes + _unknowns(work))


def estimate_gpu_prior(
    work: Workload,
    gpu: Gpu,
    vcpus: int,
    *,
    overheads: Overheads | None = None,
    history: Sequence[Ratio] = (),
) -> Estimate:
    """Estimate a training on a rented GPU instance, from launch to terminated.

    Args:
        work: The training.
        gpu: What it has; a second GPU is not counted on.
        vcpus: Of the instance: they load and augment the images.
        overheads: Of the instance; None for the priors.
        history: Earlier trainings of the same key.
    """
    workers = _workers(vcpus)
    iteration = _iteration_seconds(work)
    compute = _compute_seconds(work, gpu)
    per_image = {
        mosaic: _overlap(iteration / work.batch + compute, _load_seconds(work, mosaic=mosaic) / workers)
        for mosaic in (True, False)
    }
    validation = _overlap(
        iteration / (2 * work.batch) + 0.35 * compute + 0.003, _load_seconds(work, mosaic=False) / workers
    )
    rates = _Rates(
        start=20.0 + (work.train_images + work.val_images) / (500 * workers),
        first=5.0,
        batch_mosaic=per_image[True] * work.batch,
        batch_plain=per_image[False] * work.batch,
        optimizer_step=0.0,  # AdamW's is in the host's time an iteration, which the logs were fitted with
        validation_image=validation,
        save=0.5 + work.parameters * 1e-8,
        final=5.0 + (4.0 if work.plots else 0.0),
    )
    if work.heavy_optimizer:
        rates = replace(rates, optimizer_step=0.05 * (work.parameters / 3.16e6) ** 0.5)
    extra = (overheads or Overheads()).seconds(work)
    notes = [f"a prior for {gpu.name}, fitted on 18 public training logs, not measured"]
    return _assemble(work, rates, kind="gpu", history=history, notes=notes + _unknowns(work), extra=extra)


def gpu_seconds_per_image(work: Workload, gpu: Gpu, vcpus: int) -> float:
    """Return a training image's seconds on a GPU, mosaic on: what public logs call an epoch, without validation.

    t = [(a/B + k (s/640)^2 (F/30)^b / I)^6 + (c_load / (vCPU eta))^6]^(1/6), where the host's overhead of an
    iteration a = 0.083 s (+0.07 with two heads), k = 13.3 ms at 30 GFLOPs on a T4, b = 0.69 and the GPU's
    speed I = (peak / T4's)^0.13 (bandwidth / T4's)^0.87. Fitted: 13 % median, 58 % largest error on its own
    logs; 17 and 76 % where the GPU in question was left out.
    """
    compute = _iteration_seconds(work) / work.batch + _compute_seconds(work, gpu)
    return _overlap(compute, _load_seconds(work, mosaic=True) / _workers(vcpus))


def correct(estimate: Estimate, history: Sequence[Ratio], kind: Kind | None = None) -> Estimate:
    """Correct an estimate by what trainings of the same key really took.

    Args:
        estimate: What was predicted; an earlier correction is replaced, not added to.
        history: Ratios of the same key (`matching` picks them).
        kind: The spread to use, where it is not the estimate's own.
    """
    kind = kind or estimate.kind
    prediction = predict(kind, [ratio.log for ratio in history])
    full = prediction.interval(estimate.point)
    low, high = full.low, full.high
    notes = estimate.notes
    if estimate.earliest_epochs < estimate.epochs:
        low = min(low, prediction.interval(estimate.point_after(estimate.earliest_epochs)).low)
        note = f"early stopping could end it after {estimate.earliest_epochs} of {estimate.epochs} epochs"
        notes = notes if note in notes else (*notes, note)
    if estimate.contention > CONTENTION_LIMIT:
        # Quiet from now on, it is faster by as much; busier still, slower by as much.
        low, high = low / estimate.contention, high * estimate.contention
    if history:
        past = f"corrected by {len(history)} earlier training{'s' if len(history) > 1 else ''} of this kind"
        notes = (*(n for n in notes if not n.startswith("corrected by ")), past)
    return replace(
        estimate,
        interval=Interval(low, full.likely, high),
        basis="history" if history else estimate.basis,
        kind=kind,
        notes=notes,
    )


def correct_running(estimate: Estimate, epochs_done: int, seconds_so_far: float) -> Interval:
    """Return the whole training's interval, now that some of it has happened.

    Every finished epoch counts as one more observation of this run's own ratio, so the interval narrows to the
    machine's drift; at the end it is what was measured plus what is left after the last epoch.

    Args:
        estimate: What was predicted; `seconds_so_far` count from the same beginning.
        epochs_done: Epochs completed.
        seconds_so_far: Wall time until the last completed epoch's end, or until now while there is none.

    Raises:
        ValueError: there are more epochs than were to be trained, or a time is negative.
    """
    if not 0 <= epochs_done <= estimate.epochs or not seconds_so_far >= 0:
        raise ValueError(f"{epochs_done} of {estimate.epochs} epochs in {seconds_so_far} s cannot be")
    if epochs_done == 0 or seconds_so_far == 0:
        full = estimate.interval
        return Interval(*(max(bound, seconds_so_far) for bound in (full.low, full.likely, full.high)))
    predicted = estimate.before + estimate.epochs_seconds(epochs_done)
    log = math.log(seconds_so_far / max(predicted, 1e-3))
    prediction = predict(estimate.kind, [log] * epochs_done)
    prediction = Prediction(prediction.mean, max(prediction.scale, DRIFT), prediction.freedom)
    rest = prediction.interval(estimate.point - predicted if estimate.point > predicted else 0.0)
    low = rest.low
    if epochs_done < estimate.epochs:
        soonest = estimate.point_after(max(epochs_done, estimate.earliest_epochs)) - predicted
        low = min(low, prediction.interval(max(0.0, soonest)).low)
    return Interval(low, rest.likely, rest.high) + seconds_so_far


def remaining_note(interval: Interval, seconds_so_far: float) -> str:
    """Say what is left: `about 12 min left (9 min 30 s to 15 min)`."""
    left = [max(0.0, bound - seconds_so_far) for bound in (interval.likely, interval.low, interval.high)]
    likely, low, high = map(human_duration, left)
    return f"about {likely} left ({low} to {high})"


def _assemble(
    work: Workload,
    rates: _Rates,
    *,
    kind: Kind,
    history: Sequence[Ratio],
    notes: Sequence[str],
    extra: Mapping[str, float] | None = None,
    contention: float = 1.0,
) -> Estimate:
    """Put the formula together."""
    extra = dict(extra or {})
    ending = {name: extra.pop(name) for name in ("upload and terminate",) if name in extra}
    batches = work.train_images / work.batch
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
    return correct(raw, history)


def _load_seconds(work: Workload, *, mosaic: bool) -> float:
    """CPU-seconds to read, decode and augment one image.

    Fits what one core needed: 13.7 ms at 640 px with mosaic from 640 px JPEGs, 20.5 from 1080p, 56 from 12 MP;
    at 160 px 4.1 with mosaic and 1.7 without.
    """
    megapixels = EVERYDAY_MEGAPIXELS if work.megapixels is None else work.megapixels
    augment = 0.0024 + 0.0098 * (work.image_size / 640) ** 2
    if work.task is Task.CLASSIFY or not mosaic:
        augment *= 0.2
    return 0.0036 * megapixels + augment


def _workers(vcpus: int) -> float:
    """How many cores' worth of loading an instance does: Ultralytics starts 8 workers at most, on hyper-threads."""
    return 0.7 * max(1, min(8, vcpus))


def _iteration_seconds(work: Workload) -> float:
    """The host's overhead of one iteration."""
    return 0.083 + (0.07 if work.dual_head else 0.0)


def _compute_seconds(work: Workload, gpu: Gpu) -> float:
    """One image's arithmetic on a GPU; a T4 has 65 TFLOPS in half precision and 320 GB/s."""
    index = math.pow(gpu.fp16_tflops / 65, 0.13) * math.pow(gpu.bandwidth_gb_s / 320, 0.87)
    return 0.0133 * (work.image_size / 640) ** 2 * math.pow(work.gflops_640 / 30, 0.69) / index


def _overlap(compute: float, load: float) -> float:
    """The slower of two that run side by side, with the rub where they are alike."""
    return math.pow(compute**6 + load**6, 1 / 6)


def _unknowns(work: Workload) -> list[str]:
    """Name what had to be assumed."""
    notes = []
    if work.megapixels is None:
        notes.append(f"pictures were taken to have {EVERYDAY_MEGAPIXELS} megapixels")
    return notes
