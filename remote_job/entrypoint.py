"""Bring your own training: a function of the user's in Ultralytics' place; see docs/bring-your-own.md."""

import importlib
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.errors import OffloadError
from gpu_offload.remote_job import machine
from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.files import result_files
from gpu_offload.remote_job.progress import finite
from gpu_offload.remote_job.result import Timings, TrainingResult
from gpu_offload.remote_job.spec import TrainingSpec  # noqa: TC001 - users read the annotations of the context

PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class EntrypointError(OffloadError):
    """The user's function cannot be found, or does not keep the contract."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training of one's own returns.

    Attributes:
        model: The trained model, any file; it is published as `model<suffix>`.
        metrics: Numbers by name, as they shall stand in the model's manifest.
        extras: Further files worth keeping: plots, tables.
        stopped_early: Whether the training itself decided that it was done before the last epoch.
    """

    model: Path
    metrics: Mapping[str, float]
    extras: tuple[Path, ...] = ()
    stopped_early: bool = False


class TrainingContext:
    """What a training of one's own is given.

    Attributes:
        spec: Everything that was configured; `hyperparameters` are the user's own.
        tree: The training tree, laid out as docs/training-module.md says. Read only.
        output: An empty folder for the function's files.
        weights: Starting weights, where the configuration names some.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._epoch_began = time.perf_counter()
        self._curves: dict[str, list[float]] = {}
        self._epoch_seconds: list[float] = []
        self.spec: TrainingSpec = bench.spec
        self.tree: Path = bench.data.tree
        self.output: Path = bench.work / "own"
        self.weights: Path | None = bench.weights
        self.epochs_completed = 0
        self._resumable: Path | None = None
        if (checkpoint := bench.checkpoints.load()) is not None:
            self.epochs_completed = checkpoint.manifest.epochs_completed
            bench.seconds_before = checkpoint.manifest.seconds
            self._resumable = checkpoint.last
        bench.progress.update(epochs_completed=self.epochs_completed)

    def resume(self) -> Path | None:
        """Return the newest checkpoint's file, verified; None where the training begins.

        `epochs_completed` says how many epochs are behind it. Its content is what this function wrote: nothing
        else writes there, but load it safely all the same (no pickle), since a store may be shared.
        """
        return self._resumable

    def interrupted(self) -> bool:
        """Say whether to stop. Ask after each batch; when it is so, save a checkpoint if you like, and return None."""
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
        """Report a finished epoch, counted from 1."""
        now = time.perf_counter()
        seconds, self._epoch_began = now - self._epoch_began, now
        self._epoch_seconds.append(seconds)
        for name, value in {**(losses or {}), **metrics}.items():
            self._curves.setdefault(name, []).append(float(value))
        self.epochs_completed = epoch
        mean = sum(self._epoch_seconds) / len(self._epoch_seconds)
        self._bench.progress.update(
            state="training", epochs_completed=epoch, batch=0, seconds_per_epoch=round(mean, 3)
        )
        self._bench.progress.event(
            "epoch",
            epoch=epoch,
            epochs=self.spec.epochs,
            metrics=finite(dict(metrics)),
            losses=finite(dict(losses or {})),
            seconds=round(seconds, 4),
        )

    def checkpoint(self, path: Path, *, epochs_completed: int) -> None:
        """Keep a file from which the training can go on; it is copied, verified and uploaded.

        Args:
            path: Whatever `resume` shall return a copy of.
            epochs_completed: Epochs that are behind it.
        """
        self._bench.checkpoints.save(
            path.read_bytes(), epochs_completed=epochs_completed, seconds=self._bench.seconds
        )
        self._bench.progress.event("checkpoint", epoch=epochs_completed, epochs=self.spec.epochs)
        self._bench.saved()

    def timings(self, begun: float) -> Timings:
        """Return how long the epochs and all of it took."""
        return Timings(epoch_train=tuple(self._epoch_seconds), total=time.perf_counter() - begun)

    def curves(self) -> dict[str, tuple[float, ...]]:
        """Return what `epoch` was given, by name."""
        return {name: tuple(values) for name, values in self._curves.items()}


def fault(reference: str) -> str | None:
    """Say what is wrong with an entrypoint's name, None if nothing is."""
    if PATTERN.fullmatch(reference):
        return None
    return f"entrypoint: {reference!r} is not of the form package.module:function"


def load(reference: str) -> Callable[[TrainingContext], Trained | None]:
    """Import the user's function; modules are looked for in the working directory first.

    Raises:
        EntrypointError: There is no such module or function.
    """
    module_name, _, name = reference.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise EntrypointError(
            f"training.entrypoint {reference}: {error}; modules are looked for in {Path.cwd()} and among the "
            "installed packages"
        ) from error
    finally:
        sys.path.remove(str(Path.cwd()))
    function: Callable[[TrainingContext], Trained | None] | None = getattr(module, name, None)
    if not callable(function):
        raise EntrypointError(f"training.entrypoint {reference}: {module.__file__} has no function {name}")
    return function


def run(bench: Bench) -> TrainingResult:
    """Run the user's function, and stage what it returns.

    Raises:
        EntrypointError: It cannot be found, or returned something else than the contract says.
        InterruptedTrainingError: It returned None because it was told to stop.
    """
    begun = time.perf_counter()
    spec = bench.spec
    assert spec.entrypoint is not None  # noqa: S101 - the caller chose by it
    with bench.interruption.at_once():
        function = load(spec.entrypoint)
        context = TrainingContext(bench)
    context.output.mkdir(parents=True, exist_ok=True)
    bench.progress.update(state="training")
    trained = function(context)
    if trained is None:
        bench.interruption.check()
        raise EntrypointError(f"{spec.entrypoint} returned None without having been told to stop")
    if not isinstance(trained, Trained):
        raise EntrypointError(
            f"{spec.entrypoint} returned {type(trained).__name__}, not gpu_offload.remote_job.entrypoint.Trained"
        )
    if not trained.model.is_file():
        raise EntrypointError(f"{spec.entrypoint}: there is no model at {trained.model}")
    bench.progress.update(state="finishing")
    files = {f"model{trained.model.suffix}": trained.model, **{path.name: path for path in trained.extras}}
    model, *extras = result_files.stage(files, bench.output / "result")
    return TrainingResult(
        run=spec.run,
        attempt=spec.attempt,
        training_key=spec.training_key,
        fingerprint=spec.dataset.fingerprint,
        task=spec.task,
        epochs=spec.epochs,
        epochs_completed=context.epochs_completed,
        stopped_early=trained.stopped_early,
        model=model,
        extras=tuple(extras),
        metrics=finite(dict(trained.metrics)),
        curves=context.curves(),
        timings=context.timings(begun),
        environment=machine.interpreter(),
    )
