"""Makes the record of a new run, and compares an open run with a plan."""

import time
from dataclasses import replace

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.plan.candidate import Project
from gpu_offload.orchestrator.plan.planned import Planned, limits_of
from gpu_offload.orchestrator.plan.project import describe_project, own_model
from gpu_offload.orchestrator.run.experience import Experience
from gpu_offload.orchestrator.run.forecast import forecast
from gpu_offload.orchestrator.run.former_runs import read_experience
from gpu_offload.orchestrator.run.record import Origin, RunRecord
from gpu_offload.remote_job.spec import TrainingSpec


def spec_differences(planned: Planned, run: RunRecord) -> list[str]:
    """Return the names of what a run would train differently than planned: its record may be tampered with."""
    ours, theirs = _what(planned.spec), _what(run.spec)
    found = [name for name in ours if ours[name] != theirs[name]]
    project = _project_of(planned)
    if (project and (project.sha256, project.model)) != (
        run.project and (run.project.sha256, run.project.model)
    ):
        found.append("project")
    if (planned.fingerprint, planned.version) != (run.fingerprint, run.version):
        found.append("version")
    return found


def _what(spec: TrainingSpec) -> dict[str, object]:
    places = {"run", "attempt", "output", "store", "dataset", "weights", "device", "project", "packages"}
    places |= {"installed_s", "exports", "exports_required"}  # they do not decide the model
    return spec.model_dump(mode="json", exclude=places) | {
        "dataset": spec.dataset.fingerprint,
        "weights": spec.weights and spec.weights.sha256,
    }


def _project_of(planned: Planned) -> Project | None:
    model = own_model(planned.model_file) if planned.model_file else None
    return describe_project(planned.project, model) if planned.project is not None else None


def run_record(
    planned: Planned,
    run: str,
    *,
    now: float,
    commit: str | None,
    repository: str | None,
    resumes: str | None,
    experience: Experience,
    sweep: str | None = None,
) -> RunRecord:
    """Return the run that carries a plan out, beginning now."""
    settings = planned.settings
    limits = settings.limits
    cpu = next((o for o in planned.report.options if o.where == "cpu"), None)
    decision = planned.report.decision
    chosen = decision.option
    # What a job installed before a training on an instance is no part of the run, which installs there again.
    installed = planned.installed_s if chosen and chosen.where == "cpu" else 0.0
    job_s = limits_of(settings).ci_limit_s
    return RunRecord(
        id=run,
        training_key=planned.training_key,
        fingerprint=planned.fingerprint,
        version=planned.version,
        created_at=now,
        installed_s=installed,
        deadline_at=now - installed + limits.deadline.total_seconds(),
        max_cost_usd=limits.max_cost_usd,
        value_of_time_usd_per_hour=limits.value_of_time_usd_per_hour,
        # A plan that may begin elsewhere than it ends was allowed to rent from the start.
        on_overrun="escalate" if decision.reversible else limits.on_overrun,
        reversible=decision.reversible,
        cpu_limit_s=max(0.0, job_s - installed) if job_s is not None and planned.can_move else None,
        max_attempts=settings.ec2.max_attempts,
        why=planned.report.decision.why,
        candidates=planned.candidates,
        forced=planned.on != "auto",
        estimate=chosen.trained if chosen else Interval(0, 0, 0),
        installation=chosen.installation if chosen else None,
        dataset_name=settings.dataset.path,
        cpu_estimate=cpu.trained if cpu else None,
        resumes=resumes,
        policy=settings.ec2.policy,
        experience=experience,
        sweep=sweep,
        project=_project_of(planned),
        spec=planned.spec.model_copy(update={"run": run}),
        commit=commit,
        repository=repository,
        volume_gib=settings.ec2.volume_gib,
        dataset_bytes=planned.report.dataset_bytes,
        store_region=planned.traffic.store.region,
        store_outside_aws=planned.traffic.store.outside,
        checkpoint_bytes=planned.traffic.epoch,
        model_bytes=planned.traffic.result,
        classes=planned.snapshot.classes,
        images=dict(planned.snapshot.images),
        origin=_origin(planned),
    )


def _origin(planned: Planned) -> Origin | None:
    start = planned.inputs.start
    if start is None or start.recipe is None:
        return None
    return Origin(recipe=start.recipe, version=start.version, warm_starts=start.warm_starts, note=start.note)


def with_forecast(planned: Planned, store: ObjectStore) -> Planned:
    """Return the plan with the forecast of its run, where that would rent an instance and choose between markets."""
    if planned.report.decision.where != "ec2" or planned.report.already_trained is not None:
        return planned
    now = time.time()
    unlocked = replace(planned, lock=lambda: b"")  # locking requirements may ask the network
    seen = read_experience(store, now)
    run = run_record(unlocked, "", now=now, commit=None, repository=None, resumes=None, experience=seen)
    found = forecast(run)
    return planned if found is None else replace(planned, report=replace(planned.report, forecast=found.text))
