"""What happens at the events of Ultralytics' loop: report, measure, save, obey an interruption."""

import time
from dataclasses import dataclass, field
from typing import Any

from gpu_offload.remote_job.progress import finite
from gpu_offload.remote_job.yolo import best_model, trainer_state
from gpu_offload.remote_job.yolo import tensors as states
from gpu_offload.remote_job.yolo.pacing import Pacing
from gpu_offload.remote_job.yolo.protocol import Trainer
from gpu_offload.remote_job.yolo.resume import Resume


@dataclass(slots=True)
class Clock:
    """Wall seconds by stage, over all attempts."""

    build: float = 0.0
    scan: float = 0.0
    final_validation: float = 0.0
    epoch_started: float = field(default_factory=time.perf_counter)
    carried: float = 0.0
    """Seconds that an earlier attempt spent in the epoch in progress."""

    def epoch_seconds(self) -> float:
        """Return the wall seconds since the epoch began, over all attempts."""
        return self.carried + time.perf_counter() - self.epoch_started


class Callbacks:
    """Our callbacks, each named after its event; they run after Ultralytics' own.

    Attributes:
        batches_done: Batches of the epoch in progress that are trained.
        finishing: Whether the last epoch is over; nothing is saved any more.
    """

    def __init__(self, resume: Resume, clock: Clock) -> None:
        self._resume = resume
        self._clock = clock
        self.pacing = Pacing()
        self.batches_done = 0
        self.finishing = False

    def run(self, event: str, trainer: Trainer) -> None:
        """Call the callback of an event if there is one."""
        callback = getattr(self, event, None)
        if callback is not None:
            callback(trainer)

    def on_train_start(self, trainer: Trainer) -> None:
        """Report the device."""
        self.pacing.start(trainer)
        trainer.bench.progress.update(state="training", device=str(trainer.device))
        trainer.bench.interruption.check()

    def on_train_epoch_start(self, trainer: Trainer) -> None:
        """Open the epoch's entry in the history."""
        self._clock.epoch_started = time.perf_counter()
        history = trainer.history
        if history and history[-1]["epoch"] == trainer.epoch + 1:
            history.pop()  # the epoch begins again, with a smaller batch or after a NaN
            self.pacing.meter.forget()
        history.append({"epoch": trainer.epoch + 1, "train": 0.0, "validation": 0.0, "save": 0.0})
        self.batches_done = 0
        trainer.random_before_validation = None
        if self._resume.arrive(trainer):
            self.batches_done = self._resume.first_batch
            trainer.place_order()
        self.pacing.epoch_started(trainer)

    def on_train_batch_start(self, trainer: Trainer) -> None:
        """Continue the epoch's mean loss."""
        self.pacing.batch_started()
        self._resume.restore_running_loss(trainer, batches_done=self.batches_done)

    def on_train_batch_end(self, trainer: Trainer) -> None:
        """Report the batch; save and stop when asked to."""
        self.batches_done += 1
        trainer.bench.progress.batch(
            self.batches_done,
            len(trainer.train_loader),
            epoch=trainer.epoch + 1,
            losses=lambda: {name: float(value) for name, value in trainer.tloss.items()},
            seconds=self._clock.epoch_seconds(),
        )
        if trainer.bench.interruption.requested:
            self._save_in_epoch(trainer)
            trainer.bench.interruption.check()
        self.pacing.batch_ended(trainer, batches=self.batches_done)

    def on_train_epoch_end(self, trainer: Trainer) -> None:
        """Measure the epoch, and remember the random state that its validation begins with."""
        self._resume.restore_losses(trainer)
        trainer.history[-1]["train"] = self._clock.epoch_seconds()
        # A validation draws random numbers, too, and is repeated as a whole.
        trainer.random_before_validation = states.random_state()

    def on_validation_batch_end(self, trainer: Trainer) -> None:
        """Save and stop when asked to."""
        if not trainer.bench.interruption.requested:
            return
        if not self.finishing:
            self._save_in_epoch(trainer)
        trainer.bench.interruption.check()

    def on_fit_epoch_end(self, trainer: Trainer) -> None:
        """Report the epoch."""
        entry = trainer.history[-1]
        done = [item["train"] + item["validation"] + item["save"] for item in trainer.history]
        trainer.bench.progress.update(
            epochs_completed=trainer.epoch + 1,
            batch=0,
            seconds_per_epoch=round(sum(done) / len(done), 3),
        )
        trainer.bench.progress.event(
            "epoch",
            epoch=trainer.epoch + 1,
            epochs=trainer.epochs,
            losses=entry.get("losses"),
            metrics=entry.get("metrics"),
            seconds=round(done[-1], 4),
            pace=self.pacing.epoch_ended(trainer),
        )
        trainer.bench.interruption.check()

    def save_epoch(self, trainer: Trainer) -> None:
        """Save the training state after an epoch, and the best model where it is new."""
        begun = time.perf_counter()
        best_model.heal_average(trainer)
        entry = trainer.history[-1]
        entry["losses"] = finite(trainer.tloss)
        fitness = {} if trainer.fitness is None else {"fitness": trainer.fitness}
        entry["metrics"] = finite({**trainer.metrics, **fitness})
        entry["lr"] = finite(trainer.lr)
        trainer.done = bool(
            trainer.stop
        )  # Ultralytics decides it before it saves: last epoch, or out of patience
        best = None
        if trainer.best_fitness == trainer.fitness:
            trainer.best_state = best_model.capture(trainer)
            best = states.dumps(trainer.best_state)
        _save(trainer, epochs_completed=trainer.epoch + 1, batches_completed=0, best=best)
        entry["save"] = time.perf_counter() - begun

    def _save_in_epoch(self, trainer: Trainer) -> None:
        """Save between two batches, so that the epoch continues from there."""
        if self.batches_done:  # else the checkpoint of the epoch before is the same state
            _save(trainer, epochs_completed=trainer.epoch, batches_completed=self.batches_done, best=None)


def _save(
    trainer: Trainer, *, epochs_completed: int, batches_completed: int, best: memoryview | None
) -> None:
    bench = trainer.bench
    manifest = bench.checkpoints.save(
        states.dumps(trainer_state.capture(trainer, epochs_completed, batches_completed)),
        epochs_completed=epochs_completed,
        batches_completed=batches_completed,
        seconds=bench.seconds,
        best=best,
    )
    batch: dict[str, Any] = {"batch": batches_completed} if batches_completed else {}
    bench.progress.event(
        "checkpoint", epoch=epochs_completed, epochs=trainer.epochs, message=manifest.last.name, **batch
    )
    bench.saved()
