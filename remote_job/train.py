"""One training, from its spec to its result, however often it was interrupted before."""

import contextlib
import fcntl
import os
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from gpu_offload.errors import OffloadError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.remote_job import (
    data,
    entrypoint,
    hyperparameters,
    log,
    own_training,
    requirements,
    weights,
)
from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.files import result_files
from gpu_offload.remote_job.files.checkpoint import Checkpoints
from gpu_offload.remote_job.interruption import InterruptedTrainingError, Interruption
from gpu_offload.remote_job.mirror.inputs import InputFolder
from gpu_offload.remote_job.mirror.session import Mirror
from gpu_offload.remote_job.mirror.target import SupersededError
from gpu_offload.remote_job.mirror.trouble import RefusedByStoreError
from gpu_offload.remote_job.progress import Progress
from gpu_offload.remote_job.result import TrainingResult
from gpu_offload.remote_job.spec import SpecError, TrainingSpec
from gpu_offload.remote_job.speed import plan


def train(
    spec: TrainingSpec,
    *,
    store: ObjectStore | None = None,
    inputs: InputFolder | None = None,
    emit: Callable[[str], None] | None = None,
    interruption: Interruption | None = None,
    waited: float = 0.0,
) -> TrainingResult:
    """Train what the spec says, and return what came out; the same as `python -m gpu_offload.remote_job SPEC.json`.

    An earlier result or checkpoint of the same training, in the output folder or in the store, is used: a result is returned, a
    checkpoint is resumed. Files are written below `spec.output` as `remote_job.result` documents.

    Args:
        spec: The training.
        store: Where the run's traces are mirrored; `spec.store`, opened by the caller.
        inputs: Where the inputs of a training without a store were fetched to; a file there stops it.
        emit: Gets each progress event as a line of JSON.
        interruption: Through which others ask the training to stop; SIGINT and SIGTERM do in any case.
        waited: Seconds for which this process waited for the spec.

    Raises:
        SpecError: The spec is faulty; nothing was trained.
        InterruptedTrainingError: It was stopped and can be resumed.
        SupersededError: A later attempt of the run is under way.
        CheckpointMismatchError: The output folder or the run in the store belongs to another training.
        MirrorError: The result is complete here, but the store did not take it.
        OffloadError: Another process trains into the same folder.
    """
    if faults := spec_faults(spec, has_store=store is not None):
        raise SpecError(faults)
    interruption = interruption or Interruption()
    output = Path(spec.output)
    with locked(output), log.to(output / "log.txt"), interruption.signals():
        continued = inputs is not None and inputs.continue_traces(output)
        progress = Progress(spec, emit)
        mirror = Mirror(store, spec, warn=print, stop=interruption.request) if store is not None else None
        end_watch = inputs.watch(interruption.request) if inputs is not None else lambda: None
        with outcome_reported(progress, mirror), contextlib.ExitStack() as stack:
            stack.callback(end_watch)
            if not continued:  # else `fetch` has reported the start of this attempt
                progress.event("start", epochs=spec.epochs, message=f"attempt {spec.attempt}")
            with interruption.unwrapped():
                result = _train(spec, store, mirror, inputs, progress, interruption, waited)
            progress.update(state="finished", epochs_completed=result.epochs_completed)
            progress.event("finished", metrics=result.metrics, seconds=round(result.timings.total, 3))
            return result


@contextlib.contextmanager
def outcome_reported(progress: Progress, mirror: Mirror | None) -> Iterator[None]:
    """Report in heartbeat, progress and log how the training ended, then upload everything that is left."""
    try:
        yield
    except InterruptedTrainingError as stopped:
        if mirror is not None and mirror.given_up:
            progress.update(state="failed", message=mirror.given_up)
            progress.event("failed", message=mirror.given_up)
            raise RefusedByStoreError(mirror.given_up) from None
        progress.update(state="interrupted", message=str(stopped))
        progress.event("interrupted", message=str(stopped))
        if mirror is not None and mirror.superseded:
            raise SupersededError(mirror.superseded) from None
        raise
    except BaseException as error:
        ours = isinstance(error, OffloadError)
        print(f"failed: {error}" if ours else traceback.format_exc())  # noqa: T201 - to the log
        message = str(error) if ours else f"{type(error).__name__}: {error}"
        progress.update(state="failed", message=message)
        progress.event("failed", message=message)
        raise
    finally:
        progress.close()  # first: the mirror's last act is to send the heartbeat that says how it ended
        if mirror is not None and not mirror.close():
            print("the newest checkpoint did not reach the store")  # noqa: T201 - to the log


