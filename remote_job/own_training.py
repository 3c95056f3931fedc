"""Runs the user's own training function and checks what it returns."""

import contextlib
import errno
import importlib
import os
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from gpu_offload.errors import OffloadError
from gpu_offload.remote_job import machine
from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.entrypoint import EntrypointError, Trained, TrainingContext
from gpu_offload.remote_job.files import result_files
from gpu_offload.remote_job.progress import finite
from gpu_offload.remote_job.result import TrainingResult, metrics_fault
from gpu_offload.remote_job.spec import TrainingSpec

UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}


def load(reference: str) -> Callable[[TrainingContext], Trained | None]:
    """Import the user's function. Raises EntrypointError: there is no such module or function."""
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
    """Put the project's modules, then its requirements, before all others, until the function has returned.

    A shipped project is copied to `work`, so that it may be written to, and becomes the working directory: relative paths
    mean the same on the runner and on an instance. Else its modules are those in the working directory.
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
        InterruptedTrainingError: It returned None because it was asked to stop.
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
        metrics=dict(trained.metrics),
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
    except SystemExit as error:  # it would end this process, with 0 as if there were a result
        bench.interruption.check()
        raise EntrypointError(
            f"{_place(function)} left by sys.exit({error.code!r}); return Trained(model=..., metrics=...) instead"
        ) from error
    except OffloadError:
        raise
    except Exception as error:
        bench.interruption.check()  # code that was asked to stop may fail on its way out
        print(traceback.format_exc())  # noqa: T201 - to the log
        message = f"{_line_of(error, Path.cwd()) or _place(function)}: {type(error).__name__}: {error}"
        is_ours = isinstance(error, FileNotFoundError) and not Path(str(error.filename)).is_absolute()
        if bench.spec.store is None and _wants_network(error):
            message += (
                "; a training has no network: what it reads comes with the dataset, training.include, training.requirements or "
                'training.init-from. On a runner training.isolation = "off" gives it the network, an instance never does'
            )
        if is_ours and bench.spec.project is not None:
            message += "; files of the repository that the training reads are named in training.include"
        raise EntrypointError(message) from error
    if returned is None:
        bench.interruption.check()
    return returned


def _wants_network(error: BaseException | None) -> bool:
    """Whether an exception comes from a name that was not resolved or an address without a route."""
    while error is not None:
        if isinstance(error, socket.gaierror) or getattr(error, "errno", None) in UNREACHABLE:
            return True
        error = error.__cause__ or error.__context__
    return False


def _checked(
    returned: object, context: TrainingContext, function: Callable[[TrainingContext], Trained | None]
) -> Trained:
    """Check what the function returned against the contract. Raises EntrypointError with the line to change."""
    place, done, wanted = _place(function), context.epochs_completed, context.spec.epochs
    if returned is None:
        raise EntrypointError(
            f"{place} returned None without having been asked to stop; return Trained(model=..., metrics=...)"
        )
    if not isinstance(returned, Trained):
        raise EntrypointError(
            f"{place} returned {type(returned).__name__}, not gpu_offload.remote_job.entrypoint.Trained"
        )
    try:
        # Relative paths mean the function's working directory, which is left before the files are staged.
        model, extras = (
            Path(returned.model).absolute(),
            tuple(Path(path).absolute() for path in returned.extras),
        )
        metrics, fault = finite(dict(returned.metrics)), metrics_fault(returned.metrics)
    except (TypeError, ValueError) as error:
        raise EntrypointError(
            f"{place}: model and extras must be paths, metrics numbers by name: {error}"
        ) from error
    if not model.is_file():
        raise EntrypointError(f"{place}: there is no model at {model}")
    if missing := [str(path) for path in extras if not path.is_file()]:
        raise EntrypointError(f"{place}: extras names {', '.join(missing)}, which is no file")
    if wrong := _unfit(f"model{model.suffix}", [path.name for path in extras]):
        raise EntrypointError(
            f"{place}: extras names {', '.join(wrong)}: each needs a visible file name of its own, other than those of the "
            "model and of the result"
        )
    if fault:
        raise EntrypointError(f"{place}: {fault}")
    if done < wanted and not returned.stopped_early:
        raise EntrypointError(
            f"{place} returned after {done} of {wanted} epochs: call context.epoch(n, metrics={{...}}) after each epoch, "
            "or return Trained(..., stopped_early=True) where fewer are enough"
        )
    return replace(returned, model=model, extras=extras, metrics=metrics)


def _unfit(model: str, extras: list[str]) -> list[str]:
    """Return the names of extras under which they cannot be in one folder with the others: one would replace another."""
    taken = {model, result_files.RESULT}
    return sorted(
        {name for name in extras if name in taken or name.startswith(".") or extras.count(name) > 1}
    )


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
