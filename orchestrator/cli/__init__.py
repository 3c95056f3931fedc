"""The command line: `offload`.

Slow imports are inside of the commands that need them, so that `offload --help` is as fast as click.
"""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NoReturn

import click

from gpu_offload.errors import EXIT_RESUMABLE, OffloadError, ResumableError, UsageError
from gpu_offload.errors.disk import disk_error
from gpu_offload.orchestrator.cli import (
    bootstrap_command,
    check_commands,
    estimate_commands,
    model_commands,
    project_commands,
    registry_commands,
    run_commands,
    store_commands,
    sweep_commands,
    tend_commands,
)
from gpu_offload.orchestrator.cli.command_group import CommandGroup
from gpu_offload.orchestrator.cli.options import print_json


class TopLevelCommands(CommandGroup):
    """The commands of `offload`, by workflow."""

    sections: ClassVar = {
        "Start": ("init", "check", "plan", "train", "sweep"),
        "Models": ("models", "pull", "promote", "rollback", "yank", "usage", "prune", "site"),
        "Runs": ("status", "logs", "report", "stop", "attach", "estimate", "state"),
        "AWS account": ("bootstrap", "doctor", "tend"),
        "Try it without an account": ("demo", "simulate", "drill"),
        "For scripts": ("changed", "fingerprint", "schema"),
    }
    """In the order in which a user needs them."""


@click.group(
    cls=TopLevelCommands,
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
    sweep_commands,
    registry_commands,
    store_commands,
    run_commands,
    estimate_commands,
    check_commands,
    project_commands,
    bootstrap_command,
    tend_commands,
):
    for command in module.COMMANDS:
        offload.add_command(command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit. Our errors become a message and an exit code, never a traceback."""
    _open_standard_streams()
    sys.excepthook = _show_defect
    # Read by hand: a fault in the options is found before click has parsed the rest of them.
    as_json = "--json" in (sys.argv if arguments is None else arguments)
    try:
        # In click's own mode errors would be printed in its form and end with its exit codes.
        code = offload.main(args=arguments, prog_name="offload", standalone_mode=False)
    except click.exceptions.Abort:
        fail(ResumableError("Ctrl-C; run the same command again"), as_json=as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        # The help is no error message, but nothing was done: it goes to standard error.
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _refuse(error, as_json=as_json)
    except OffloadError as error:
        fail(error, as_json=as_json)
    except OSError as error:
        known = disk_error(error) or _lost_folder()
        if known is None:
            raise
        fail(known, as_json=as_json)
    sys.exit(code or 0)


def _open_standard_streams() -> None:
    """Open those that the caller closed (`2>&-`): Python has None for them, and files and pipes would get their numbers."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        sys.stdin or os.fdopen(0),
        sys.stdout or os.fdopen(1, "w"),
        sys.stderr or os.fdopen(2, "w"),
    )


def _lost_folder() -> UsageError | None:
    """Return an error if the folder that a command was started in is gone."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return UsageError(
            "the folder that this command was started in is removed; change to another one and run it again"
        )
    return None


def fail(error: OffloadError, *, as_json: bool) -> NoReturn:
    """Print an error, on standard output as JSON too if that was asked for, and exit with its code."""
    _end(str(error), error.json(), error.exit_code, as_json=as_json)


def _refuse(error: click.ClickException, *, as_json: bool) -> NoReturn:
    """Print an error of click's in the form of our own errors."""
    message = error.format_message()
    told = {"type": type(error).__name__, "message": message}
    if isinstance(error, click.UsageError):
        told["remedy"] = f"see `{error.ctx.command_path if error.ctx else 'offload'} --help`"
        message = f"{message[:1].lower()}{message[1:]}\n{told['remedy']}"
    _end(message, told, error.exit_code, as_json=as_json)


def _end(message: str, document: dict[str, Any], exit_code: int, *, as_json: bool) -> NoReturn:
    from gpu_offload.orchestrator.github.console import inert_text
    from gpu_offload.orchestrator.github.runner import on_runner
    from gpu_offload.orchestrator.output.console import Console, brief

    what = "interrupted" if exit_code == EXIT_RESUMABLE else "error"
    text = f"{what}: {brief(message)}"
    if on_runner():
        text = inert_text(text)
    if sys.stderr.isatty():
        from gpu_offload.orchestrator.output.table import terminal_width, wrapped_lines

        text = wrapped_lines(text, width=terminal_width())
    # This stream drops what cannot be written, so that a closed terminal does not change the exit code.
    Console().stream.write(f"{text}\n")
    if as_json:
        texts = {name: brief(each) if isinstance(each, str) else each for name, each in document.items()}
        print_json({"error": texts})
    sys.exit(exit_code)


def _show_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of a defect, whose error may quote a document."""
    import traceback

    from gpu_offload.orchestrator.output.console import brief

    sys.stderr.write(brief("".join(traceback.format_exception(kind, error, trace))))
