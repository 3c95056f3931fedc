"""Ultralytics' trainers, made interruptible, resumable to the bit, and observable."""

import contextlib
import time
from typing import Any

import torch
from torch import distributed
from torch.utils.data import DistributedSampler, RandomSampler, SequentialSampler
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.utils import LOGGER, RANK, torch_utils

from gpu_offload.dataset.task import Task
from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.speed.capacity import Capacity
from gpu_offload.remote_job.speed.plan import SpeedPlan
from gpu_offload.remote_job.speed.trainer import FastTrainer
from gpu_offload.remote_job.yolo import best_model, gpu_memory
from gpu_offload.remote_job.yolo.callbacks import Callbacks, Clock
from gpu_offload.remote_job.yolo.plots import Plots
from gpu_offload.remote_job.yolo.resume import Resume, Resumption, positioned_bars, recover_from_nan
from gpu_offload.remote_job.yolo.sampler import EpochSampler
from gpu_offload.remote_job.yolo.team import on_cpu

TRAINERS = {
    Task.DETECT: DetectionTrainer,
    Task.SEGMENT: SegmentationTrainer,
    Task.POSE: PoseTrainer,
    Task.CLASSIFY: ClassificationTrainer,
}

DIVIDED_S = 0.1
"""Processor seconds of an image from which it pays to divide it among threads: with 10 ms in one, two took 24 and eight 33."""


