"""The commands of `offload estimate`: history, explain, share."""

import json

import click

from gpu_offload.orchestrator.cli.command_group import CommandGroup
from gpu_offload.orchestrator.cli.options import (
    SettingsOptions,
    console_of,
    json_option,
    settings_options,
    show,
    verbose_option,
)


@click.group(cls=CommandGroup)
def estimate() -> None:
    """Compare past estimates with what trainings took, explain the next one, or print timings to share."""


@estimate.command("history")
@settings_options
@json_option
def show_history(given: SettingsOptions, *, as_json: bool) -> None:
    """Compare what was predicted with what past trainings took: errors, bias, coverage, and a plot."""
    from gpu_offload.orchestrator.estimate.history import timings
    from gpu_offload.orchestrator.estimate.score import history_json, history_text
    from gpu_offload.orchestrator.output.table import terminal_width
    from gpu_offload.orchestrator.registry.stores import store_of

    found = tuple(timings(store_of(given.settings)))
    show(history_json(found), history_text(found, width=terminal_width()), as_json=as_json)


@estimate.command()
@settings_options
@json_option
@verbose_option
@click.option("--calibrate/--no-calibrate", default=None, help="As for `offload plan`.")
def explain(given: SettingsOptions, *, as_json: bool, verbose: bool, calibrate: bool | None) -> None:
    """Show the terms of the estimate: seconds by stage on this CPU and on the best GPU. Spends nothing."""
    from gpu_offload.orchestrator import api
    from gpu_offload.orchestrator.output.table import terminal_width
    from gpu_offload.orchestrator.plan.explanation import explanation_json, explanation_text

    report = api.plan(given.settings, calibrate=calibrate, console=console_of(verbose=verbose))
    show(explanation_json(report), explanation_text(report, width=terminal_width()), as_json=as_json)


@estimate.command()
@settings_options
def share(given: SettingsOptions) -> None:
    """Print the timings of past trainings for others, a line of JSON each; nothing is sent.

    A line has times, machine, model and sizes. It names no project, run, dataset, host or day.
    """
    from gpu_offload.orchestrator.estimate.history import timings
    from gpu_offload.orchestrator.estimate.score import shared_line
    from gpu_offload.orchestrator.registry.stores import store_of

    lines = [shared_line(timing) for timing in timings(store_of(given.settings))]
    for line in lines:
        click.echo(json.dumps(line, sort_keys=True))
    click.echo(
        f"{len(lines)} trainings; nothing was sent. To share them, add these lines to an issue of the project.",
        err=True,
    )


COMMANDS = (estimate,)
