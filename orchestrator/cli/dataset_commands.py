"""Commands about the dataset: check, fingerprint, changed."""

import sys

import click

from gpu_offload.orchestrator.cli.options import (
    SettingsOptions,
    json_option,
    print_json,
    settings_options,
    show,
)
from gpu_offload.orchestrator.output.console import plain


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
    """Check the dataset: every fault with its file and line."""
    from gpu_offload.dataset.finding import DatasetError
    from gpu_offload.orchestrator import api
    from gpu_offload.orchestrator.check_report import faults_json
    from gpu_offload.orchestrator.github.annotations import annotate
    from gpu_offload.orchestrator.settings.findings import findings_prefix

    settings = given.settings
    try:
        checked, failure = api.check(settings), None
    except DatasetError as error:
        checked, failure = None, error
    findings = failure.findings if failure else checked.warnings if checked else ()
    places = findings_prefix(settings)
    if form == "github":
        for annotation in annotate(findings, settings):
            click.echo(annotation.command())
    if checked is not None:
        if as_json:
            print_json(checked.json(places))
        elif form == "text":
            click.echo(plain(checked.text(places)))
    elif failure is not None:
        if as_json:
            print_json(faults_json(failure, places))
        if form == "text":
            click.echo(plain(f"error: {failure.text(places)}"), err=True)
        sys.exit(failure.exit_code)


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


COMMANDS = (check, fingerprint, changed)
