"""Ultralytics' trainers at the machine's full speed; see `remote_job.speed` for what that means."""

import contextlib
import dataclasses
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from gpu_offload.remote_job import allocator
from gpu_offload.remote_job.pace.ending import TRIAL_MIN_STEPS
from gpu_offload.remote_job.speed import kernel, mixed_precision, trial
from gpu_offload.remote_job.speed import plan as speeds
from gpu_offload.remote_job.speed.capacity import Capacity
from gpu_offload.remote_job.speed.fused_norm import fused
from gpu_offload.remote_job.speed.image_cache import ImageCache

FUSED_OPTIMIZERS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
"""Optimizers with a fused kernel on a CPU, as far as Ultralytics uses them."""


class FastTrainer:
    """Mixed in before one of Ultralytics' trainers; applies the plan in `speed`.

    Attributes:
        speed: The plan; after the training, what was really on.
        capacity: What this process may use of the machine.
        trial_seconds: What the trial took; 0 where none was made.
    """

    speed: speeds.SpeedPlan
    capacity: Capacity
    trial_seconds = 0.0
    _while_training: contextlib.ExitStack | None = None
    """What is put back after the loop; None outside of it, where nothing is trained."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._images = ImageCache(self.capacity.memory_bytes)
        super().__init__(*args, **kwargs)
        device = self.device.type  # type: ignore[attr-defined]
        if device != "cpu":
            self.speed = speeds.on_device(self.speed, device)
            return
        torch.set_num_threads(self.speed.threads)
        self.speed = speeds.respecting_amp(self.speed, amp=self.args.amp)  # type: ignore[attr-defined]
        if self.speed.on("allocator") and not allocator.is_tuned(os.environ):
            kept = allocator.keep_blocks()
            reason = (
                "freed blocks are kept; in small pages, set within the running process"
                if kept
                else "the allocator refused its settings"
            )
            self.speed = self.speed.turn("allocator", on=kept, reason=reason)

    def compute_in(self, threads: int) -> None:
        """Compute in so many threads from now on, because others use the cores, or have left them."""
        torch.set_num_threads(threads)
        cores = self.capacity.cores
        reason = (
            f"{threads} of {cores} cores: other programs use the rest"
            if threads < cores
            else f"all {cores} cores"
        )
        LOGGER.info(f"speed: computing in {threads} threads, {reason}")
        self.speed = dataclasses.replace(self.speed.turn("threads", on=True, reason=reason), threads=threads)

    def _do_train(self) -> None:
        with contextlib.ExitStack() as stack:
            if self.speed.on("fused_norm"):
                try:
                    built = kernel.build(
                        self.capacity.compiler or "cc",
                        wide_vectors="avx512" in self.capacity.instruction_sets,
                        cache=kernel.cache_folder(os.environ),
                    )
                except kernel.KernelError as error:
                    LOGGER.warning(f"speed: fused_norm is off: {error}")
                    self.speed = self.speed.turn("fused_norm", on=False, reason=str(error))
                else:
                    stack.enter_context(fused(built))
            self._while_training = stack
            super()._do_train()  # type: ignore[misc]

    @property
    def kept_bytes(self) -> int:
        """Bytes of decoded pictures that are kept for later epochs."""
        return self._images.bytes

    def setup_model(self) -> Any:
        """Build the model, in the layout and the precision that are faster here."""
        checkpoint = super().setup_model()  # type: ignore[misc]
        model: Any = unwrap_model(self.model)  # type: ignore[has-type]
        if self.speed.on("mixed_precision") and not mixed_precision.covers(model):
            reason = f"{type(model).__name__} has a forward pass of its own"
            self.speed = self.speed.turn("mixed_precision", on=False, reason=reason)
        if self.speed.on("channels_last"):
            if self.speed.on("trial"):
                self._try()
            if self.speed.on("channels_last"):
                self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[has-type]
        if self.speed.on("mixed_precision") and self._while_training is not None:
            self._while_training.enter_context(mixed_precision.bfloat16())
        return checkpoint

    def _try(self) -> None:
        args: Any = self.args  # type: ignore[attr-defined]
        pictures = self._pictures()
        # The loaders, which know the number of images, are built after the model.
        steps = args.epochs * math.ceil(pictures / max(1, args.batch))
        if steps < TRIAL_MIN_STEPS:
            reason = f"the training has {steps} steps, too few for a trial to pay"
            self.speed = self.speed.turn("trial", on=False, reason=reason)
            return
        mixed, begun = self.speed.on("mixed_precision"), time.perf_counter()
        tried = trial.tried(unwrap_model(self.model), image_size=args.imgsz, batch=args.batch, mixed=mixed)
        self.trial_seconds = time.perf_counter() - begun
        LOGGER.info(f"speed: {tried}")
        self.speed = self.speed.turn("trial", on=True, reason=str(tried))
        if not tried.keeps_channels_last:
            self.speed = self.speed.turn("channels_last", on=False, reason=str(tried))
        if mixed:
            self.speed = self.speed.turn("mixed_precision", on=tried.keeps_bfloat16, reason=str(tried))

    def _pictures(self) -> int:
        """Return about how many pictures an epoch has."""
        from ultralytics.data.utils import IMG_FORMATS

        folder = self.data["train"]  # type: ignore[attr-defined]
        folders = folder if isinstance(folder, list) else [folder]
        return sum(path.suffix[1:].lower() in IMG_FORMATS for each in folders for path in _below(each))

    def build_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Build the optimizer, with its fused kernel where it has one."""
        optimizer = super().build_optimizer(*args, **kwargs)  # type: ignore[misc]
        if self.speed.on("fused_optimizer"):
            if type(optimizer) in FUSED_OPTIMIZERS:
                # Torch refuses an optimizer with both.
                for group in optimizer.param_groups:
                    group["fused"], group["foreach"] = True, False
            else:
                reason = f"{type(optimizer).__name__} has no fused kernel"
                self.speed = self.speed.turn("fused_optimizer", on=False, reason=reason)
        return optimizer

    def get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Build a loader whose pictures are decoded once."""
        loader = super().get_dataloader(*args, **kwargs)  # type: ignore[misc]
        if (
            self.speed.on("image_cache")
            and not loader.num_workers
            and not self._images.attach(loader.dataset)
        ):
            reason = f"{type(loader.dataset).__name__} has a cache of its own, or none that we know to serve"
            self.speed = self.speed.turn("image_cache", on=False, reason=reason)
        return loader


def _below(path: str) -> list[Path]:
    folder = Path(path)
    return list(folder.rglob("*")) if folder.is_dir() else []
