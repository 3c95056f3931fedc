"""A plan with everything that a training needs."""

from dataclasses import dataclass
from pathlib import Path

from gpu_offload.dataset.snapshot import Snapshot
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.plan.option import PlanReport
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.remote_job.spec import TrainingSpec


@dataclass(frozen=True)
class Planned:
    """A decision, and everything that carrying it out needs."""

    settings: Settings
    snapshot: Snapshot
    fingerprint: str
    training_key: str
    version: str
    spec: TrainingSpec
    report: PlanReport
    candidates: tuple[Candidate, ...]
    is_forced: bool
    weights_path: Path | None = None
    model_file: Path | None = None
    project: bytes | None = None
    """The user's own model definition and training code, packed for an instance."""
