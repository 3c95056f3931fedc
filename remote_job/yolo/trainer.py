"""Ultralytics' trainers, made interruptible, resumable to the bit, and talkative."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import RandomSampler, SequentialSampler
from ultralytics.engine import trainer as engine
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from gpu_offload.dataset.task import Task
from gpu_offload.errors import OffloadError
from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.progress import finite
from gpu_offload.remote_job.speed.capacity import Capacity
from gpu_offload.remote_job.speed.plan import SpeedPlan
from gpu_offload.remote_job.speed.trainer import FastTrainer
from gpu_offload.remote_job.yolo import best_model, trainer_state
from gpu_offload.remote_job.yolo import tensors as states
from gpu_offload.remote_job.yolo.sampler import EpochSampler

TRAINERS = {
    Task.DETECT: DetectionTrainer,
    Task.SEGMENT: SegmentationTrainer,
    Task.POSE: PoseTrainer,
    Task.CLASSIFY: ClassificationTrainer,
}
MAX_NAN_RECOVERIES = 3


class DivergedError(OffloadError):
    """The loss became NaN again and again."""


@dataclass(slots=True)
class Clock:
    """Wall seconds by stage, over all attempts."""

    build: float = 0.0
    scan: float = 0.0
    final_validation: float = 0.0
    epoch_started: float = field(default_factory=time.perf_counter)
    carried: float = 0.0
    """Seconds that an earlier attempt spent in the epoch in progress."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """What an earlier attempt left: the state to go on from, and the best model so far."""

    state: dict[str, Any]
    best: dict[str, Any] | None


def resumption(bench: Bench) -> Resumption | None:
    """Read the newest whole checkpoint, None where there is none.

    Raises:
        UnreadableStateError: It is whole but not one of ours.
    """
    checkpoint = bench.checkpoints.load()
    if checkpoint is None:
        return None
    state = states.load(checkpoint.last)
    trainer_state.check_position(state, checkpoint.position)
    bench.seconds_before = checkpoint.manifest.seconds
    bench.progress.update(epochs_completed=checkpoint.manifest.epochs_completed)
    return Resumption(state, states.load(checkpoint.best) if checkpoint.best else None)


class SteadyTrainer(BaseTrainer):  # type: ignore[misc]  # Ultralytics has no types
    """Mixed in before one of Ultralytics' trainers; see `trainer_class`.

    Bit-exact resumption on a CPU rests on: state dictionaries in full precision, all random generators, the
    dataset's image buffer, gradients waiting for the optimizer, the iteration of the last optimizer step, and an
    order of images that depends on seed and epoch alone.
    """

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
        self.restored = resumption.state if resumption else None
        self.speed = speed
        self.capacity = capacity
        self.clock = Clock()
        self.history: list[dict[str, Any]] = []
        self.best_state: dict[str, Any] | None = resumption.best if resumption else None
        self.done = False
        self.tloss: Any = None
        self.loss_items: Any = None
        self.loss: Any = None
        self._accumulate = 1
        self._accumulate_offset = 0
        self._batches_done = 0
        self.last_optimizer_step = -1
        self._first_batch = 0
        self._resume_pending = False
        self._finishing = False
        self.random_before_validation: dict[str, Any] | None = None
        begun = time.perf_counter()
        super().__init__(overrides=overrides)
        self.callbacks["on_val_batch_end"].append(lambda _validator: self._after_validation_batch())
        self.clock.build = time.perf_counter() - begun

    # -- the loop, bent where it must be -------------------------------------------------------------

    @property
    def accumulate(self) -> int:
        """Batches per optimizer step, as the loop compares it with the distance to the last step.

        The loop believes that the last step was at iteration -1 whenever it starts; the offset corrects that
        until the first step after a resumption.
        """
        return self._accumulate + self._accumulate_offset

    @accumulate.setter
    def accumulate(self, value: int) -> None:
        self._accumulate = value

    def _do_train(self) -> None:
        with positioned_bars(self):
            if self.restored is not None and self.restored["done"]:
                self._setup_train()
                self.train_time_start = time.time()
                self.epoch = self.restored["epochs_completed"] - 1
                self._conclude()
            else:
                super()._do_train()

    def _conclude(self) -> None:
        """Do what the loop does after its last epoch, for a training that died right there."""
        LOGGER.info("All epochs were completed before; finishing.")
        self.final_eval()
        if self.args.plots:
            self.plot_metrics()
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
        if isinstance(batches.sampler, RandomSampler):
            if kwargs.get("mode") == "train":
                batches.sampler = EpochSampler(len(loader.dataset), self.args.seed)
            else:
                batches.sampler = SequentialSampler(loader.dataset)
        return loader

    def _order(self) -> EpochSampler | None:
        sampler = self.train_loader.batch_sampler.sampler.sampler
        return sampler if isinstance(sampler, EpochSampler) else None

    def _close_dataloader_mosaic(self) -> None:
        super()._close_dataloader_mosaic()
        # The loader is reset next: orders that workers had drawn ahead are drawn again.
        self._place_order()

    def _place_order(self) -> None:
        if (order := self._order()) is not None:
            order.start_at(self.epoch, skip=self._first_batch * self.train_loader.batch_size)

    def optimizer_step(self) -> None:
        """Step, and remember where."""
        super().optimizer_step()
        self.last_optimizer_step = self._batches_done + len(self.train_loader) * self.epoch
        self._accumulate_offset = 0

    def validate(self) -> Any:
        """Validate, and note how long it took."""
        begun = time.perf_counter()
        result = super().validate()
        self.history[-1]["validation"] = time.perf_counter() - begun
        return result

    def run_callbacks(self, event: str) -> None:
        """Run the callbacks of an event, then ours."""
        super().run_callbacks(event)
        ours = getattr(self, f"_{event}", None)
        if ours is not None:
            ours()

    def take_first_batch(self) -> int:
        """Return at which batch the epoch begins, once; 0 ever after."""
        first, self._first_batch = self._first_batch, 0
        return first

    def _on_train_start(self) -> None:
        self.bench.progress.update(state="training", device=str(self.device))
        self.bench.interruption.check()

    def _on_train_epoch_start(self) -> None:
        self.clock.epoch_started = time.perf_counter()
        if self.history and self.history[-1]["epoch"] == self.epoch + 1:
            self.history.pop()  # the epoch begins again, with a smaller batch or after a NaN
        self.history.append({"epoch": self.epoch + 1, "train": 0.0, "validation": 0.0, "save": 0.0})
        self._batches_done = 0
        self.random_before_validation = None
        if self._resume_pending:
            self._resume_pending = False
            self._arrive()

    def _on_train_batch_start(self) -> None:
        restored = self.restored
        if restored is not None and self.tloss is None and self._batches_done:
            self.tloss = self._to_device(restored["tloss"])

    def _on_train_batch_end(self) -> None:
        self._batches_done += 1
        self.bench.progress.batch(
            self._batches_done,
            len(self.train_loader),
            epoch=self.epoch + 1,
            losses=lambda: {name: float(value) for name, value in self.tloss.items()},
            seconds=self.epoch_seconds(),
        )
        if self.bench.interruption.requested:
            self._save_in_epoch()
            self.bench.interruption.check()

    def _on_train_epoch_end(self) -> None:
        if self.tloss is None and self.restored is not None:
            # Resumed behind the epoch's last batch: there was none to derive the losses from.
            self.tloss = self._to_device(self.restored["tloss"])
            self.loss_items = self._to_device(self.restored["loss_items"])
            self.loss = torch.as_tensor(self.restored["loss"], device=self.device)
            groups = self.restored["optimizer"]["param_groups"]
            self.lr = {f"lr/pg{i}": group["lr"] for i, group in enumerate(groups)}
        self.history[-1]["train"] = self.epoch_seconds()
        # A validation draws random numbers, too, and is repeated as a whole.
        self.random_before_validation = states.random_state()

    def _after_validation_batch(self) -> None:
        if not self.bench.interruption.requested:
            return
        if not self._finishing:
            self._save_in_epoch()
        self.bench.interruption.check()

    def _on_fit_epoch_end(self) -> None:
        entry = self.history[-1]
        done = [item["train"] + item["validation"] + item["save"] for item in self.history]
        self.bench.progress.update(
            epochs_completed=self.epoch + 1,
            batch=0,
            seconds_per_epoch=round(sum(done) / len(done), 3),
        )
        self.bench.progress.event(
            "epoch",
            epoch=self.epoch + 1,
            epochs=self.epochs,
            losses=entry.get("losses"),
            metrics=entry.get("metrics"),
            seconds=round(done[-1], 4),
        )
        self.bench.interruption.check()

    def epoch_seconds(self) -> float:
        """Return the wall seconds since the epoch began, over all attempts."""
        return self.clock.carried + time.perf_counter() - self.clock.epoch_started

    # -- saving ---------------------------------------------------------------------------------------

    def save_model(self) -> bool:
        """Save the training state once an epoch, and the best model where it is new."""
        begun = time.perf_counter()
        best_model.heal_average(self)
        entry = self.history[-1]
        entry["losses"] = finite(self.tloss)
        entry["metrics"] = finite(
            {**self.metrics, **({} if self.fitness is None else {"fitness": self.fitness})}
        )
        entry["lr"] = finite(self.lr)
        self.done = bool(self.stop)
        best = None
        if self.best_fitness == self.fitness:
            self.best_state = best_model.capture(self)
            best = states.dumps(self.best_state)
        self._save(epochs_completed=self.epoch + 1, batches_completed=0, best=best)
        entry["save"] = time.perf_counter() - begun
        return True

    def _save_in_epoch(self) -> None:
        """Save between two batches, such that the epoch goes on from there."""
        if self._batches_done:
            self._save(epochs_completed=self.epoch, batches_completed=self._batches_done, best=None)

    def _save(self, *, epochs_completed: int, batches_completed: int, best: memoryview | None) -> None:
        manifest = self.bench.checkpoints.save(
            states.dumps(trainer_state.capture(self, epochs_completed, batches_completed)),
            epochs_completed=epochs_completed,
            batches_completed=batches_completed,
            seconds=self.bench.seconds,
            best=best,
        )
        self.bench.progress.event(
            "checkpoint",
            epoch=epochs_completed,
            epochs=self.epochs,
            message=manifest.last.name,
            **({"batch": batches_completed} if batches_completed else {}),
        )
        self.bench.saved()

    # -- going on -------------------------------------------------------------------------------------

    def resume_training(self, _checkpoint: Any) -> None:
        """Take over the restored state; called by Ultralytics when model, optimizer and loaders are there."""
        restored = self.restored
        if restored is None:
            return
        trainer_state.load_weights(self, restored)
        trainer_state.load_course(self, restored)
        self.clock.carried = restored["epoch_seconds"]
        self._resume_pending = not self.done
        LOGGER.info(
            f"Resuming after {self.start_epoch} of {self.epochs} epochs"
            + (f" and {restored['batches_completed']} batches" if restored["batches_completed"] else "")
        )

    def _arrive(self) -> None:
        """Put everything where it stood; the last thing before the first batch."""
        restored = self.restored
        assert restored is not None  # noqa: S101 - set together with _resume_pending
        states.set_gradients(unwrap_model(self.model), restored["gradients"])
        states.set_image_buffer(self.train_loader.dataset, restored["buffer"])
        states.set_random_state(restored["random"])
        if restored["batches"] == len(self.train_loader):
            self._accumulate_offset = self.last_optimizer_step + 1
            self._first_batch = self._batches_done = restored["batches_completed"]
        self._place_order()

    def _to_device(self, values: dict[str, Any]) -> dict[str, Any]:
        return {name: torch.as_tensor(value, device=self.device) for name, value in values.items()}

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Go back to the last checkpoint when the loss is NaN; other images come next, so it may not return."""
        finite_loss = self.loss is None or bool(self.loss.isfinite())
        if finite_loss and (self.fitness is None or self.fitness - self.fitness == 0):
            return False
        checkpoint = self.bench.checkpoints.load()
        if checkpoint is None:
            LOGGER.warning("The loss is NaN in the first epoch; there is no checkpoint to go back to.")
            return False
        self.nan_recovery_attempts += 1
        if self.nan_recovery_attempts > MAX_NAN_RECOVERIES:
            raise DivergedError(
                f"the loss was NaN in epoch {epoch + 1} {self.nan_recovery_attempts} times, each time from the "
                "same checkpoint; lower the learning rate (lr0) or look for broken labels"
            )
        LOGGER.warning(f"The loss is NaN; going back to the checkpoint ({self.nan_recovery_attempts}).")
        self._model_train()
        restored = states.load(checkpoint.last)
        trainer_state.load_weights(self, restored)
        self.best_fitness = restored["best_fitness"]
        self.stopper.__dict__.update(restored["stopper"])
        self.scheduler.last_epoch = epoch - 1
        return True

    # -- the end --------------------------------------------------------------------------------------

    def final_eval(self) -> None:
        """Write the best model as Ultralytics does, and validate that file."""
        self._finishing = True
        self.bench.progress.update(state="finishing")
        begun = time.perf_counter()
        best_model.write(self, self.best_state or best_model.capture(self), self.best)
        LOGGER.info(f"\nValidating {self.best}...")
        self.validator.args.plots = self.args.plots
        self.validator.args.compile = False
        self.metrics = self.validator(model=self.best)
        self.clock.final_validation = time.perf_counter() - begun


@contextlib.contextmanager
def positioned_bars(trainer: SteadyTrainer) -> Iterator[None]:
    """Let the loop's progress bar count from the batch at which a resumed epoch goes on."""
    plain = engine.TQDM

    def bar(iterable: Any, *args: Any, **kwargs: Any) -> Any:
        first = trainer.take_first_batch()
        if not first:
            return plain(iterable, *args, **kwargs)
        rest = itertools.islice(iterable, kwargs["total"] - first)
        return plain(((first + i, batch) for i, batch in rest), *args, initial=first, **kwargs)

    engine.TQDM = bar
    try:
        yield
    finally:
        engine.TQDM = plain


def trainer_class(task: Task, *inner: type) -> type[SteadyTrainer]:
    """Return Ultralytics' trainer for a task, made steady and fast; `inner` are mixed in right before it."""
    base = TRAINERS[task]
    return type(f"Steady{base.__name__}", (SteadyTrainer, FastTrainer, *inner, base), {})
