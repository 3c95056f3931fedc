"""The command line: `offload`.

Whatever is slow to import is imported by the command that needs it: `offload --help` takes no longer than click.
"""

import sys
from typing import NoReturn

import click

from gpu_offload.dataset.change import NotARepositoryError, UnknownRevisionError
from gpu_offload.dataset.finding import DatasetError
from gpu_offload.infra.aws.errors import CloudError
from gpu_offload.infra.instance.software import LockMissingError
from gpu_offload.infra.store.errors import StoreError
from gpu_offload.orchestrator.cli import (
    account_commands,
    dataset_commands,
    model_commands,
    project_commands,
    run_commands,
    simulate_commands,
    tend_commands,
)
from gpu_offload.orchestrator.demo import DemoError
from gpu_offload.orchestrator.lifecycle.train import NothingFeasibleError, TrainingFailedError
from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.plan.prerequisites import RentingError
from gpu_offload.orchestrator.plan.project import PlanningError
from gpu_offload.orchestrator.registry.manifest import RegistryError
from gpu_offload.orchestrator.run.backend import (
    CloudUnreachableError,
    InstanceLeftError,
    InterruptedRunError,
)
from gpu_offload.orchestrator.run.journal import JournalError
from gpu_offload.orchestrator.settings.load import SettingsError

EXIT_FAILED, EXIT_USAGE, EXIT_RESUMABLE = 1, 2, 75


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done or nothing to do, 1 failed, 2 usage, 75 interrupted and resumable.",
)
@click.version_option(package_name="gpu-offload", prog_name="offload")
def offload() -> None:
    """Train a model where it is cheapest: on this CPU, or on a spot GPU that is never left running.

    `offload plan` tells what a training takes and costs, and spends nothing. `offload train` does it,
    and skips what is already trained.
    """


for module in (
    model_commands,
    run_commands,
    dataset_commands,
    project_commands,
    simulate_commands,
    account_commands,
    tend_commands,
):
    for command in module.COMMANDS:
        offload.add_command(command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: every error of ours is a message and an exit code, never a traceback."""
    try:
        code = offload.main(args=arguments, prog_name="offload", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(EXIT_RESUMABLE)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        code = explain(error)
        if code is None:
            raise
    sys.exit(code or 0)


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