class SteadyTrainer(BaseTrainer):  # type: ignore[misc]  # Ultralytics has no types
    """Mixed in before one of Ultralytics' trainers; see `trainer_class`."""

    def __init__(
        self,
        bench: Bench,
        overrides: dict[str, Any],
        *,
        speed: SpeedPlan,
        capacity: Capacity,
        resumption: Resumption | None = None,
    ) -> None:
        self.bench = bench
        self.speed = speed
        self.capacity = capacity
        self.clock = Clock()
        self.resuming = Resume(resumption.state if resumption else None)
        self.ours = Callbacks(self.resuming, self.clock)
        self.drawing = Plots(beside=capacity.cores > 1)
        self.history: list[dict[str, Any]] = []
        self.best_state: dict[str, Any] | None = resumption.best if resumption else None
        self.done = False
        self.tloss: Any = None
        self.loss_items: Any = None
        self.loss: Any = None
        self.last_optimizer_step = -1
        self.random_before_validation: dict[str, Any] | None = None
        self._accumulate = 1
        self._lacked = ""
        begun = time.perf_counter()
        super().__init__(overrides=overrides)
        if bench.spec.gpus > 1:
            self.world_size = bench.spec.gpus  # Ultralytics counts GPUs; there are none in a team on a CPU
        self.callbacks["on_val_batch_end"].append(lambda _validator: self.ours.on_validation_batch_end(self))
        self.clock.build = time.perf_counter() - begun

    @property
    def accumulate(self) -> int:
        """Batches per optimizer step, corrected until the first step after a resumption; see `Resume`."""
        return self._accumulate + self.resuming.accumulate_offset

    @accumulate.setter
    def accumulate(self, value: int) -> None:
        self._accumulate = value

    def _do_train(self) -> None:
        with positioned_bars(self.resuming), on_cpu() if self._on_cpus else contextlib.nullcontext():
            if self.resuming.is_finished:
                self._conclude()
            else:
                super()._do_train()

    @property
    def _on_cpus(self) -> bool:
        return self.world_size > 1 and self.device.type == "cpu"

    def _setup_ddp(self) -> None:
        if self._on_cpus:
            distributed.init_process_group("gloo", rank=RANK, world_size=self.world_size)
        else:
            super()._setup_ddp()

    def _conclude(self) -> None:
        """Do what the loop does after its last epoch, for a training that died right there."""
        if self.world_size > 1:
            self._setup_ddp()
        self._setup_train()
        self.train_time_start = time.time()
        self.epoch = self.resuming.epochs_completed - 1
        LOGGER.info("All epochs were completed before; finishing.")
        self.final_eval()
        if RANK <= 0:
            self.run_callbacks("on_train_end")
        for loader in (self.train_loader, self.test_loader):
            loader.close()

    def _setup_train(self) -> None:
        begun = time.perf_counter()
        scan = self.clock.scan
        super()._setup_train()
        self.clock.build += time.perf_counter() - begun - (self.clock.scan - scan)

    def get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Build a loader whose order of images is known: shuffled by seed and epoch, or not at all."""
        begun = time.perf_counter()
        loader = super().get_dataloader(*args, **kwargs)
        self.clock.scan += time.perf_counter() - begun
        batches = loader.batch_sampler.sampler
        if isinstance(batches.sampler, RandomSampler | DistributedSampler):
            if kwargs.get("mode") == "train":
                batches.sampler = EpochSampler(
                    len(loader.dataset), self.args.seed, max(RANK, 0), max(self.world_size, 1)
                )
                # A loader is built again where memory did not suffice for the batch, also in a resumed epoch.
                batches.sampler.start_at(getattr(self, "epoch", 0))
            else:
                batches.sampler = SequentialSampler(loader.dataset)
        return loader

    def _close_dataloader_mosaic(self) -> None:
        super()._close_dataloader_mosaic()
        # The loader is reset next: orders that workers had drawn ahead are drawn again.
        self.place_order()

    def place_order(self) -> None:
        """Let the sampler begin at the epoch and batch in progress."""
        order = self.train_loader.batch_sampler.sampler.sampler
        if isinstance(order, EpochSampler):
            order.start_at(self.epoch, skip=self.resuming.first_batch * self.train_loader.batch_size)

    def optimizer_step(self) -> None:
        """Step, and remember at which iteration."""
        begun = time.perf_counter()
        try:
            super().optimizer_step()
        except RuntimeError as error:
            self._halve_later(error)
        self.ours.pacing.meter.optimized(time.perf_counter() - begun)
        self.last_optimizer_step = self.ours.batches_done + len(self.train_loader) * self.epoch
        self.resuming.accumulate_offset = 0

    def _halve_later(self, error: RuntimeError) -> None:
        """Let the next batch fail where Ultralytics halves the batch: it does so around forward and backward pass alone."""
        why = gpu_memory.said(error)
        if why is None or self.ours.batches_done + 1 >= len(self.train_loader):
            raise error
        self._lacked = why
        with contextlib.suppress(AssertionError):  # it had not begun to unscale
            self.scaler.update()
        self.optimizer.zero_grad()

    def preprocess_batch(self, batch: Any) -> Any:
        """Move a batch to the device; fail if its memory did not suffice for the optimizer's step before."""
        if self._lacked:
            why, self._lacked = self._lacked, ""
            raise RuntimeError(why)
        return super().preprocess_batch(batch)

    def validate(self) -> Any:
        """Validate, and measure the time."""
        begun = time.perf_counter()
        # Ultralytics would draw a last epoch's plots here where no other was validated; `final_eval` draws them all.
        self.validator.args.plots = False
        result = gpu_memory.validated(self, super().validate)
        self.history[-1]["validation"] = time.perf_counter() - begun
        return result

    def run_callbacks(self, event: str) -> None:
        """Run the callbacks of an event, then ours."""
        super().run_callbacks(event)
        self.ours.run(event, self)

    def share_cores(self) -> None:
        """Compute single images on the cores that nothing is drawn on: threads that wait for each other take longer."""
        if self.device.type == "cpu":
            threads = max(1, self.speed.threads - self.drawing.running)
            image = self.clock.final_validation * self.speed.threads / max(1, len(self.test_loader.dataset))
            # Predictions and exports select a device anew, which sets this number.
            torch_utils.NUM_THREADS = threads if image > DIVIDED_S else 1
            torch.set_num_threads(torch_utils.NUM_THREADS)

    def epoch_seconds(self) -> float:
        """Return the wall seconds since the epoch began, over all attempts."""
        return self.clock.epoch_seconds()

    def save_model(self) -> bool:
        """Save the training state once an epoch, and the best model where it is new."""
        self.ours.save_epoch(self)
        return True

    def resume_training(self, _checkpoint: Any) -> None:
        """Restore the state; Ultralytics calls this once model, optimizer and loaders are built."""
        self.clock.carried = self.resuming.load(self)

    def _handle_nan_recovery(self, epoch: int) -> bool:
        return recover_from_nan(self, epoch)

    def plot_training_labels(self) -> None:
        """Draw the labels once the training is over."""
        self.drawing.later(super().plot_training_labels)

    def plot_metrics(self) -> None:
        """Leave out what `final_eval` lets draw, right after the last epoch."""

    def final_eval(self) -> None:
        """Write the best model as Ultralytics does, and validate that file."""
        self.ours.finishing = True
        self.bench.progress.update(state="finishing")
        begun = time.perf_counter()
        if RANK <= 0:
            if self.args.plots:
                self.drawing.later(super().plot_metrics)
            self.drawing.start()
            best_model.write(self, self.best_state or best_model.capture(self), self.best)
        if self.world_size > 1:
            distributed.barrier()
        LOGGER.info(f"\nValidating {self.best}...")
        self.validator.args.plots = self.args.plots
        self.validator.args.compile = False  # minutes, for one pass over the images
        with self.drawing.postponed():
            self.metrics = gpu_memory.validated(self, lambda: self.validator(model=self.best))
        self.drawing.start()
        self.clock.final_validation = time.perf_counter() - begun


def trainer_class(task: Task, *inner: type) -> type[SteadyTrainer]:
    """Return Ultralytics' trainer for a task, made steady and fast; `inner` are mixed in right before it."""
    base = TRAINERS[task]
    return type(f"Steady{base.__name__}", (SteadyTrainer, FastTrainer, *inner, base), {})
