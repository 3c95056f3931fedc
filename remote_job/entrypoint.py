"""The contract with a user's own training function; see docs/bring-your-own.md."""

import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_offload.errors import OffloadError
from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.pace.meter import process_age
from gpu_offload.remote_job.pace.pace import Pace
from gpu_offload.remote_job.pace.pace_meter import STEPS, WINDOW, spread, usual
from gpu_offload.remote_job.progress import finite
from gpu_offload.remote_job.result import Timings, metrics_fault
from gpu_offload.remote_job.wire import MOST

if TYPE_CHECKING:
    from gpu_offload.remote_job.spec import TrainingSpec

PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

FIRST_SPREAD = 0.25
"""Relative uncertainty of an epoch by its first batches: what the function does after them is not known yet."""


class EntrypointError(OffloadError):
    """The user's function cannot be found, or does not keep the contract."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training of one's own returns.

    Attributes:
        model: The trained model, any file; it is published as `model<suffix>`.
        metrics: Numbers by name; they are published in the model's manifest as they are.
        extras: Further files worth keeping: plots, tables.
        stopped_early: True where the training is complete before the last epoch, such as after early stopping.
    """

    model: Path
    metrics: Mapping[str, float]
    extras: tuple[Path, ...] = ()
    stopped_early: bool = False


