"""Commands that keep watch: tend."""

import sys
from pathlib import Path

import click

from orchestrator.cli.options import (
    console_of,
    json_option,
    print_json,
    settings_of,
    settings_options,
    verbose_option,
)


@click.command()
@settings_options
@json_option
@verbose_option
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def tend(
    directory: Path,
    config: Path | None,
    sets: tuple[str, ...],
    *,
    as_json: bool,
    verbose: bool,
    dry_run: bool,
) -> None:
    """Take every open run on, and remove what must not exist any more.

    Trainings that have finished are published and accounted for, interrupted ones get their next instance. Then
    every instance, volume, security group and schedule that bears our tag and whose time is up, or whose run is over
    or not in the store, is removed and seen to be gone; nobody else's is touched. Exit code 1 where anything that may
    cost money could not be removed. Made for a schedule: see docs/leaks.md.
    """
    from orchestrator.api import store_of
    from orchestrator.tending import Tend

    settings = settings_of(directory, config, sets)
    tended = Tend(settings, store_of(settings), console_of(verbose=verbose), dry_run=dry_run).tend()
    if as_json:
        print_json(tended.json())
    else:
        click.echo(tended.text())
    if tended.failures:
        sys.exit(1)


COMMANDS = (tend,)
