"""Shared options, the settings that they select, and the output of commands."""

import contextlib
import errno
import functools
import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from gpu_offload.orchestrator.output.console import plain

if TYPE_CHECKING:
    from gpu_offload.infra.store.protocol import ObjectStore
    from gpu_offload.orchestrator.output.console import Console
    from gpu_offload.orchestrator.settings.fault import Fault
    from gpu_offload.orchestrator.settings.load import Settings


@dataclass(frozen=True)
class SettingsOptions:
    """Where a command finds its settings: the options `-C`, `--config` and `--set`."""

    directory: Path = Path()
    config: Path | None = None
    sets: tuple[str, ...] = ()
    of_runs: bool = False
    """Whether the command is for runs that are there: what only a new training needs may be wrong, with a warning."""

    @cached_property
    def settings(self) -> "Settings":
        """The settings, loaded on first use. Raises SettingsError."""
        from gpu_offload.orchestrator.settings.load import load_settings

        left_out: list[Fault] = []
        settings = load_settings(
            self.directory.resolve(),
            file=self.config,
            overrides=self.sets,
            environment=os.environ,
            left_out=left_out if self.of_runs else None,
        )
        for fault in left_out:
            say(f"warning: {fault}", err=True)
        return settings

    @cached_property
    def store(self) -> "ObjectStore":
        """The settings' store, which must be there already. Raises SettingsError, StoreError."""
        from gpu_offload.orchestrator.registry.stores import existing_store_of

        return existing_store_of(self.settings)


directory_option = click.option(
    "-C",
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="Run as if started in this folder.",
)
CONFIG_HELP = "Configuration file; by default offload.toml or pyproject.toml, here or above."
SET_HELP = "Override a setting, for example training.epochs=2."


def settings_options(command: Callable[..., Any], *, of_runs: bool = False) -> Callable[..., Any]:
    """Add `-C`, `--config` and `--set` to a command, which gets them as SettingsOptions."""

    @directory_option
    @click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help=CONFIG_HELP)
    @click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help=SET_HELP)
    @functools.wraps(command)
    def wrapped(
        *arguments: Any, directory: Path, config: Path | None, sets: tuple[str, ...], **others: Any
    ) -> Any:
        return command(*arguments, SettingsOptions(directory, config, sets, of_runs), **others)

    return wrapped


def run_settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the same to a command on runs, which a fault of a training to come must not keep from ending an instance."""
    return settings_options(command, of_runs=True)


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else, on standard output."
)
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Show details.")
where_option = click.option(
    "--on",
    "where",
    type=click.Choice(["auto", "cpu", "ec2", "ray"]),
    default="auto",
    help="Choose the place yourself.",
)


def _checked_repository(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    from gpu_offload.infra.github.repository import REPOSITORY

    if value is not None and REPOSITORY.fullmatch(value) is None:
        raise click.BadParameter(f"{value!r} is not ORG/REPO as GitHub spells it")
    return value


repository_option = click.option(
    "--repository",
    metavar="ORG/REPO",
    callback=_checked_repository,
    help="The GitHub repository. Default: that of the remote origin.",
)
environment_option = click.option(
    "--environment", default="gpu", show_default=True, help="The GitHub environment that guards spending."
)


def console_of(*, verbose: bool) -> "Console":
    """Return the console for standard error: live on a terminal, commands in a workflow, lines in a log."""
    from gpu_offload.orchestrator.github.runner import on_runner
    from gpu_offload.orchestrator.output.console import Console
    from gpu_offload.orchestrator.output.terminal import TerminalConsole

    if on_runner():
        import atexit

        from gpu_offload.orchestrator.github.console import GitHubConsole

        console = GitHubConsole(sys.stderr, verbose=verbose)
        # A script may print workflow commands after ours: let the runner accept them again.
        atexit.register(console.close)
        return console
    # Some CI systems give a job a terminal and keep its output as a log.
    if sys.stderr.isatty() and not os.environ.get("CI"):
        return TerminalConsole(sys.stderr, verbose=verbose)
    return Console(sys.stderr, verbose=verbose)


def command_name(folder: Path | None = None) -> str:
    """Return how `offload` is called in a folder, by default the current one.

    By its name, or by its path, absolute or relative to the folder, where the shell would not find it.
    """
    called = Path(sys.argv[0])
    if called.name != "offload":
        return "offload"
    found = shutil.which("offload")
    if found is not None and Path(found).resolve() == called.resolve():
        return "offload"
    return shlex.quote(min(str(called.absolute()), os.path.relpath(called, folder), key=len))


EXTRAS = {"simulator": ("moto", "the simulated cloud is"), "sweep": ("optuna", "sweeps are")}


def need(extra: str) -> None:
    """Check that an extra of our package is installed. Raises ClickException."""
    package, what = EXTRAS[extra]
    # Not imported, because both are slow.
    if importlib.util.find_spec(package) is None:
        raise click.ClickException(f"{what} not installed: pip install 'gpu-offload[{extra}]'")


NO_PLACE = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
"""Error numbers of a path that leads through a file, is too long, or a circle of links."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Refuse a path of the user's to which nothing can be written. Raises UsageError; OSError for a fault of the disk."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_PLACE:
            raise click.UsageError(f"{path}: {error.strerror}; name another path") from error
        if error.filename or error.errno is None:
            raise
        # A full disk does not say for which file.
        raise OSError(error.errno, error.strerror, str(path)) from error


def print_json(value: Any) -> None:
    """Print one JSON object on standard output."""
    from gpu_offload.orchestrator.output.json_text import json_text

    click.echo(json_text(value))


def say(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Print text as `plain` returns it."""
    write(plain(text), nl=nl, err=err)


def write(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Print a whole document; in a workflow no line of it is a command to the runner."""
    from gpu_offload.orchestrator.github.runner import on_runner

    if on_runner():
        from gpu_offload.orchestrator.github.console import inert_text

        text = inert_text(text)
    click.echo(text, nl=nl, err=err)


def show(document: Any, text: str, *, as_json: bool) -> None:
    """Print a result as JSON, or as text for people."""
    if as_json:
        print_json(document)
    else:
        say(text)


class Answer(Protocol):
    """The result of a command."""

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""

    def text(self) -> str:
        """Return it as text for people."""


def show_answer(answer: Answer, *, as_json: bool) -> None:
    """Print the result of a command."""
    show(answer.json(), answer.text(), as_json=as_json)


def answers(command: Callable[..., Answer | None]) -> Callable[..., None]:
    """Add the options of the settings and `--json` to a command, and print the answer that it returns."""

    @settings_options
    @json_option
    @functools.wraps(command)
    def wrapped(given: SettingsOptions, *, as_json: bool, **others: Any) -> None:
        answer = command(given, **others)
        if answer is not None:
            show_answer(answer, as_json=as_json)

    return wrapped