class TrainingContext:
    """What a training of one's own receives.

    Attributes:
        spec: Everything that was configured; `hyperparameters` are the user's own.
        tree: The training tree, laid out as docs/training-module.md says. Read only.
        data: What tools that read YOLO datasets take: a data.yaml, or the tree for classification.
        output: An empty folder for the function's files.
        weights: Starting weights, where the configuration names some.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._epoch_began = time.perf_counter()
        self._epochs: list[dict[str, float]] = []
        """Metrics and losses of each epoch, also of those before an interruption."""
        self._epoch_seconds: list[float] = []
        self._ready = process_age()
        self.spec: TrainingSpec = bench.spec
        self.tree: Path = bench.data.tree
        self.data: Path = bench.data.argument
        self.output: Path = bench.work / "own"
        self.weights: Path | None = bench.weights
        self.epochs_completed = 0
        self._resumable: Path | None = None
        if (checkpoint := bench.checkpoints.load()) is not None:
            self.epochs_completed = checkpoint.manifest.epochs_completed
            bench.seconds_before = checkpoint.manifest.seconds
            self._resumable = checkpoint.last
            done = self.epochs_completed
            before = checkpoint.manifest.curves
            self._epochs = (
                [{n: v[i] for n, v in before.items() if i < len(v)} for i in range(done)] if before else []
            )
        bench.progress.update(epochs_completed=self.epochs_completed)

    def resume(self) -> Path | None:
        """Return the newest checkpoint's file, verified; None where the training begins.

        `epochs_completed` is the number of epochs behind it. The file is what `checkpoint` was given. Load it
        safely all the same (no pickle), because a store may be shared.
        """
        return self._resumable

    def interrupted(self) -> bool:
        """Return whether to stop. Ask after each batch; when true, save a checkpoint if you like, and return None."""
        return self._bench.interruption.requested

    def progress(
        self,
        *,
        epoch: int,
        batch: int,
        batches: int,
        losses: Mapping[str, float] | None = None,
    ) -> None:
        """Report a finished batch; cheap, two a second are passed on.

        Args:
            epoch: The one in progress, counted from 1.
            batch: Counted from 1.
            batches: In this epoch.
            losses: By name.
        """
        self._bench.progress.update(state="training")
        if not self._epoch_seconds and batch == min(STEPS, batches - 1) and batch > 0:
            # Until an epoch is complete, its first batches stand for it.
            so_far = time.perf_counter() - self._epoch_began
            pace = Pace.measured(
                ready=round(self._ready, 4),
                batches=batches,
                epoch=so_far / batch * min(batches, MOST),
                spread=FIRST_SPREAD,
            )
            self._bench.progress.update(pace=pace)
            self._bench.progress.event(
                "pace", epoch=epoch, epochs=self.spec.epochs, batch=batch, batches=batches, pace=pace
            )
        self._bench.progress.batch(
            batch,
            batches,
            epoch=epoch,
            losses=lambda: dict(losses or {}),
            seconds=time.perf_counter() - self._epoch_began,
        )

    def epoch(
        self, epoch: int, *, metrics: Mapping[str, float], losses: Mapping[str, float] | None = None
    ) -> None:
        """Report a finished epoch, counted from 1 up to `spec.epochs`. Raises EntrypointError: another number, or odd names."""
        if not 1 <= epoch <= self.spec.epochs:
            raise EntrypointError(
                f"{_caller()}: context.epoch({epoch}) of {self.spec.epochs}: epochs are counted from 1 to training.epochs"
            )
        if fault := metrics_fault({**(losses or {}), **metrics}):
            raise EntrypointError(f"{_caller()}: context.epoch({epoch}): {fault}")
        now = time.perf_counter()
        seconds, self._epoch_began = now - self._epoch_began, now
        self._epoch_seconds.append(seconds)
        self._epochs.append(finite({**(losses or {}), **metrics}))
        self.epochs_completed = epoch
        mean = sum(self._epoch_seconds) / len(self._epoch_seconds)
        pace = self._pace()
        self._bench.progress.update(
            state="training", epochs_completed=epoch, batch=0, seconds_per_epoch=round(mean, 3), pace=pace
        )
        self._bench.progress.event(
            "epoch",
            epoch=epoch,
            epochs=self.spec.epochs,
            metrics=finite(dict(metrics)),
            losses=finite(dict(losses or {})),
            seconds=round(seconds, 4),
            pace=pace,
        )

    def _pace(self) -> Pace:
        """Return the pace by the epochs so far; the first one warms up and does not count where there are more."""
        counted = self._epoch_seconds[1:] or self._epoch_seconds
        return Pace.measured(
            ready=round(self._ready, 4),
            epoch=round(usual(counted[-WINDOW:]), 4),
            spread=round(spread(counted[-WINDOW:]), 4) if len(counted) > 2 else 0.0,
        )

    def checkpoint(self, path: Path, *, epochs_completed: int) -> None:
        """Keep a file from which the training can go on; it is copied, verified and uploaded.

        Args:
            path: The file that `resume` returns a copy of.
            epochs_completed: Epochs that are behind it.
        """
        # Read at once: the function may overwrite the file while it is uploaded.
        self._bench.checkpoints.save(
            path.read_bytes(),
            epochs_completed=epochs_completed,
            seconds=self._bench.seconds,
            curves=_by_name(self._epochs[:epochs_completed]),
        )
        self._bench.progress.event("checkpoint", epoch=epochs_completed, epochs=self.spec.epochs)
        self._bench.saved()

    def timings(self, begun: float) -> Timings:
        """Return how long the epochs and all of it took."""
        return Timings(
            epoch_train=tuple(self._epoch_seconds),
            total=time.perf_counter() - begun,
            installation=self._bench.spec.installed_s,
        )

    def curves(self) -> dict[str, tuple[float, ...]]:
        """Return what `epoch` was given, by name: what every epoch has."""
        return _by_name(self._epochs)


def _by_name(epochs: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    names = [name for name in (epochs[0] if epochs else {}) if all(name in epoch for epoch in epochs)]
    return {name: tuple(epoch[name] for epoch in epochs) for name in names}


def fault(reference: str) -> str | None:
    """Say what is wrong with an entrypoint's name, None if nothing is."""
    if PATTERN.fullmatch(reference):
        return None
    return f"entrypoint: {reference!r} is not of the form package.module:function"


def _caller() -> str:
    """Return `file:line` from where the user's code called the context."""
    frame = sys._getframe(2)  # noqa: SLF001 - cheaper than inspect.stack(), which reads source files
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
