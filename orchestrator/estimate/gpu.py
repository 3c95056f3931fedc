"""Prior estimates for GPUs."""

import math
from dataclasses import replace

from gpu_offload.orchestrator.estimate.correction import Estimate
from gpu_offload.orchestrator.estimate.cpu import end_seconds
from gpu_offload.orchestrator.estimate.formula import Rates, assemble, load_seconds, unknowns
from gpu_offload.orchestrator.estimate.gpu_anchors import ANCHORS
from gpu_offload.orchestrator.estimate.workload import Workload
from gpu_offload.orchestrator.offers.offer import Gpu
from gpu_offload.remote_job.pace.ending import SAVE_S

WAITING = 0.075
"""How much longer a step takes each time that the number of GPUs doubles: the slowest of them decides."""
BUS_BYTES_S = 5e9
"""Of one GPU to the others through the host's memory. PCIe 3.0 x8, as a T4 has it, carries 7.9e9 by its specification."""
EXPOSED = 0.5
"""The share of the transfers that no arithmetic hides: gradients are sent while the backward pass goes on. A guess."""
SPREAD = 0.31
"""ln of the 80 % interval's half width: what is not known of a team beside what is not known of one GPU."""


def team_step(seconds: float, work: Workload, gpus: int) -> float:
    """Return the seconds of a step of several GPUs, of which each alone takes `seconds` for its share of the batch."""
    return seconds * (1 + WAITING * math.log2(gpus)) + EXPOSED * transfer_seconds(work, gpus)


def transfer_seconds(work: Workload, gpus: int) -> float:
    """Return the time of a ring's all-reduce of the gradients, which are in single precision."""
    return 2 * (gpus - 1) / gpus * 4 * work.parameters / BUS_BYTES_S


def speed_up(one: float, together: float, gpus: int) -> str:
    """Say how much faster a step of several GPUs is than one of a single GPU with the whole batch."""
    factor = one / together
    low, high = factor * math.exp(-SPREAD), min(gpus, factor * math.exp(SPREAD))
    return (
        f"{gpus} GPUs train about {factor:.1f} times as fast as one ({low:.1f} to {high:.1f}), not measured"
    )


SETUP_S = 180.0
"""Installing the locked environment (some 3 GB with CUDA) on an instance; near 20 where the image has it baked in. Not measured,
like the next ones."""
BOOT_S = 90.0
"""From the launch's answer to a shell: capacity, kernel, cloud-init."""
DOWNLOAD_BYTES_S, UNPACK_S = 50e6, 0.0005
"""From the store in the same region to the instance, and unpacking and verifying an image."""
AFTERWARDS_S = 40.0
"""Upload of the result, and termination."""


def rental_seconds(work: Workload, setup: float = SETUP_S) -> dict[str, float]:
    """Return the parts that go before and after a training on an instance."""
    images = work.train_images + work.val_images
    return {
        "boot": BOOT_S,
        "set-up": setup,
        "download": work.dataset_bytes / DOWNLOAD_BYTES_S + images * UNPACK_S,
        "upload and terminate": AFTERWARDS_S,
    }


