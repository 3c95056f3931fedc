"""A plan with everything that a training needs."""

from dataclasses import dataclass
from pathlib import Path

from gpu_offload.dataset.snapshot import Snapshot
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.plan.candidate import Candidate, Project
from gpu_offload.orchestrator.plan.option import PlanReport
from gpu_offload.orchestrator.plan.project import describe_project, own_model
from gpu_offload.orchestrator.run.record import RunRecord
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

    def run_record(
        self, run: str, *, now: float, commit: str | None, repository: str | None, resumes: str | None
    ) -> RunRecord:
        """Return the run that carries this plan out, beginning now."""
        limits = self.settings.limits
        cpu = next((o for o in self.report.options if o.where == "cpu"), None)
        chosen = self.report.decision.option
        return RunRecord(
            id=run,
            training_key=self.training_key,
            fingerprint=self.fingerprint,
            version=self.version,
            created_at=now,
            deadline_at=now + limits.deadline.total_seconds(),
            max_cost_usd=limits.max_cost_usd,
            value_of_time_usd_per_hour=limits.value_of_time_usd_per_hour,
            on_overrun=limits.on_overrun,
            max_attempts=self.settings.ec2.max_attempts,
            why=self.report.decision.why,
            candidates=self.candidates,
            forced=self.is_forced,
            estimate=chosen.interval if chosen else Interval(0, 0, 0),
            dataset_name=self.settings.dataset.path,
            cpu_estimate=cpu.interval if cpu else None,
            resumes=resumes,
            project=self._describe_project(),
            spec=self.spec.model_copy(update={"run": run}),
            commit=commit,
            repository=repository,
        )

    def _describe_project(self) -> Project | None:
        if self.project is None:
            return None
        return describe_project(self.project, own_model(self.model_file) if self.model_file else None)
