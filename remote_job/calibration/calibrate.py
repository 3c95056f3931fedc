"""A few real optimiser steps on this machine, for the estimate of a whole training.

Three steps in each mode, on the real dataset with the real batch, which decides the accumulation. Ten steps predict no
better: the machine's own drift is the floor.
"""

import math
import os
import tempfile
import time
from pathlib import Path

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.remote_job import data, log, machine, weights
from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.files.checkpoint import Checkpoints
from gpu_offload.remote_job.interruption import Interruption
from gpu_offload.remote_job.progress import Progress
from gpu_offload.remote_job.result import Calibration
from gpu_offload.remote_job.spec import SpecError, TrainingSpec
from gpu_offload.remote_job.train import spec_faults
from gpu_offload.remote_job.yolo import hyperparameters, isolation

BOOKKEEPING = 0.1
"""Seconds an epoch between its parts: tables, progress, garbage."""
ENDING = 1.5
"""Seconds of the end beside the final validation: reading the model back, fusing it, staging the result."""
PLOTS = 2.6
"""Seconds for Ultralytics' plots."""
YOUNG = 10.0
"""Seconds up to which a process's age counts as its start."""


def calibrate(spec: TrainingSpec, *, store: ObjectStore | None = None) -> Calibration:
    """Measure on this machine what `orchestrator.estimate` needs to know; leaves nothing behind.

    Args:
        spec: The training that is to be estimated.
        store: Where the spec's archive or weights are, if it names a key.

    Raises:
        SpecError: The spec cannot be trained, or brings a training of its own, which cannot be measured.
    """
    faults = spec_faults(spec, has_store=store is not None)
    if spec.entrypoint is not None:
        faults.append("entrypoint: a training of one's own cannot be measured before it runs")
    if faults:
        raise SpecError(faults)
    Path(spec.output).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="calibration-", dir=spec.output) as name:
        folder = Path(name)
        spec = spec.model_copy(update={"output": name, "store": None})
        progress = Progress(spec)
        try:
            with log.to(folder / "log.txt"):
                return _calibrate(spec, progress, folder, store)
        finally:
            progress.close()


def _calibrate(
    spec: TrainingSpec, progress: Progress, folder: Path, store: ObjectStore | None
) -> Calibration:
    begun = time.perf_counter()
    # The interpreter's start belongs to a training; what a long-lived caller did before does not.
    before = age if (age := process_age()) < YOUNG else 0.0
    tree = data.tree(spec.dataset, store=store, output=folder)
    prepared = data.prepare(tree, task=spec.task, fingerprint=spec.dataset.fingerprint, output=folder)
    start = weights.local(spec.weights, store=store, folder=folder / "work") if spec.weights else None
    isolation.isolate(folder / "work" / "config")
    from gpu_offload.remote_job.calibration.measurement import Measured
    from gpu_offload.remote_job.speed.plan import TRIAL_MIN_STEPS
    from gpu_offload.remote_job.yolo import run

    if wrong := hyperparameters.value_faults(spec.hyperparameters):
        raise SpecError(wrong)
    bench = Bench(
        spec=spec,
        progress=progress,
        interruption=Interruption(),
        checkpoints=Checkpoints(
            folder / "checkpoint",
            run=spec.run,
            attempt=spec.attempt,
            training_key=spec.training_key,
            epochs=spec.epochs,
        ),
        data=prepared,
        weights=start,
    )
    with isolation.offline():
        trainer = run.build(bench, None, inner=(Measured,))
        trainer.train()
    found = trainer.measurement
    device = str(trainer.device)
    return Calibration(
        machine=machine.name(device),
        device=device,
        model=spec.model,
        task=spec.task,
        image_size=spec.image_size,
        batch=spec.batch,
        gflops=found.gflops,
        parameters=found.parameters,
        start=before + found.ready - begun,
        first_step_extra=found.first_step_extra,
        decoding=found.decoding,
        trial=trainer.trial_seconds,
        trial_steps=TRIAL_MIN_STEPS,
        step_mosaic=found.step_mosaic,
        step_plain=found.step_plain,
        optimizer_step=found.optimizer_step,
        validation_per_image=found.validation_per_image,
        save=found.save + BOOKKEEPING,
        final=ENDING + (PLOTS if trainer.args.plots else 0.0),
        contention=found.contention,
        speed=trainer.speed.document(),
    )


def process_age() -> float:
    """Return the seconds since this process was started; infinite where the system does not say."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    except (OSError, IndexError, ValueError):
        return math.inf
    # Field 22 by proc(5), which counts from 1; the first two were split off.
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
