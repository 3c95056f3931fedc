"""`offload doctor`: whether everything that a run needs is there."""

import os
import sys

import click

from gpu_offload.orchestrator.cli.options import SettingsOptions, json_option, settings_options, show


@click.command()
@settings_options
@json_option
@click.option(
    "--repository", metavar="ORG/REPO", help="The GitHub repository. Default: that of the remote origin."
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="ARN",
    help="Roles whose trust policies are checked. Repeatable.",
)
@click.option(
    "--environment", default="gpu", show_default=True, help="The GitHub environment that guards spending."
)
@click.option(
    "--no-probe", is_flag=True, help="Write nothing: no test object, no security group for dry runs."
)
def doctor(
    given: SettingsOptions,
    repository: str | None,
    roles: tuple[str, ...],
    environment: str,
    *,
    as_json: bool,
    no_probe: bool,
) -> None:
    """Check everything that a run needs and print a remedy for each fault. Exit code 1 if something is missing.

    Test resources (an object, a security group) cost nothing and are removed at once.
    """
    from gpu_offload.orchestrator.account.doctor import examine
    from gpu_offload.orchestrator.output.table import terminal_width

    report = examine(
        given.directory.resolve(),
        lambda: given.settings,
        environment=os.environ,
        repository=repository,
        roles=roles,
        deployment=environment,
        probe=not no_probe,
    )
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    show(report.json(), report.text(colour=colour, width=terminal_width()), as_json=as_json)
    sys.exit(0 if report.ok else 1)


COMMANDS = (doctor,)
