"""A calibration of this machine: a few real optimiser steps, kept for the next time."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gpu_offload.errors import EXIT_USAGE, OffloadError
from gpu_offload.orchestrator.estimate.workload import Workload
from gpu_offload.orchestrator.output.console import Console, plain
from gpu_offload.orchestrator.workspace import CALIBRATION, Workspace
from gpu_offload.remote_job.files import durable
from gpu_offload.remote_job.machine import cores, processor
from gpu_offload.remote_job.result import Calibration
from gpu_offload.remote_job.spec import TrainingSpec

TIME_LIMIT_S = 600


class UntrainableError(OffloadError):
    """The measurement found that no machine can train this; the text has every fault."""

    exit_code = EXIT_USAGE


UNTIMED = frozenset(
    [
        "lr0",
        "lrf",
        "cos_lr",
        "momentum",
        "weight_decay",
        "warmup_epochs",
        "warmup_momentum",
        "warmup_bias_lr",
        "patience",
        "box",
        "cls",
        "dfl",
        "pose",
        "kobj",
    ]
)
"""Hyperparameters of the schedule and the loss, which leave the time of a step as it is."""


def calibration_key(spec: TrainingSpec, work: Workload, definition: str | None = None) -> str:
    """Return a calibration's cache key: the machine, and every setting that changes the time of a step.

    `definition` is the sha256 of a model definition of the user's.
    """
    parts: dict[str, Any] = {
        "machine": [processor(), cores()],
        "model": spec.model,
        "task": spec.task,
        "image_size": spec.image_size,
        "batch": [spec.batch, work.batch_images],
        "heavy_optimizer": work.heavy_optimizer,
        # A handful of images more or less does not matter.
        "images": (work.train_images + work.val_images) // 50,
        "hyperparameters": {n: v for n, v in spec.hyperparameters.items() if n not in UNTIMED},
        "speed": spec.speed,
    }
    if definition is not None:
        parts["definition"] = definition
    if spec.device != "auto":
        parts["device"] = spec.device
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def calibration(
    spec: TrainingSpec,
    work: Workload,
    workspace: Workspace,
    console: Console,
    local: Callable[[], TrainingSpec] | None,
    definition: str | None = None,
) -> Calibration | None:
    """Return an earlier measurement of such a training, or measure `local` where Ultralytics is installed; else None.

    Raises UntrainableError: no machine can train it.
    """
    path = workspace.calibrations / f"{calibration_key(spec, work, definition)}.json"
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        if local is None or importlib.util.find_spec("ultralytics") is None:
            return None
    measured = _measure(local(), workspace.work / f"{CALIBRATION}{path.stem}", console)
    if measured is not None:
        # It names the file that was measured, and the settings may name it otherwise.
        measured = measured.model_copy(update={"model": spec.model})
        durable.write(path, measured.model_dump_json(indent=1, by_alias=True).encode(), durable=False)
    return measured


def _measure(spec: TrainingSpec, folder: Path, console: Console) -> Calibration | None:
    """Measure; None, with a warning, if that fails: the prior is used then. Raises UntrainableError."""
    console.stage(
        "measuring a few training steps on this machine (about 15 s, longer beside other programs; kept for the next time)"
    )
    folder.mkdir(exist_ok=True)
    path = folder / "spec.json"
    path.write_text(spec.model_copy(update={"output": str(folder)}).model_dump_json())
    command = [sys.executable, "-P", "-m", "gpu_offload.remote_job", "--calibrate", str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIME_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        console.warning(f"the calibration took longer than {TIME_LIMIT_S} s and was ended")
        return None
    if done.returncode == EXIT_USAGE:
        # Neither can an instance train it, and it would be paid for.
        _, said, why = done.stderr.rpartition("this cannot be trained:")
        raise UntrainableError(plain(f"{said}{why}".strip()))
    try:
        return Calibration.model_validate_json(done.stdout)
    except ValidationError:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no output")
        console.warning(f"the calibration failed (exit code {done.returncode}): {plain(last)}")
        return None
