"""Assembles the EC2 backend of one run, for AWS or for the simulated cloud."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gpu_offload.infra.instance.user_data import SSH_USER
from gpu_offload.infra.store.s3_credentials import store_keys
from gpu_offload.orchestrator.backends.ec2 import RentedTraining
from gpu_offload.orchestrator.backends.staging import Staging
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan.prerequisites import SIMULATOR
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.machines import Ec2Settings

SIMULATED_SSH_PORT, SIMULATED_SSH_USER = "GPU_OFFLOAD_SSH_PORT", "GPU_OFFLOAD_SSH_USER"
SIMULATED_PROFILE = "gpu-offload-instance"


def ec2_settings(settings: Ec2Settings, environment: Mapping[str, str]) -> Ec2Settings:
    """Return the settings for this environment: the simulated cloud has ports and a role of its own."""
    if not environment.get(SIMULATOR):
        return settings
    return settings.model_copy(
        update={
            "ssh_port": int(environment.get(SIMULATED_SSH_PORT, settings.ssh_port)),
            "ssh_cidr": settings.ssh_cidr or "127.0.0.1/32",
            "instance_profile": settings.instance_profile or SIMULATED_PROFILE,
            "image": None,
            "subnet": None,
        }
    )


def rented_training(
    settings: Settings,
    journal: Journal,
    console: Console,
    *,
    renew: Callable[[], object],
    tree: Callable[[], Path] | None = None,
    weights: Path | None = None,
    project: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> RentedTraining:
    """Return the EC2 backend for a run; without `tree`, a driver continues with what was staged before."""
    environment = os.environ if environment is None else environment
    staging = None if tree is None else Staging(journal.store, console, tree, weights, project)
    return RentedTraining(
        settings=ec2_settings(settings.ec2, environment),
        journal=journal,
        store=settings.store_ref(),
        store_keys=store_keys(settings.store.endpoint_url, environment),
        console=console,
        staging=staging,
        renew=renew,
        ssh_user=environment.get(SIMULATED_SSH_USER) or SSH_USER,
        clock=clock,
    )
