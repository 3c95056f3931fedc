"""Reports a training's pace: after its first steps, and after each epoch."""

import math
import time
from typing import Any

from gpu_offload.dataset.task import Task
from gpu_offload.remote_job.pace.ending import COPY_S, ending
from gpu_offload.remote_job.pace.idle import idle
from gpu_offload.remote_job.pace.interpreter import slowness
from gpu_offload.remote_job.pace.meter import process_age
from gpu_offload.remote_job.pace.pace import Pace
from gpu_offload.remote_job.pace.pace_meter import PaceMeter
from gpu_offload.remote_job.speed import threads
from gpu_offload.remote_job.yolo import preview
from gpu_offload.remote_job.yolo.protocol import Trainer


class Pacing:
    """Measures one training with a `PaceMeter`."""

    def __init__(self) -> None:
        self.meter = PaceMeter()
        self._epochs = 0
        self._batches = 0
        self._began = 0.0
        self._idle = idle()
        self._mosaic = False
        self._kept = 0

    def start(self, trainer: Trainer) -> None:
        """Note how long it took to get ready."""
        self.meter.ready = process_age() - trainer.bench.waited
        task, plots = trainer.bench.spec.task, bool(trainer.args.plots)
        self.meter.slowness = slowness()
        self.meter.final = round(
            ending(
                task,
                plots=plots,
                cores=trainer.capacity.cores,
                slowness=self.meter.slowness,
                exports=len(trainer.bench.spec.exports),
                parameters=_parameters(trainer),
            ),
            3,
        )

    def epoch_started(self, trainer: Trainer) -> None:
        """Begin the first step of an epoch."""
        with_mosaic, without = modes(trainer.bench.spec.task, trainer.args)
        closing = without and trainer.epoch >= trainer.epochs - trainer.args.close_mosaic
        self._mosaic = with_mosaic and not closing
        self.meter.batches = len(trainer.train_loader)
        now = time.perf_counter()
        if self._epochs and len(trainer.history) > 1:
            parts = sum(trainer.history[-2][part] for part in ("train", "validation", "save"))
            self.meter.between.append(max(0.0, now - self._began - parts))
        self._began = now
        self._epochs += 1
        if self._epochs > 1:
            self._fit_threads(trainer)
        self._idle = idle()
        self.meter.begin()

    def batch_started(self) -> None:
        """Note that a batch is loaded."""
        self.meter.loaded()

    def batch_ended(self, trainer: Trainer, *, batches: int) -> None:
        """End a step, the epoch's `batches`-th; report the pace once there were enough of them."""
        meter = self.meter
        self._batches = batches
        kept, self._kept = trainer.kept_bytes - self._kept, trainer.kept_bytes
        meter.step("mosaic" if self._mosaic else "plain", is_new=self._epochs == 1, kept=kept)
        # The first validation and the first checkpoint warm up: the look ahead comes before them in any case.
        if meter.announced or not (meter.is_enough or batches == meter.batches):
            return
        if self._fit_threads(trainer):
            return
        self._look_ahead(trainer)
        self.announce(trainer)
        meter.begin()

    def _fit_threads(self, trainer: Trainer) -> bool:
        """Compute in as many threads as there are cores for; return whether their number changed."""
        if trainer.device.type != "cpu" or trainer.world_size > 1 or not trainer.speed.on("threads"):
            return False
        now, share = trainer.speed.threads, self.meter.share()
        wanted = threads.fewer(now, share)
        if wanted == now and self._epochs > 1:
            wanted = threads.more(now, trainer.capacity.cores, idle().since(self._idle))
        if wanted == now:
            return False
        trainer.compute_in(wanted)
        self.meter.forget()
        self.meter.part = min(1.0, wanted / trainer.capacity.cores)
        return True

    def _look_ahead(self, trainer: Trainer) -> None:
        """Taste what the steps so far cannot show."""
        if trainer.device.type != "cpu" or trainer.world_size > 1:
            return
        try:
            first = self.meter.loads
            self.meter.again = preview.loading(trainer, first)
            self.meter.decoding = max(0.0, first - self.meter.again)
            if all(modes(trainer.bench.spec.task, trainer.args)):
                self.meter.other = preview.other_mode(trainer, mosaic=self._mosaic)
            step = pace.plain or pace.mosaic if (pace := self.meter.pace()) else None
            image = step.batch / trainer.train_loader.batch_size if step else math.inf
            self.meter.validation.append(preview.validation(trainer, image))
            copying = COPY_S * _parameters(trainer)
            self.meter.save.append(preview.saving(trainer, batches=self._batches) + copying)
        except Exception as error:  # noqa: BLE001 - an estimate must not end a training
            print(f"the estimate goes without a look ahead: {type(error).__name__}: {error}")  # noqa: T201 - to the log

    def announce(self, trainer: Trainer) -> None:
        """Report the pace."""
        pace = self.meter.pace()
        if pace is None:
            return
        self.meter.announced = True
        trainer.bench.progress.update(pace=pace)
        trainer.bench.progress.event(
            "pace",
            epoch=trainer.epoch + 1,
            epochs=trainer.epochs,
            batch=self._batches,
            batches=self.meter.batches,
            pace=pace,
        )

    def epoch_ended(self, trainer: Trainer) -> Pace | None:
        """Take in what an epoch's validation and checkpoint took; return the pace."""
        entry = trainer.history[-1]
        images = len(trainer.test_loader.dataset)
        if entry["validation"] > 0 and images:
            self.meter.validation.append(entry["validation"] / images)
        if entry["save"] > 0:
            self.meter.save.append(entry["save"])
        self.meter.announced = True
        pace = self.meter.pace()
        if pace is not None:
            trainer.bench.progress.update(pace=pace)
        return pace


def _parameters(trainer: Trainer) -> int:
    return sum(each.numel() for each in trainer.model.parameters())


def modes(task: Task, arguments: Any) -> tuple[bool, bool]:
    """Say whether the training has epochs with mosaic, and epochs without."""
    if task is Task.CLASSIFY or not arguments.mosaic or arguments.rect:
        return False, True
    if not arguments.close_mosaic:
        return True, False
    return arguments.epochs > arguments.close_mosaic, True
