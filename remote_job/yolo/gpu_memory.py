"""A GPU whose memory does not suffice: recognised, worked around where no model changes by it, and explained."""

from collections.abc import Callable
from typing import Any

from gpu_offload.errors import OffloadError

SIGNS = ("out of memory", "ALLOC_FAILED")
"""In messages of torch, whose own class is a RuntimeError; cuBLAS and cuDNN raise it as it is."""


class GpuMemoryError(OffloadError):
    """The GPU's memory does not suffice, also for smaller batches."""


def said(error: RuntimeError) -> str | None:
    """Return what PyTorch says of too little memory, one line; None for another error."""
    # A loader's thread that pins memory, or its worker, puts a line before it.
    return next((line for line in str(error).splitlines() if any(sign in line for sign in SIGNS)), None)


def explained(device: str, batch: int, size: int, why: str) -> GpuMemoryError:
    """Return the error that says what to set for a batch at an image size; `why` is what PyTorch says."""
    smaller = f"training.batch = {batch // 2}, " if batch > 1 else ""
    return GpuMemoryError(
        f"the memory of {device} does not suffice for training.batch {batch} at training.image-size {size}: "
        f"set {smaller}a smaller training.image-size or training.model, or take a GPU with more memory "
        f"(ec2.instance-types); PyTorch says: {why}"
    )


def validated(trainer: Any, validate: Callable[[], Any]) -> Any:
    """Validate; in smaller batches, which change no model, where memory does not suffice."""
    from ultralytics.utils import LOGGER

    while True:
        try:
            return validate()
        except RuntimeError as error:
            if said(error) is None or trainer.world_size > 1:
                raise
            smaller = smaller_loader(trainer.validator.dataloader, trainer.device)
            if smaller is None:
                raise
        trainer._clear_memory()  # noqa: SLF001  Ultralytics' own
        LOGGER.warning(f"Out of memory in a validation; it goes on in batches of {smaller.batch_size}.")
        trainer.test_loader = trainer.validator.dataloader = smaller


def smaller_loader(loader: Any, device: Any) -> Any:
    """Return a loader of the same held-out images in smaller batches; None where they have one image.

    The batches divide those by which the dataset has chosen its images' shapes, so that every image keeps its own.
    """
    from ultralytics.data.build import build_dataloader

    dataset, batch = loader.dataset, loader.batch_size
    shaped = batch if getattr(dataset, "batch", None) is None else getattr(dataset, "batch_size", batch)
    sizes = (size for size in range(batch // 2, 0, -1) if shaped % size == 0)
    if (size := next(sizes, None)) is None:
        return None
    loader.close()
    return build_dataloader(dataset, size, loader.num_workers, shuffle=False, device=device)
