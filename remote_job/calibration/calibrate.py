"""The first steps of a training on this machine, for the estimate of the whole of it.

It is the training itself, with its dataset and batch, which decide the accumulation; the caller chooses the epochs. It ends when its pace is known: more steps predict no better, the machine's own drift is the floor.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_offload.errors import OffloadError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.remote_job import data, hyperparameters, log, machine, weights
from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.files.checkpoint import Checkpoints
from gpu_offload.remote_job.interruption import Interruption
from gpu_offload.remote_job.progress import Progress
from gpu_offload.remote_job.result import Calibration
from gpu_offload.remote_job.spec import SpecError, TrainingSpec
from gpu_offload.remote_job.speed import compiler
from gpu_offload.remote_job.train import spec_faults
from gpu_offload.remote_job.yolo import isolation

PATIENCE_S = 10.0
"""Seconds of steps after which fewer of them must do."""


class PaceUnknownError(OffloadError):
    """The training can be run, and is too short to be measured."""


class PaceKnownError(Exception):
    """Ends a training whose pace is known."""


class Measured:
    """Mixed in right before one of Ultralytics' trainers: ends the training once its pace is known."""

    def run_callbacks(self, event: str) -> None:
        """Run the callbacks of an event, or end the training."""
        super().run_callbacks(event)  # type: ignore[misc]
        trainer: Any = self
        if event == "on_train_start":
            self._began = time.perf_counter()
        elif event.startswith("on_train_"):
            pacing = trainer.ours.pacing
            must_do = time.perf_counter() - self._began > PATIENCE_S
            # A step of minutes, as on a slow CPU: what is known by now is all that is affordable.
            if not pacing.meter.announced and must_do:
                pacing.announce(trainer)
            if pacing.meter.announced and (must_do or pacing.meter.is_enough):
                raise PaceKnownError


def calibrate(spec: TrainingSpec, *, store: ObjectStore | None = None) -> Calibration:
    """Measure on this machine what `orchestrator.estimate` needs to know; leaves nothing behind.

    Raises:
        SpecError: The spec cannot be trained, on no machine, or brings a training of its own, which cannot be measured.
        PaceUnknownError: It is too short to be measured.
    """
    faults = spec_faults(spec, has_store=store is not None)
    if spec.entrypoint is not None:
        faults.append("entrypoint: a training of one's own cannot be measured before it runs")
    if faults:
        raise SpecError(faults)
    Path(spec.output).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="calibration-", dir=spec.output) as name:
        folder = Path(name)
        spec = spec.model_copy(update={"output": name, "store": None, "gpus": 1})
        progress = Progress(spec)
        try:
            with log.to(folder / "log.txt"):
                return _calibrate(spec, progress, folder, store)
        finally:
            progress.close()


def _model_faults(spec: TrainingSpec) -> list[str]:
    """Return why Ultralytics cannot build a definition: arguments of a layer, or layers that do not fit each other."""
    if not spec.model.endswith((".yaml", ".yml")):
        return []
    from ultralytics import YOLO

    try:
        YOLO(spec.model, task=spec.task.value)
    except Exception as error:  # noqa: BLE001 - whatever a module raises for its arguments
        return [f"training.model: {Path(spec.model).name} cannot be built: {type(error).__name__}: {error}"]
    return []


def _calibrate(
    spec: TrainingSpec, progress: Progress, folder: Path, store: ObjectStore | None
) -> Calibration:
    tree = data.tree(spec.dataset, store=store, output=folder)
    prepared = data.prepare(tree, task=spec.task, fingerprint=spec.dataset.fingerprint, output=folder)
    start = weights.local(spec.weights, store=store, folder=folder / "work") if spec.weights else None
    isolation.isolate(folder / "work" / "config")
    from ultralytics.utils.torch_utils import get_flops, get_num_params, unwrap_model

    from gpu_offload.remote_job.pace.ending import TRIAL_MIN_STEPS
    from gpu_offload.remote_job.yolo import run

    if wrong := [*hyperparameters.value_faults(spec.hyperparameters), *_model_faults(spec)]:
        raise SpecError(wrong)
    bench = Bench(
        spec=spec,
        progress=progress,
        interruption=Interruption(),
        checkpoints=Checkpoints.of(spec, folder),
        data=prepared,
        weights=start,
    )
    compiles = bool(spec.hyperparameters.get("compile"))
    with isolation.offline(), compiler.left_out(compiles=compiles):
        trainer = run.build(bench, None, inner=(Measured,))
        try:
            trainer.train()
        except PaceKnownError:
            # The training was left in the middle: its workers would wait for the next batch.
            for loader in (trainer.train_loader, trainer.test_loader):
                loader.close()
    pace = trainer.ours.pacing.meter.pace()
    if pace is None:
        raise PaceUnknownError("the training has a single batch: there is nothing to measure")
    model = unwrap_model(trainer.model)
    device = str(trainer.device)
    return Calibration(
        machine=machine.name(device),
        device=device,
        model=spec.model,
        task=spec.task,
        image_size=spec.image_size,
        batch=spec.batch,
        gflops=float(get_flops(model, trainer.args.imgsz)),
        parameters=int(get_num_params(model)),
        pace=pace,
        trial=trainer.trial_seconds,
        trial_steps=TRIAL_MIN_STEPS,
        speed=trainer.speed.document(),
    )
