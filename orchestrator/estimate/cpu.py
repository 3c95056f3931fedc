"""Estimates for this machine's CPU."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gpu_offload.orchestrator.estimate.posterior import Ratio
from gpu_offload.orchestrator.estimate.workload import Workload

if TYPE_CHECKING:  # It loads pydantic, which planning alone does not need.
    from gpu_offload.remote_job.result import Calibration
from gpu_offload.orchestrator.estimate.correction import Estimate
from gpu_offload.orchestrator.estimate.forecast import contention, rates_of
from gpu_offload.orchestrator.estimate.formula import Rates, assemble, load_seconds, unknowns

FIRST_STEP = 0.5
"""What the first step takes more than the others, in steps."""


def estimate_cpu(work: Workload, calibration: "Calibration", history: Sequence[Ratio] = ()) -> Estimate:
    """Estimate a training on the machine that was calibrated.

    Args:
        work: The training.
        calibration: A few steps of such a training on this machine: same model, size and batch, any number of epochs.
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
    pace = calibration.pace
    if pace.plain is None and pace.mosaic is None:
        wrong.append("it measured no step")
    if wrong:
        raise ValueError("this calibration is of another training, calibrate again: " + "; ".join(wrong))
    rates = rates_of(work, pace)
    # Of the first epoch: its pictures are decoded, and its first step warms up.
    first = pace.decoding * work.train_images / work.batch + FIRST_STEP * rates.batch_plain
    no_trial = work.batches * work.epochs < calibration.trial_steps
    start = max(0.0, rates.start - (calibration.trial if no_trial else 0.0))
    notes = [f"measured on this machine: {calibration.machine}"]
    if (shared := contention(pace)) > 1:
        notes.append(
            f"the machine was shared while it was measured ({pace.share:.0%} of the processor time it could use), "
            "so the interval is wider"
        )
    return assemble(
        work,
        replace(rates, start=start, first=first),
        kind="cpu",
        history=history,
        notes=notes,
        contention=shared,
    )


def estimate_cpu_prior(
    work: Workload, cores: int, *, full_speed: bool = True, history: Sequence[Ratio] = ()
) -> Estimate:
    """Estimate a training on a CPU without calibration, from its arithmetic.

    Args:
        work: The training.
        cores: Available to this process.
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
    rates = Rates(
        start=5.4 + (work.train_images + work.val_images) / 2000,
        first=0.5 * batch,
        batch_mosaic=batch + work.batch * load_seconds(work, mosaic=True),
        batch_plain=batch + work.batch * load_seconds(work, mosaic=False),
        optimizer_step=(0.67 if work.heavy_optimizer else 0.034) * work.parameters / 3.16e6 * 2 / threads,
        validation_image=0.3 * compute + load_seconds(work, mosaic=False) + 0.002,
        save=0.2 + work.parameters * 1e-8,
        final=2.0 + (2.6 if work.plots else 0.0),
    )
    notes = [f"a prior for {cores} cores, not measured; a calibration takes 15 s and is within 10 %"]
    return assemble(work, rates, kind="cpu-prior", history=history, notes=notes + unknowns(work))
