"""Adds to a plan what its run may be expected to cost."""

import time
from dataclasses import replace

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.lifecycle.new_run import run_record
from gpu_offload.orchestrator.plan.planned import Planned
from gpu_offload.orchestrator.run.experience import read_experience
from gpu_offload.orchestrator.run.forecast import forecast


def with_forecast(planned: Planned, store: ObjectStore) -> Planned:
    """Return the plan with the forecast of its run, where that would rent an instance and choose between markets."""
    if planned.report.decision.where != "ec2" or planned.report.already_trained is not None:
        return planned
    now = time.time()
    unlocked = replace(planned, lock=lambda: b"")  # locking requirements may ask the network
    run = run_record(
        unlocked,
        "",
        now=now,
        commit=None,
        repository=None,
        resumes=None,
        experience=read_experience(store, now),
    )
    found = forecast(run)
    return planned if found is None else replace(planned, report=replace(planned.report, forecast=found.text))
