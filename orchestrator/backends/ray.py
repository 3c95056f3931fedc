"""Trains on a Ray cluster: as on this machine, but the process here only hands the training to the cluster."""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from gpu_offload.errors import EXIT_FAILED, EXIT_RESUMABLE
from gpu_offload.orchestrator.backends.cpu import LocalTraining
from gpu_offload.orchestrator.backends.remote_spec import remote_spec
from gpu_offload.orchestrator.backends.staging import Staging, staged_dataset
from gpu_offload.orchestrator.backends.training_process import TrainingProcess
from gpu_offload.orchestrator.offers.ray import CLIENT, EXIT_NODE_LOST, EXIT_UNREACHABLE, RayTask
from gpu_offload.orchestrator.run.backend import Ending, InterruptedRunError
from gpu_offload.orchestrator.run.record import AttemptRecord, RunRecord
from gpu_offload.orchestrator.settings.machines import RaySettings
from gpu_offload.orchestrator.training_environment import training_environment
from gpu_offload.remote_job.spec import TrainingSpec

PROJECT = "project"
"""Where the user's own files are unpacked, below the folder of a training on its node."""


@dataclass
class RayTraining(LocalTraining):
    """Hands trainings to a cluster; what they read and write is in the store. A training ends with its driver."""

    BEGINNING: ClassVar[str] = (
        "waiting for the cluster to load the training software, the dataset and the model"
    )

    ray: RaySettings = field(default_factory=RaySettings)
    staging: Staging | None = None
    _until: float = 0.0
    """When the node itself ends the training, Unix seconds."""

    def _spec(self, run: RunRecord, attempt: AttemptRecord, output: Path) -> TrainingSpec:
        if self.staging is None:
            raise AssertionError("the dataset is not at hand")
        self.staging.stage(run)
        self._until = attempt.expires_at
        dataset = staged_dataset(self.staging.store, run)
        return remote_spec(
            run, attempt.number, self.store, dataset=dataset, output=str(output), project=PROJECT
        )

    def _stages(
        self, spec: TrainingSpec, tail: deque[str]
    ) -> Iterator[AbstractContextManager[TrainingProcess]]:
        del tail
        output, archive = Path(spec.output), None
        if self.staging is not None and self.staging.project is not None:
            archive = output / "project.tar"
            archive.write_bytes(self.staging.project)
        path = output / "task.json"
        task = RayTask(
            ray=self.ray,
            store=self.store,
            spec=spec,
            project=archive and str(archive),
            output=spec.output,
            until=self._until,
        )
        path.write_text(task.model_dump_json(indent=1))
        in_bucket = not self.store.url.startswith("file:")
        environment = training_environment(os.environ, project=self.root, in_bucket=in_bucket, own_code=False)
        yield TrainingProcess([*CLIENT, str(path)], env=environment)

    def _log(self, output: Path) -> str:
        return f"offload logs {output.name}"

    def _ending(
        self, code: int, message: str, tail: deque[str], output: Path, *, told: int | None
    ) -> Ending | None:
        if code == 0:
            return None  # the store knows of the result, and is asked next
        if code == EXIT_NODE_LOST and told is None:
            return "reclaimed", message
        # Ray ends its client without a word where the cluster stays away; the training's failures come with theirs.
        lost = code < 0 or code == EXIT_UNREACHABLE or (code == EXIT_FAILED and not message)
        if lost and told is None:
            said = next((line for line in reversed(tail) if line.strip()), "the connection broke")
            raise InterruptedRunError(
                f"the Ray cluster at {self.ray.address} cannot be used now: {said}. Run {output.name} stays open; run the "
                "same command to carry on"
            )
        return super()._ending(EXIT_RESUMABLE if lost else code, message, tail, output, told=told)
