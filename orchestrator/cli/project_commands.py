"""Commands about a project: init, schema."""

from pathlib import Path

import click

from orchestrator.cli.options import json_option, print_json


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path())
@click.option("--print", "only_print", is_flag=True, help="Print what would be written; write nothing.")
def init(directory: Path, *, only_print: bool) -> None:
    """Write a commented offload.toml from what is found in the repository; never overwrite one."""
    from orchestrator.configuration import configuration_for, write_configuration

    if only_print:
        click.echo(configuration_for(directory.resolve()), nl=False)
    else:
        click.echo(write_configuration(directory.resolve()))


@click.command()
@json_option
def schema(*, as_json: bool) -> None:
    """Print the JSON schema of offload.toml, by which editors check and complete it."""
    del as_json  # it is JSON either way
    from orchestrator.settings_schema import schema as json_schema

    print_json(json_schema())


COMMANDS = (init, schema)
