"""A process that imports PyTorch for a training on this machine while the command still reads the dataset and plans."""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpu_offload.orchestrator.backends.training_process import TrainingProcess
from gpu_offload.orchestrator.estimate.processor import is_known
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.state import on_runner
from gpu_offload.orchestrator.training_environment import local_environment
from gpu_offload.remote_job.spec import LATER

PATIENCE_S = 60.0
"""After so long without a training the process is not worth its memory: another driver trains, or the dataset is large."""


@dataclass
class Standby:
    """At most one process that waits for what to train; it knows and holds nothing, so it is killed where it is not needed."""

    environment: Mapping[str, str] = field(default_factory=dict)
    process: TrainingProcess | None = None
    _taking: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._over = threading.Timer(PATIENCE_S, self.drop)
        self._over.daemon = True
        if self.process is not None:
            self._over.start()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process, which is no neighbour that slows this machine down."""
        return (self.process.pid,) if self.process is not None else ()

    def take(self, spec: Path, environment: Mapping[str, str]) -> TrainingProcess | None:
        """Let the process train; None where there is none, or it was started for another environment."""
        with self._taking:
            process = self.process
            if process is not None and process.stdin is not None and environment == self.environment:
                with contextlib.suppress(
                    BrokenPipeError
                ):  # it failed: the training's own process will say why
                    os.write(process.stdin.fileno(), f"{json.dumps(str(spec))}\n".encode())
                    self.process = None
                    self._over.cancel()
                    return process
        self.drop()
        return None

    def drop(self) -> None:
        """End the process unless it trains."""
        self._over.cancel()
        with self._taking:
            process, self.process = self.process, None
        if process is not None:
            with process:
                process.kill()


@contextlib.contextmanager
def standing_by(settings: Settings, *, on: str, calibrate: bool | None) -> Iterator[Standby]:
    """Start a process where the training is as good as sure to run here, and to be Ultralytics' own.

    On a runner it may have to be isolated, and beside a measurement of this machine nothing else may run.
    """
    wanted = settings.training.entrypoint is None and not on_runner(os.environ) and not calibrate
    started = _started(settings) if wanted and _runs_here(settings, on) and is_known() else Standby()
    try:
        yield started
    finally:
        started.drop()


def _runs_here(settings: Settings, on: str) -> bool:
    """Whether this CPU is asked for, or no instance could use the store."""
    from gpu_offload.orchestrator.plan.prerequisites import renting_faults

    return on == "cpu" or (on == "auto" and bool(renting_faults(settings)))


def _started(settings: Settings) -> Standby:
    environment = local_environment(
        os.environ,
        project=settings.root,
        store_url=settings.store_url,
        own_code=False,
        speed=settings.training.speed,
    )
    command = [sys.executable, "-P", "-m", "gpu_offload.remote_job", str(LATER), "--parent-stdin"]
    with contextlib.suppress(OSError):  # the training will say what is wrong
        return Standby(environment, TrainingProcess(command, env=environment))
    return Standby()