def estimate_gpu_prior(work: Workload, gpu: Gpu, vcpus: int, *, setup: float | None = SETUP_S) -> Estimate:
    """Estimate a training on a GPU that was not measured, from launch to terminated; on this machine if `setup` is None.

    Several GPUs of a kind divide the batch among them; the instance's `vcpus` load and augment the images.
    """
    workers = _workers(vcpus // gpu.count)
    iteration = gpu.host * ITERATION_S * work.host_work
    compute = _compute_seconds(work, gpu)
    each = work.batch_images / gpu.count
    step = team_step(iteration + each * compute, work, gpu.count)
    batch = {
        mosaic: _overlap(step, each * load_seconds(work, mosaic=mosaic) / workers) for mosaic in (True, False)
    }
    validation = _overlap(
        iteration / min(2 * work.batch / gpu.count, max(1, work.val_images)) + 0.35 * compute + 0.003,
        load_seconds(work, mosaic=False) / workers,
    )
    rates = Rates(
        start=START_S + (work.train_images + work.val_images) / (500 * workers),
        first=FIRST_S * work.host_work + (SECOND_HEAD_S if work.dual_head else 0.0),
        batch_mosaic=batch[True],
        batch_plain=batch[False],
        optimizer_step=0.0,  # AdamW's share is already in the host's time per iteration, as fitted to the logs.
        validation_image=validation / gpu.count,
        save=0.15 + SAVE_S * work.parameters,
        final=FINAL_S + end_seconds(work, vcpus),
    )
    if work.heavy_optimizer:
        rates = replace(rates, optimizer_step=MUON_S * gpu.host)
    extra = None if setup is None else rental_seconds(work, setup)
    notes = [
        f"a prior for {gpu.name}, fitted on {len(ANCHORS)} speeds of {len(GPUS_KNOWN)} GPUs, not measured here"
    ]
    if gpu.count > 1:
        one = _overlap(
            iteration + work.batch_images * compute,
            work.batch_images * load_seconds(work, mosaic=True) / _workers(vcpus),
        )
        notes.append(speed_up(one, batch[True], gpu.count))
    return assemble(
        work, rates, kind="gpu" if gpu.count == 1 else "gpus", notes=notes + unknowns(work), extra=extra
    )


def gpu_seconds_per_image(work: Workload, gpu: Gpu, vcpus: int) -> float:
    """Return a training image's seconds on a GPU, mosaic on: what public logs call an epoch, without validation.

    t = [(h w a / B + k (s/640)^2 (F/30)^b / I)^6 + (c_load / (vCPU eta))^6]^(1/6): an iteration costs the host a, times
    its slowness h and the model's work w; an image costs k at 30 GFLOPs on a T4, and the GPU's speed is I = (peak /
    T4's)^p (bandwidth / T4's)^q. Fitted to `gpu_anchors` by `benchmarks/gpu_prior.py`, which prints the errors with
    each GPU left out. `vcpus` is 0 where nothing is loaded, because one batch is trained again and again.
    """
    compute = gpu.host * ITERATION_S * work.host_work / work.batch_images + _compute_seconds(work, gpu)
    return _overlap(compute, load_seconds(work, mosaic=True) / _workers(vcpus)) if vcpus else compute


ITERATION_S = 0.0874
IMAGE_S, POWER = 0.0114, 0.72
PEAK_POWER, BANDWIDTH_POWER = 0.41, 0.76

SINGLE_PRECISION = 2.2
"""How much longer the arithmetic takes with `amp = false`: yolov8x on an H200, 90 ms a batch against 41."""

START_S, FIRST_S = 10.0, 3.0
"""From the process's start to the first batch, and what the first epoch takes more for a YOLOv8: 8 to 10 s on an H200, and 2 to 4."""

SECOND_HEAD_S = 24.0
"""What a training takes more with two heads: YOLO26 loads its kernels in 4 s of the start, 15 of the first epoch and 6 of the end."""

FINAL_S = 3.5
"""The final validation's set-up."""

MUON_S = 0.1
"""A step of MuSGD, on the host of a T4; 32 to 44 ms on an H200's."""

GPUS_KNOWN = frozenset(anchor.gpu for anchor in ANCHORS)


def _workers(vcpus: int) -> float:
    """How many cores' worth of loading an instance does: Ultralytics starts 8 workers at most, on hyper-threads."""
    return 0.7 * max(1, min(8, vcpus))


def _compute_seconds(work: Workload, gpu: Gpu) -> float:
    """One image's arithmetic on a GPU; a T4 has 65 TFLOPS in half precision and 320 GB/s."""
    index = math.pow(gpu.fp16_tflops / 65, PEAK_POWER) * math.pow(gpu.bandwidth_gb_s / 320, BANDWIDTH_POWER)
    precision = 1.0 if work.mixed_precision else SINGLE_PRECISION
    return precision * IMAGE_S * work.area * math.pow(work.gflops_640 / 30, POWER) / index


def _overlap(compute: float, load: float) -> float:
    """Return the time of two parallel stages: the slower one, and more where they are nearly equal."""
    return math.pow(compute**6 + load**6, 1 / 6)
