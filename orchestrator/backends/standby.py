"""A process that imports PyTorch for a training on this machine while the command still reads the dataset and plans."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpu_offload.orchestrator.backends.training_process import TrainingProcess
from gpu_offload.orchestrator.estimate.processor import is_known
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.state import on_runner
from gpu_offload.orchestrator.training_environment import local_environment
from gpu_offload.remote_job import standby


@dataclass
class Standby:
    """At most one process that waits for what to train. It knows nothing and holds nothing, so it is killed where it is not needed."""

    environment: Mapping[str, str] = field(default_factory=dict)
    process: TrainingProcess | None = None

    @property
    def pids(self) -> tuple[int, ...]:
        """The process, which is no neighbour that slows this machine down."""
        return (self.process.pid,) if self.process is not None else ()

    def take(self, spec: Path, environment: Mapping[str, str]) -> TrainingProcess | None:
        """Let the process train; None where there is none, or it was started for another environment."""
        process = self.process
        if process is None or process.stdin is None or environment != self.environment:
            self.drop()
            return None
        try:
            os.write(process.stdin.fileno(), f"{json.dumps(str(spec))}\n".encode())
        except BrokenPipeError:  # it failed: a process of the training's own will say why
            self.drop()
            return None
        self.process = None
        return process

    def drop(self) -> None:
        """End the process unless it trains."""
        process, self.process = self.process, None
        if process is not None:
            with process:
                process.kill()


@contextlib.contextmanager
def standing_by(settings: Settings, *, on: str, calibrate: bool | None) -> Iterator[Standby]:
    """Start a process where the training is as good as sure to run here, and to be Ultralytics' own.

    On a runner it may have to be isolated, and beside a measurement of this machine nothing else may run.
    """
    wanted = on == "cpu" and settings.training.entrypoint is None and not on_runner(os.environ)
    started = _started(settings) if wanted and not calibrate and is_known() else Standby()
    try:
        yield started
    finally:
        started.drop()


def _started(settings: Settings) -> Standby:
    environment = local_environment(
        os.environ,
        project=settings.root,
        store_url=settings.store_url,
        own_code=False,
        speed=settings.training.speed,
    )
    command = [sys.executable, "-P", "-m", "gpu_offload.remote_job", str(standby.SPEC), "--parent-stdin"]
    with contextlib.suppress(OSError):  # the training will say what is wrong
        return Standby(environment, TrainingProcess(command, env=environment))
    return Standby()
