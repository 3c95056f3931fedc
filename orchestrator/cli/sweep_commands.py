"""The command about many trainings: sweep."""

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from gpu_offload.orchestrator.cli.options import (
    SettingsOptions,
    command_name,
    console_of,
    json_option,
    need,
    print_json,
    say,
    settings_options,
    verbose_option,
    where_option,
)

if TYPE_CHECKING:
    from gpu_offload.orchestrator.offers.offer import Where


@click.command()
@settings_options
@json_option
@verbose_option
@click.option("--trials", type=click.IntRange(1), help="Choices of values to try at most.")
@click.option(
    "--parallel", type=click.IntRange(1), help="Trainings at the same time, on instances or a Ray cluster."
)
@click.option("--budget-usd", type=click.FloatRange(0), help="Dollars that the whole sweep may cost.")
@click.option("--deadline", metavar="TIME", help="Time from the start of the sweep to its end: 12h.")
@where_option
@click.option("--plan", "only_plan", is_flag=True, help="Show what money and time buy, and start nothing.")
def sweep(
    given: SettingsOptions,
    where: "Where",
    trials: int | None,
    parallel: int | None,
    budget_usd: float | None,
    deadline: str | None,
    *,
    as_json: bool,
    verbose: bool,
    only_plan: bool,
) -> None:
    """Try the values of [sweep], each as an ordinary training, and propose the best model for promotion.

    Interrupted or killed, the same command carries on. A sweep that is over continues with a higher --trials,
    --budget-usd or --deadline. What was trained before is not trained again.
    """
    need("sweep")
    from gpu_offload.orchestrator.output.table import terminal_width
    from gpu_offload.orchestrator.registry.stores import store_of
    from gpu_offload.orchestrator.sweep.command import Sweep
    from gpu_offload.orchestrator.sweep.render import render_sweep

    limits = {"trials": trials, "parallel": parallel, "budget-usd": budget_usd, "deadline": deadline}
    words = (*given.sets, *(f"sweep.{name}={value}" for name, value in limits.items() if value is not None))
    # As overrides they are checked together with the other settings, and a fault names its setting.
    settings = replace(given, sets=words).settings
    # Each training is a command of its own, and the limits of the sweep are not for it.
    arguments = ["-C", str(settings.root)]
    arguments += ["--config", str(settings.source)] if settings.source else []
    arguments += [part for word in given.sets for part in ("--set", word)]
    command = Sweep(settings, store_of(settings), console_of(verbose=verbose), arguments, where)
    if only_plan:
        plan = command.plan()
        if as_json:
            print_json(plan.json())
        else:
            say(plan.text(width=terminal_width()), nl=False)
        return
    report = command.run(show_plan=None if as_json else say)
    if as_json:
        print_json(report.json())
    else:
        say(render_sweep(report, "text", width=terminal_width()), nl=False)
        click.echo(f"\nNext:\n  {command_name()} report {report.record.id} -o sweep.html")


COMMANDS = (sweep,)
