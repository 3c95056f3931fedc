"""Bring your own training: a function of the user's in Ultralytics' place; see docs/bring-your-own.md."""

import contextlib
import importlib
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.errors import OffloadError
from gpu_offload.remote_job import machine
from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.files import result_files
from gpu_offload.remote_job.progress import finite
from gpu_offload.remote_job.result import Timings, TrainingResult
from gpu_offload.remote_job.spec import TrainingSpec

PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


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
        self._curves: dict[str, list[float]] = {}
        self._epoch_seconds: list[float] = []
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
        """Report a finished epoch, counted from 1 up to `spec.epochs`. Raises EntrypointError for any other number."""
        if not 1 <= epoch <= self.spec.epochs:
            raise EntrypointError(
                f"{_caller()}: context.epoch({epoch}) of {self.spec.epochs}: epochs are counted from 1 to training.epochs"
            )
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
            path: The file that `resume` returns a copy of.
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
    """Import the user's function.

    Raises:
        EntrypointError: There is no such module or function.
    """
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise EntrypointError(
            f"training.entrypoint {reference}: {error}; modules are looked for in the project and among the installed "
            "packages. Imports that are computed need their files named in training.include"
        ) from error
    function: Callable[[TrainingContext], Trained | None] | None = getattr(module, name, None)
    if not callable(function):
        raise EntrypointError(f"training.entrypoint {reference}: {module.__file__} has no function {name}")
    return function


@contextlib.contextmanager
def importable(spec: TrainingSpec, work: Path) -> Iterator[None]:
    """Let the project's modules, then its requirements, come first among imports; also those at the very end.

    A shipped project is copied, so that it may be written to, and becomes the working directory: relative paths
    mean the same on the runner and on an instance.

    Args:
        spec: The training; without a `project` its modules are those in the working directory.
        work: Where to copy to.
    """
    before = Path.cwd()
    project = before
    if spec.project is not None:
        project = work / "project"
        shutil.rmtree(project, ignore_errors=True)
        shutil.copytree(spec.project, project)
        os.chdir(project)
    paths = [str(project), *([spec.packages] if spec.packages else [])]
    sys.path[:0] = paths
    try:
        yield
    finally:
        for path in paths:
            with contextlib.suppress(ValueError):
                sys.path.remove(path)
        os.chdir(before)


def run(bench: Bench) -> TrainingResult:
    """Run the user's function, and stage what it returns.

    Raises:
        EntrypointError: It cannot be found, or broke the contract. The same code would do so again.
        InterruptedTrainingError: It returned None because it was told to stop.
    """
    begun = time.perf_counter()
    spec = bench.spec
    assert spec.entrypoint is not None  # noqa: S101 - the caller chose by it
    with importable(spec, bench.work):
        with bench.interruption.at_once():
            function = load(spec.entrypoint)
            context = TrainingContext(bench)
        context.output.mkdir(parents=True, exist_ok=True)
        bench.progress.update(state="training")
        trained = _checked(_called(function, context, bench), context, function)
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


def _called(
    function: Callable[[TrainingContext], Trained | None], context: TrainingContext, bench: Bench
) -> object:
    """Call the user's function; report where it failed, with the traceback in the log."""
    try:
        returned: object = function(context)
    except SystemExit as error:
        bench.interruption.check()
        raise EntrypointError(
            f"{_place(function)} left by sys.exit({error.code!r}); return Trained(model=..., metrics=...) instead"
        ) from error
    except OffloadError:
        raise
    except Exception as error:
        bench.interruption.check()
        print(traceback.format_exc())  # noqa: T201 - to the log
        message = f"{_line_of(error, Path.cwd()) or _place(function)}: {type(error).__name__}: {error}"
        is_ours = isinstance(error, FileNotFoundError) and not Path(str(error.filename)).is_absolute()
        if is_ours and bench.spec.project is not None:
            message += "; files of the repository that the training reads are named in training.include"
        raise EntrypointError(message) from error
    if returned is None:
        bench.interruption.check()
    return returned


def _checked(
    returned: object, context: TrainingContext, function: Callable[[TrainingContext], Trained | None]
) -> Trained:
    """Check what the function returned against the contract. Raises EntrypointError with the line to change."""
    place, done, wanted = _place(function), context.epochs_completed, context.spec.epochs
    if returned is None:
        raise EntrypointError(
            f"{place} returned None without having been told to stop; return Trained(model=..., metrics=...)"
        )
    if not isinstance(returned, Trained):
        raise EntrypointError(
            f"{place} returned {type(returned).__name__}, not gpu_offload.remote_job.entrypoint.Trained"
        )
    if not returned.model.is_file():
        raise EntrypointError(f"{place}: there is no model at {returned.model}")
    if missing := [str(path) for path in returned.extras if not path.is_file()]:
        raise EntrypointError(f"{place}: extras names {', '.join(missing)}, which is no file")
    if done < wanted and not returned.stopped_early:
        raise EntrypointError(
            f"{place} returned after {done} of {wanted} epochs: call context.epoch(n, metrics={{...}}) after each epoch, "
            "or return Trained(..., stopped_early=True) where fewer are enough"
        )
    return returned


def _line_of(error: BaseException, project: Path) -> str | None:
    """Return `file:line` of the innermost frame in the project, None where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(project)]
    return f"{Path(own[-1].filename).relative_to(project)}:{own[-1].lineno}" if own else None


def _place(function: Callable[..., object]) -> str:
    """Return `file:line (name)` of a function, as far as Python knows it."""
    code = getattr(function, "__code__", None)
    name = getattr(function, "__name__", repr(function))
    return f"{Path(code.co_filename).name}:{code.co_firstlineno} ({name})" if code else name


def _caller() -> str:
    """Return `file:line` from where the user's code called the context."""
    frame = sys._getframe(2)  # noqa: SLF001 - cheaper than inspect.stack(), which reads source files
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
