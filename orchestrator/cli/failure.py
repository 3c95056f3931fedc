"""Which of our errors means which exit code, and how it is shown."""

import sys

from gpu_offload.dataset.change import NotARepositoryError, UnknownRevisionError
from gpu_offload.dataset.finding import DatasetError
from gpu_offload.infra.aws.errors import CloudError
from gpu_offload.infra.store.errors import StoreError
from gpu_offload.orchestrator.console import plain
from gpu_offload.orchestrator.demo import DemoError
from gpu_offload.orchestrator.drive import CloudUnreachableError, InstanceLeftError, InterruptedRunError
from gpu_offload.orchestrator.journal import JournalError
from gpu_offload.orchestrator.own_software import LockMissingError
from gpu_offload.orchestrator.planning import PlanningError
from gpu_offload.orchestrator.registry import RegistryError
from gpu_offload.orchestrator.renting import RentingError
from gpu_offload.orchestrator.settings import SettingsError
from gpu_offload.orchestrator.training import NothingFeasibleError, TrainingFailedError
from gpu_offload.remote_job.spec import EXIT_RESUMABLE

CODES: dict[type[Exception], int] = {
    SettingsError: 2,
    DatasetError: 1,
    # `offload changed` says "not changed" with 1, so what keeps it from knowing must be something else.
    UnknownRevisionError: 2,
    NotARepositoryError: 2,
    DemoError: 1,
    StoreError: 1,
    CloudError: 1,
    CloudUnreachableError: 1,
    InstanceLeftError: 1,
    RentingError: 1,
    LockMissingError: 1,
    RegistryError: 1,
    JournalError: 1,
    PlanningError: 1,
    NothingFeasibleError: 1,
    TrainingFailedError: 1,
    InterruptedRunError: EXIT_RESUMABLE,
}


def explain(error: Exception) -> int | None:
    """Print one of our errors and return its exit code; None for an error that is not ours."""
    for kind, code in CODES.items():
        if isinstance(error, kind):
            sys.stderr.write(f"error: {plain(str(error))}\n")
            return code
    return None
