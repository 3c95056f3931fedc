"""Estimates for this machine's CPU."""

import math
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Literal

from gpu_offload.orchestrator.estimate.workload import Workload
from gpu_offload.remote_job.pace.ending import COPY_S, SAVE_S, TRIAL_MIN_STEPS, ending, publishing, reread
from gpu_offload.remote_job.pace.meter import QUIET

if TYPE_CHECKING:  # It loads pydantic, which planning alone does not need.
    from gpu_offload.remote_job.result import Calibration
from gpu_offload.orchestrator.estimate.correction import Estimate
from gpu_offload.orchestrator.estimate.forecast import contention, rates_of
from gpu_offload.orchestrator.estimate.formula import Rates, assemble, decode_seconds, load_seconds, unknowns

FIRST_STEP = 0.5
"""What the first step takes more than the others, in steps."""


def estimate_cpu(work: Workload, calibration: "Calibration") -> Estimate:
    """Estimate a training by a calibration of this machine: same model, size and batch. Raises ValueError: another one."""
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
    pace = calibration.pace
    if pace.plain is None and pace.mosaic is None:
        wrong.append("it measured no step")
    if wrong:
        raise ValueError("this calibration is of another training, calibrate again: " + "; ".join(wrong))
    rates = rates_of(work, pace)
    # Of the first epoch: its pictures are decoded, and its first step warms up.
    first = LOOK_S + pace.decoding * work.train_images / work.batch_images + FIRST_STEP * rates.batch_plain
    no_trial = work.batches * work.epochs < calibration.trial_steps
    start = max(0.0, rates.start - (calibration.trial if no_trial else 0.0))
    notes = [f"measured on this machine: {calibration.machine}"]
    if (shared := contention(pace)) > 1:
        notes.append(
            f"the machine was shared while it was measured ({pace.share:.0%} of the processor time it could use), "
            "so the interval is wider"
        )
    return assemble(
        work, replace(rates, start=start, first=first), kind="cpu", notes=notes, contention=shared
    )


@dataclass(frozen=True, slots=True)
class Processor:
    """What one core of a processor does; see `orchestrator.estimate.processor`."""

    product_gflops: float
    """Multiplying single-precision matrices, 10^9 operations a second."""
    copy_gb_s: float
    """Copying memory, 10^9 bytes a second, read and written."""
    bfloat16: Literal["none", "avx512", "amx"] = "none"
    """By which instructions it multiplies in 16 bits."""
    wide: bool = True
    """Whether it has AVX-512."""
    part: float = 1.0
    """Of a core's time, what the quota of a container leaves, where that is less than one core."""
    slowness: float = 1.0
    """How much longer it runs Python than the machine that the constants of start and end come from."""


CONVOLUTION = {True: 2.4, False: 1.2}
"""How much faster convolutions are than the products of the benchmark, with AVX-512 and without: these products are too small
to gain from it. On a Zen 5, 254 against 107 GFLOP/s a core; kept to AVX2 it computes convolutions at half of its rate."""
PASSES = 3.0
"""Forward and backward, in forward passes."""
REST_S, REST_POWER, REST_COPY_GB_S = 0.0118, 0.8, 38.0
"""Core-seconds of an image beside its convolutions at 2.2 GFLOPs, growing with that power, where so much is copied a second."""
BFLOAT16 = {"none": (1.0, 1.0), "avx512": (0.5, 0.7), "amx": (0.57, 1.0)}
"""What 16 bits make of convolutions and of the rest: fitted on Zen 5 and on a Xeon of the fifth generation."""
HEADS = (1.2, 2.0)
"""What a second head (YOLOv10, YOLO26) makes of convolutions and of the rest."""
UNMEASURED = 0.28
"""Core-seconds of one image's forward and backward pass, yolov8n at 640 px: two machines took 0.2 and 0.4."""
TWO_THREADS, POWER = 1.6, 0.85
"""How much faster two threads are than one, and how the speed grows from there with their number."""
OVERHEAD_S = 0.04
"""A batch's calls, however small its work, of a YOLOv8 detector on a Zen 5."""
KEPT_PIXELS = 1e8
"""Of decoded images that a training keeps, about."""
LEAST_SHARE = 0.25
"""Of the cores' time, less than which a moment's look does not predict."""
START_S = 2.1
"""From the command to the first batch: the command itself, its plan, libraries, the model."""
LOOK_S = 0.5
"""The look ahead before the first validation."""
TRIAL_S = 2.5
"""The trial before a long training."""


