"""A plan with everything that a training needs."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gpu_offload.dataset.snapshot import Snapshot
from gpu_offload.orchestrator.cost.traffic import Traffic
from gpu_offload.orchestrator.offers.offer import Where
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.plan.inputs import PlanInputs
from gpu_offload.orchestrator.plan.option import Limits, PlanReport
from gpu_offload.orchestrator.plan.project import own_model, pack_project
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.remote_job.requirements import REQUIREMENTS
from gpu_offload.remote_job.spec import TrainingSpec


def limits_of(settings: Settings) -> Limits:
    """Return what a training may take, here and now."""
    limits = settings.limits
    # A job on a runner is ended from outside; a machine of one's own has no such limit.
    on_runner = bool(os.environ.get("GITHUB_ACTIONS"))
    return Limits(
        deadline_s=limits.deadline.total_seconds(),
        max_cost_usd=limits.max_cost_usd,
        value_of_time_usd_per_hour=limits.value_of_time_usd_per_hour,
        ci_limit_s=limits.ci_limit.total_seconds() if on_runner else None,
    )


@dataclass(frozen=True)
class Planned:
    """A decision, and everything that is needed to carry it out."""

    settings: Settings
    inputs: PlanInputs
    version: str
    spec: TrainingSpec
    report: PlanReport
    candidates: tuple[Candidate, ...]
    on: Where
    """The place that was asked for."""
    traffic: Traffic
    lock: Callable[[], bytes]
    """Locks the requirements of the user's code; asks the network where the store has no lock yet."""
    installed_s: float = 0.0
    """Seconds that the job has spent on installing its software before the plan."""

    @property
    def snapshot(self) -> Snapshot:
        """The dataset."""
        return self.inputs.snapshot

    @property
    def fingerprint(self) -> str:
        """The dataset's fingerprint."""
        return self.inputs.fingerprint

    @property
    def can_move(self) -> bool:
        """Whether it begins on this CPU and may move to an instance."""
        places = [candidate.offer.where for candidate in self.candidates]
        return places[:1] == ["cpu"] and "ec2" in places

    @property
    def training_key(self) -> str:
        """The training key."""
        return self.inputs.key

    @cached_property
    def project(self) -> bytes | None:
        """What the process that trains needs of the repository, packed; None where it needs nothing."""
        inputs = self.inputs
        files: dict[str, Path | bytes] = dict(inputs.code.files) if inputs.code else {}
        if inputs.model_file is not None:
            files[own_model(inputs.model_file)] = inputs.model_file
        if inputs.requirements is not None:
            # Only for a training, because it may ask an index.
            files[REQUIREMENTS] = self.lock()
        return pack_project(files) if files else None

    @property
    def weights_path(self) -> Path | None:
        """The local file of the starting weights."""
        weights = self.inputs.weights
        return Path(weights.path) if weights and weights.path else None

    @property
    def model_file(self) -> Path | None:
        """The model definition where it is a file of the user's."""
        return self.inputs.model_file
