"""The command line: `offload`.

Slow imports are inside of the commands that need them, so that `offload --help` is as fast as click.
"""

import json
import sys
from typing import NoReturn

import click

from gpu_offload.errors import EXIT_RESUMABLE, OffloadError
from gpu_offload.orchestrator.cli import (
    account_commands,
    dataset_commands,
    model_commands,
    project_commands,
    registry_commands,
    run_commands,
    simulate_commands,
    tend_commands,
)
from gpu_offload.orchestrator.cli.grouped import GroupedCommands


@click.group(
    cls=GroupedCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done or nothing to do, 1 failed, 2 usage, 75 interrupted and resumable.",
)
@click.version_option(package_name="gpu-offload", prog_name="offload")
def offload() -> None:
    """Train a model where it is cheapest: on this CPU, or on a spot GPU that is never left running.

    Start with `offload init`, then `offload check`, `offload plan` and `offload train`.
    """


for module in (
    model_commands,
    registry_commands,
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
    """Run the command line and exit. Our errors become a message and an exit code, never a traceback."""
    as_json = "--json" in (sys.argv if arguments is None else arguments)
    try:
        code = offload.main(args=arguments, prog_name="offload", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(EXIT_RESUMABLE)
    except click.ClickException as error:
        error.show()
        if as_json:
            command = (
                error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "offload"
            )
            print_error(type(error).__name__, error.format_message(), f"see `{command} --help`")
        sys.exit(error.exit_code)
    except OffloadError as error:
        fail(error, as_json=as_json)
    sys.exit(code or 0)


def fail(error: OffloadError, *, as_json: bool) -> NoReturn:
    """Print an error, on standard output as JSON too if that was asked for, and exit with its code."""
    from gpu_offload.orchestrator.output.console import Console, plain

    Console().stream.write(f"error: {plain(str(error))}\n")
    if as_json:
        print_error(type(error).__name__, str(error), error.remedy)
    sys.exit(error.exit_code)


def print_error(kind: str, message: str, remedy: str) -> None:
    """Print an error as the JSON object of a command that failed."""
    facts = {"type": kind, "message": message, "remedy": remedy}
    sys.stdout.write(json.dumps({"error": facts}, ensure_ascii=False) + "\n")
