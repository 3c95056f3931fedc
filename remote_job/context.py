"""What the code of one training works with, Ultralytics' or a user's own."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gpu_offload.remote_job.data import TrainingData
from gpu_offload.remote_job.files.checkpoint import Checkpoints
from gpu_offload.remote_job.interruption import Interruption
from gpu_offload.remote_job.progress import Progress
from gpu_offload.remote_job.spec import TrainingSpec


@dataclass(slots=True)
class Bench:
    """A training's data, and where it reports, saves and learns that it should stop.

    Attributes:
        weights: The verified local file of the starting weights.
        saved: Called after each checkpoint.
        seconds_before: Wall seconds that earlier attempts took to reach the checkpoint that is resumed.
        waited: Seconds for which this process waited for the spec, before anything else.
    """

    spec: TrainingSpec
    progress: Progress
    interruption: Interruption
    checkpoints: Checkpoints
    data: TrainingData
    weights: Path | None = None
    saved: Callable[[], None] = lambda: None
    seconds_before: float = 0.0
    waited: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def output(self) -> Path:
        """The spec's output folder."""
        return Path(self.spec.output)

    @property
    def work(self) -> Path:
        """A folder for temporary files."""
        return self.output / "work"

    @property
    def seconds(self) -> float:
        """Wall seconds of training so far, over all attempts."""
        return self.seconds_before + time.perf_counter() - self.started