def spec_faults(spec: TrainingSpec, *, has_store: bool) -> list[str]:
    """Return everything that is wrong with a spec, as far as that is known without importing torch."""
    faults = []
    if spec.entrypoint is None:
        faults += hyperparameters.faults(spec.hyperparameters)
        faults += plan.faults(spec.speed)
        if spec.weights is None and not spec.model.endswith((".yaml", ".yml")):
            faults.append(f"model: {spec.model} names weights, and the spec brings none (weights)")
        faults += _team_faults(spec)
        if spec.image_size % 32:
            faults.append(
                f"image_size: {spec.image_size} is not a multiple of 32, which the models' strides ask for"
            )
    elif (fault := entrypoint.fault(spec.entrypoint)) is not None:
        faults.append(fault)
    if (spec.dataset.tree is None) == (spec.dataset.archive is None):
        faults.append("dataset: give exactly one of tree and archive")
    elif spec.dataset.tree is not None and not Path(spec.dataset.tree).is_dir():
        faults.append(f"dataset.tree: {spec.dataset.tree} is not a folder")
    elif spec.dataset.archive is not None and not has_store:
        faults.append("dataset.archive: needs a store")
    if spec.weights is not None:
        faults += weights.faults(spec.weights, has_store=has_store)
    return faults


def _team_faults(spec: TrainingSpec) -> list[str]:
    faults = []
    if spec.batch % spec.gpus:
        faults.append(f"batch: {spec.batch} cannot be divided among {spec.gpus} GPUs")
    if spec.gpus > 1 and spec.device not in {"auto", "cpu", "cuda"}:
        faults.append(f"device: {spec.device} is one device, and gpus asks for {spec.gpus}")
    return faults


@contextlib.contextmanager
def locked(output: Path, *, patience: float = 20.0) -> Iterator[None]:
    """Keep other trainings out of the output folder; the kernel releases the lock when this process dies."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / "lock").open("w") as file:
        _LOCKS.add(file)
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise OffloadError(
                        f"{output}: another training writes to this folder; wait for it or stop it"
                    ) from None
                time.sleep(0.1)
        yield


_LOCKS: "weakref.WeakSet[IO[str]]" = weakref.WeakSet()


def _leave_locks() -> None:
    """In a child that was forked: a loader's worker that outlives a killed training must not hold its lock."""
    for file in _LOCKS:
        file.close()


os.register_at_fork(after_in_child=_leave_locks)


def _train(
    spec: TrainingSpec,
    store: ObjectStore | None,
    mirror: Mirror | None,
    inputs: InputFolder | None,
    progress: Progress,
    interruption: Interruption,
    waited: float,
) -> TrainingResult:
    output = Path(spec.output)
    folder = output / "result"
    done = result_files.read(folder, training_key=spec.training_key)
    if done is None and mirror is not None and mirror.fetch_result():
        return result_files.checked(folder, training_key=spec.training_key)
    if mirror is not None:
        mirror.start()
    if done is None:
        checkpoints = Checkpoints.of(spec, output, print)
        with interruption.at_once():
            if mirror is not None:
                mirror.fetch_checkpoint(checkpoints)
            if inputs is not None:
                checkpoints.take(Checkpoints.of(spec, inputs.folder, print))
            tree = data.tree(spec.dataset, store=store, output=output)
            prepared = data.prepare(tree, task=spec.task, fingerprint=spec.dataset.fingerprint, output=output)
            start = weights.local(spec.weights, store=store, folder=output / "work") if spec.weights else None
            if spec.project is not None and inputs is None:
                root = Path(spec.packages) if spec.packages else output / "packages"
                spec = requirements.with_packages(spec, root)
        bench = Bench(
            spec=spec,
            progress=progress,
            interruption=interruption,
            checkpoints=checkpoints,
            data=prepared,
            weights=start,
            saved=mirror.checkpoint_saved if mirror is not None else lambda: None,
            waited=waited,
        )
        done = _run(bench)
        result_files.write(done, folder)
    if mirror is not None:
        mirror.send_result()
    return done


def _run(bench: Bench) -> TrainingResult:
    if bench.spec.entrypoint is not None:
        return own_training.run(bench)
    from gpu_offload.remote_job.yolo import run

    return run.run(bench)
