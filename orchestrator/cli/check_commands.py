"""Commands that look at the dataset and at what a run needs: check, fingerprint, changed, doctor."""

import os
import sys

import click

from gpu_offload.orchestrator.cli.options import (
    SettingsOptions,
    environment_option,
    json_option,
    print_json,
    repository_option,
    say,
    settings_options,
    show,
)


@click.command()
@settings_options
@json_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "github"]),
    default="text",
    help="github: annotations with file and line, for a step of your own workflow.",
)
def check(given: SettingsOptions, *, as_json: bool, form: str) -> None:
    """Check dataset, training code and model definition: every fault with its file and line."""
    from gpu_offload.dataset.finding import DatasetError
    from gpu_offload.orchestrator import api
    from gpu_offload.orchestrator.check_report import faults_json
    from gpu_offload.orchestrator.github.annotations import annotate
    from gpu_offload.orchestrator.output.table import for_terminal
    from gpu_offload.orchestrator.settings.findings import findings_prefix

    if as_json and form == "github":
        raise click.UsageError("choose one of --json and --format github")
    settings = given.settings
    places = findings_prefix(settings)
    try:
        checked = api.check(settings)
    except DatasetError as error:
        findings, document, code = error.findings, faults_json(error, places), error.exit_code
        text = f"error: {error.text(places)}"
    else:
        findings, document, code = checked.warnings, checked.json(places), 0
        text = checked.text(places)
    if as_json:
        print_json(document)
    if form == "github":
        for annotation in annotate(findings, settings):
            click.echo(annotation.command())
    elif code or not as_json:
        stream = sys.stderr if code else sys.stdout
        say(for_terminal(text) if stream.isatty() else text, err=code != 0)
    sys.exit(code)


@click.command()
@settings_options
@json_option
def fingerprint(given: SettingsOptions, *, as_json: bool) -> None:
    """Print the dataset's fingerprint, which is the same on every machine."""
    from gpu_offload.orchestrator import api

    digest = api.fingerprint(given.settings)
    show({"fingerprint": digest}, digest, as_json=as_json)


@click.command()
@settings_options
@json_option
@click.option("--since", required=True, metavar="REV", help="A commit, tag or branch, such as HEAD~1.")
def changed(given: SettingsOptions, since: str, *, as_json: bool) -> None:
    """Ask git whether the dataset changed since REV: exit code 0 if so, 1 if not.

    Cheap, for skipping a job early. `offload train` knows better: it also sees changed settings.
    """
    from gpu_offload.orchestrator import api

    yes = api.changed(given.settings, since)
    show({"changed": yes}, "changed" if yes else "not changed", as_json=as_json)
    sys.exit(0 if yes else 1)


@click.command()
@settings_options
@json_option
@repository_option
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="ARN",
    help="A role whose trust policy is checked, instead of the current one's. Repeatable.",
)
@environment_option
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


COMMANDS = (check, fingerprint, changed, doctor)
