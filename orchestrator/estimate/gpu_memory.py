"""Whether a batch fits into memory, and which one would: a power of the arithmetic.

Fitted to what 34 trainings took from an H200's driver (`benchmarks/gpu_speed.py`); docs/estimate.md has its errors.
"""

import math

from gpu_offload.orchestrator.estimate.workload import Workload
from gpu_offload.orchestrator.offers.offer import Gpu

CONTEXT_GIB = 1.0
"""CUDA's own, the libraries', and what their allocator keeps."""
PER_IMAGE_GIB, POWER = 0.0356, 0.536
"""Activations of an image at 640 px of a YOLOv8: so much times the GFLOPs of its forward pass to that power."""
LAYERS_POWER = 0.65
"""How they grow with the layers, which `host_work` counts."""
SINGLE = 2.0
USABLE = 0.92
"""Of a GPU's memory, what a training can have."""
DOUBT = 1.3
"""How much more than that the prior must say before a GPU is refused: it may be wrong by as much."""


def memory_gib(work: Workload, batch: int | None = None) -> float:
    """Return the GPU memory that a training needs, in GiB, about."""
    image = (
        PER_IMAGE_GIB
        * math.pow(work.gflops_640, POWER)
        * (work.image_size / 640 * (1 + work.multi_scale)) ** 2
    )
    image *= math.pow(work.host_work, LAYERS_POWER) * (1.0 if work.mixed_precision else SINGLE)
    # Weights, gradients, two moments and the average, in single precision.
    state = work.parameters * 5 * 4 / 2**30
    return CONTEXT_GIB + state + image * (work.batch_images if batch is None else batch)


def largest_batch(work: Workload, gpu: Gpu) -> int:
    """Return the largest batch that surely fits, all GPUs together; 0 where not even one image does."""
    return _largest(work, gpu.memory_gib, gpu.count)


def memory_fault(work: Workload, gpu: Gpu) -> str | None:
    """Say of a place why a batch will not fit, and which one would; None where it does or may."""
    return _fault(work, gpu.memory_gib, gpu.count, "GPU memory")


def main_memory_fault(work: Workload, gib: float) -> str | None:
    """Say the same of a training on a CPU, which needs as much, or twice where it cannot compute in bfloat16."""
    return _fault(work, gib, 1, "memory")


def _largest(work: Workload, gib: float, count: int) -> int:
    each = memory_gib(work, 2) - memory_gib(work, 1)
    return count * max(0, math.floor((USABLE * gib - memory_gib(work, 0)) / each))


def _fault(work: Workload, gib: float, count: int, what: str) -> str | None:
    needed = memory_gib(work, math.ceil(work.batch_images / count))
    if needed <= DOUBT * USABLE * gib:
        return None
    batch = _largest(work, gib, count)
    remedy = f"training.batch = {batch} fits" if batch else "a smaller image-size or model is needed"
    has = f"{gib:.0f}{' each' if count > 1 else ''}"
    return (
        f"needs about {needed:.0f} GiB of {what} for training.batch = {work.batch}, and has {has}: {remedy}"
    )
