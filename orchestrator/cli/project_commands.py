"""Commands about a project: init, schema."""

from pathlib import Path

import click

from gpu_offload.orchestrator.cli.options import json_option


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path())
@click.option("--print", "only_print", is_flag=True, help="Print what would be written; write nothing.")
@click.option(
    "--workflows/--no-workflows",
    default=None,
    help="Write GitHub workflows, too; by default in a repository of GitHub's.",
)
@click.option(
    "--action",
    metavar="OWNER/REPO@COMMIT[#VERSION]",
    help="The action to pin; by default the commit that this copy of offload comes from.",
)
def init(directory: Path, *, only_print: bool, workflows: bool | None, action: str | None) -> None:
    """Write a commented offload.toml from what is found in the repository, and the workflows that train it.

    An offload.toml that is there stays. Running it again updates the workflows and shows the difference.
    """
    from gpu_offload.orchestrator.github.pin import Pin, PinError, own_pin
    from gpu_offload.orchestrator.github.workflows import is_github, write_workflows
    from gpu_offload.orchestrator.settings.scaffold import configuration_for, write_configuration

    root = directory.resolve()
    if only_print:
        click.echo(configuration_for(root), nl=False)
    else:
        click.echo(write_configuration(root))
    wanted = action is not None or (is_github(root) if workflows is None else workflows)
    if not wanted:
        return
    try:
        pin = Pin.of(action) if action else own_pin()
    except PinError as error:
        raise click.UsageError(f"no workflows: {error}") from error
    keep = _has_folder_store(root)
    for written in write_workflows(root, pin, keep=keep, only_show=only_print):
        click.echo(written)
    if keep:
        click.echo("The store is a folder: on GitHub, the models are kept in this repository's releases.")


def _has_folder_store(root: Path) -> bool:
    """Whether the models of a project go into a folder, as they do by default."""
    from gpu_offload.orchestrator.settings.load import SettingsError, load_settings

    try:
        return load_settings(root, environment={}).store.url.startswith("file:")
    except SettingsError:
        return True


@click.command()
@json_option
def schema(*, as_json: bool) -> None:
    """Print the JSON schema of offload.toml, by which editors check and complete it."""
    del as_json  # it is JSON either way
    from gpu_offload.orchestrator.settings.json_schema import schema_text

    click.echo(schema_text(), nl=False)


COMMANDS = (init, schema)