def _core_seconds(work: Workload, processor: Processor | None) -> float:
    """Return what one core takes for one image's forward and backward pass."""
    convolving, heads = HEADS if work.dual_head else (1.0, 1.0)
    if processor is None:
        return UNMEASURED * math.pow(work.gflops / 8.9, 0.9) * heads
    convolutions, rest = BFLOAT16[processor.bfloat16]
    if not work.mixed_precision:
        convolutions = rest = 1.0
    products = PASSES * work.gflops / (CONVOLUTION[processor.wide] * processor.product_gflops)
    others = REST_S * math.pow(work.gflops / 2.2, REST_POWER) * REST_COPY_GB_S / processor.copy_gb_s
    return convolving * convolutions * products + heads * rest * others


def end_seconds(work: Workload, cores: int, slowness: float = 1.0) -> float:
    """Return what the end of a training takes beside its final validation, on a machine that was not measured."""
    known = ending(
        work.task,
        plots=work.plots,
        cores=cores,
        slowness=slowness,
        exports=work.exports,
        parameters=work.parameters,
    )
    return known + reread(work.val_images, work.exports) * decode_seconds(work)


def estimate_cpu_prior(
    work: Workload,
    cores: int,
    *,
    processor: Processor | None = None,
    full_speed: bool = True,
    share: float = 1.0,
) -> Estimate:
    """Estimate a training on a CPU without calibration, from its arithmetic. Raises ValueError: there are no cores.

    `processor` is what one core does, if measured. `full_speed` uses all cores and the fast memory layout, as this
    project trains; plain Ultralytics uses one core less, eight at most. `share` is what other programs leave of the
    cores' time; the interval allows for their end.
    """
    if cores < 1:
        raise ValueError(f"{cores} cores cannot train")
    threads = cores if full_speed else max(1, min(8, cores - 1))
    arithmetic = _core_seconds(work, processor)
    speed_up = 1.0 if threads == 1 else TWO_THREADS * (threads / 2) ** POWER
    compute = arithmetic / speed_up * (1.0 if full_speed else 1.16)
    slowness = processor.slowness if processor is not None else 1.0
    batch = compute * work.batch_images + OVERHEAD_S * slowness * work.host_work
    trial = TRIAL_S if full_speed and work.batches * work.epochs >= TRIAL_MIN_STEPS else 0.0
    # Decoded images are kept for the later epochs, as far as `remote_job.speed.image_cache` has room.
    once = (
        decode_seconds(work) if full_speed and work.train_images * work.image_size**2 < KEPT_PIXELS else 0.0
    )
    rates = Rates(
        start=START_S * slowness + trial + (work.train_images + work.val_images) / 2000,
        first=LOOK_S * slowness + FIRST_STEP * batch + once * (work.train_images + work.val_images),
        batch_mosaic=batch + work.batch_images * (load_seconds(work, mosaic=True) - once),
        batch_plain=batch + work.batch_images * (load_seconds(work, mosaic=False) - once),
        optimizer_step=(0.67 if work.heavy_optimizer else 0.034)
        * work.parameters
        / 3.16e6
        * TWO_THREADS
        / speed_up,
        validation_image=0.3 * compute + load_seconds(work, mosaic=False) - once + 0.002,
        save=(SAVE_S + COPY_S) * work.parameters,
        final=end_seconds(work, cores, slowness) + slowness * publishing(work.parameters),
    )
    basis = "by the processor's speed" if processor is not None else "whose speed is not measured"
    of = "1 core" if cores == 1 else f"{cores} cores"
    notes = [
        f"estimated for {of}, {basis}; the first steps of a training, or of `offload plan --calibrate`, correct it"
    ]
    slower = 1.0 if share >= QUIET else 1 / max(share, LEAST_SHARE)
    part = processor.part if processor is not None else 1.0
    if part < 1:
        notes.append(f"this container's quota is {part:.0%} of a core's time")
    if slower > 1:
        notes.append(
            f"other programs run here now and leave {share:.0%} of the processor time, so it takes longer"
        )
    return assemble(
        work,
        Rates(*(slower / part * seconds for seconds in astuple(rates))),
        kind="cpu-prior",
        notes=notes + unknowns(work),
        contention=slower,
    )
