"""One training, from its spec to its result, however often it was interrupted before."""

import contextlib
import fcntl
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from remote_job import durable, hyperparameters, isolation, log, training_data
from remote_job.checkpoint import Checkpoints
from remote_job.interruption import InterruptedTrainingError, Interruption
from remote_job.progress import Progress
from remote_job.result import Artifact, TrainingResult
from remote_job.spec import TrainingSpec


class SpecError(Exception):
    """The spec cannot be trained; `faults` says everything that is wrong with it."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class BusyError(Exception):
    """Another training writes to the same output folder."""


def train(
    spec: TrainingSpec,
    *,
    emit: Callable[[str], None] | None = None,
    interruption: Interruption | None = None,
) -> TrainingResult:
    """Train what the spec says, and return what came out; the same as `python -m remote_job SPEC.json`.

    Whatever is in the output folder of the same training is used: a result is returned, a checkpoint is
    resumed. Files are written below `spec.output` as `remote_job.result` documents.

    Args:
        spec: The training.
        emit: Gets each progress event as a line of JSON.
        interruption: Through which others ask the training to stop; SIGINT and SIGTERM do in any case.

    Raises:
        SpecError: The spec is faulty; nothing was trained.
        InterruptedTrainingError: It was stopped and can be resumed.
        CheckpointMismatchError: The output folder belongs to another training.
        BusyError: Another process trains into the same folder.
    """
    if faults := spec_faults(spec):
        raise SpecError(faults)
    interruption = interruption or Interruption()
    output = Path(spec.output)
    with locked(output), log.to(output / "log.txt"), interruption.signals():
        progress = Progress(spec, emit)
        try:
            progress.event("start", epochs=spec.epochs, message=f"attempt {spec.attempt}")
            result = finished(spec) or _train(spec, progress, interruption)
        except InterruptedTrainingError as stopped:
            progress.update(state="interrupted", message=str(stopped))
            progress.event("interrupted", message=str(stopped))
            raise
        except BaseException as error:
            print(traceback.format_exc())  # noqa: T201 - to the log
            progress.update(state="failed", message=f"{type(error).__name__}: {error}")
            progress.event("failed", message=f"{type(error).__name__}: {error}")
            raise
        else:
            progress.update(state="finished", epochs_completed=result.epochs_completed)
            progress.event("finished", metrics=result.metrics, seconds=result.timings.total)
            return result
        finally:
            progress.close()


def spec_faults(spec: TrainingSpec) -> list[str]:
    """Return everything that is wrong with a spec and can be told without importing torch."""
    faults = hyperparameters.faults(spec.hyperparameters)
    if (spec.dataset.tree is None) == (spec.dataset.archive is None):
        faults.append("dataset: give exactly one of tree and archive")
    elif spec.dataset.tree is not None and not Path(spec.dataset.tree).is_dir():
        faults.append(f"dataset.tree: {spec.dataset.tree} is not a folder")
    elif spec.dataset.archive is not None and spec.store is None:
        faults.append("dataset.archive: needs a store")
    if spec.weights is not None and (spec.weights.path is None) == (spec.weights.key is None):
        faults.append("weights: give exactly one of path and key")
    if spec.weights is None and spec.entrypoint is None and not spec.model.endswith((".yaml", ".yml")):
        faults.append(f"model: {spec.model} names weights, and the spec brings none (weights)")
    if spec.image_size % 32:
        faults.append(
            f"image_size: {spec.image_size} is not a multiple of 32, which the models' strides ask for"
        )
    return faults


@contextlib.contextmanager
def locked(output: Path, *, patience: float = 20.0) -> Iterator[None]:
    """Keep other trainings out of the output folder; the kernel lets go when this process dies.

    Args:
        output: The folder.
        patience: Seconds to wait for a training whose parent just died.
    """
    output.mkdir(parents=True, exist_ok=True)
    with (output / "lock").open("w") as file:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise BusyError(
                        f"{output}: another training writes to this folder; wait for it or stop it"
                    ) from None
                time.sleep(0.1)
        yield


def finished(spec: TrainingSpec) -> TrainingResult | None:
    """Return the result that is in the output folder already, if it is this training's and complete."""
    folder = Path(spec.output) / "result"
    try:
        result = TrainingResult.model_validate_json((folder / "result.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    if result.training_key != spec.training_key:
        return None
    whole = all(_is(folder, artifact) for artifact in (result.model, *result.extras))
    return result if whole else None


def _is(folder: Path, artifact: Artifact) -> bool:
    path = folder / artifact.name
    return (
        path.is_file() and path.stat().st_size == artifact.size and durable.sha256_of(path) == artifact.sha256
    )


def _train(spec: TrainingSpec, progress: Progress, interruption: Interruption) -> TrainingResult:
    begun = time.perf_counter()
    output = Path(spec.output)
    checkpoints = Checkpoints(
        output / "checkpoint",
        run=spec.run,
        attempt=spec.attempt,
        training_key=spec.training_key,
        epochs=spec.epochs,
        warn=print,
    )
    with interruption.at_once():
        assert spec.dataset.tree is not None  # noqa: S101 - checked in spec_faults
        data = training_data.prepare(
            Path(spec.dataset.tree), task=spec.task, fingerprint=spec.dataset.fingerprint, output=output
        )
        isolation.isolate(output / "work" / "config")
        importing = time.perf_counter()
        from remote_job import outcome, snapshot, trainer
        from remote_job import state as states

        imported = time.perf_counter() - importing
        progress.stage("import", imported)
        if faults := hyperparameters.value_faults(spec.hyperparameters):
            raise SpecError(faults)
        session = trainer.Session(
            spec=spec,
            progress=progress,
            interruption=interruption,
            checkpoints=checkpoints,
            threads=isolation.cores(),
        )
        if (checkpoint := checkpoints.load()) is not None:
            session.restored = states.load(checkpoint.last)
            session.restored_best = states.load(checkpoint.best) if checkpoint.best else None
            session.seconds_before = checkpoint.manifest.seconds
            snapshot.check_position(session.restored, checkpoint.position)
            progress.update(epochs_completed=checkpoint.manifest.epochs_completed)
    with isolation.offline():
        with interruption.at_once():
            work = trainer.trainer_class(spec.task)(
                session,
                trainer.overrides(
                    spec,
                    data=data.argument,
                    model=spec.model if spec.weights is None else str(spec.weights.path),
                    folder=output / "work" / "train",
                    batch=session.restored["batch_size"] if session.restored else None,
                ),
            )
        work.train()
        progress.stage("final", work.clock.final_validation)
        return _conclude(spec, work, outcome, imported=imported, total=time.perf_counter() - begun)


def _conclude(
    spec: TrainingSpec, work: Any, outcome: Any, *, imported: float, total: float
) -> TrainingResult:
    """Stage the result: artifacts first, result.json last."""
    from remote_job import machine

    folder = Path(spec.output) / "result"
    (folder / "result.json").unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    artifacts = []
    for source in (work.best, *outcome.extras(work.save_dir)):
        target = folder / ("model.pt" if source == work.best else source.name)
        shutil.copyfile(source, target)
        artifacts.append(outcome.describe(target))
    completed = len(work.history)
    result = TrainingResult(
        run=spec.run,
        attempt=spec.attempt,
        training_key=spec.training_key,
        fingerprint=spec.dataset.fingerprint,
        task=spec.task,
        epochs=spec.epochs,
        epochs_completed=completed,
        stopped_early=completed < spec.epochs,
        model=artifacts[0],
        extras=tuple(artifacts[1:]),
        metrics=outcome.metrics(work),
        per_class=outcome.per_class(work),
        curves=outcome.curves(work.history),
        timings=outcome.timings(work, imported=imported, total=total),
        environment=machine.facts(),
    )
    durable.write(folder / "result.json", result.model_dump_json(indent=1, by_alias=True).encode())
    return result
