"""Commands about runs: status, stop, logs, report, attach."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from gpu_offload.orchestrator.cli.options import (
    console_of,
    json_option,
    print_json,
    settings_of,
    settings_options,
    verbose_option,
)

if TYPE_CHECKING:
    from gpu_offload.orchestrator.report.load import Format


@click.command()
@settings_options
@json_option
@click.argument("run", required=False)
def status(
    directory: Path, config: Path | None, sets: tuple[str, ...], run: str | None, *, as_json: bool
) -> None:
    """Show how RUN stands, or the latest runs: where each trains, how far it is, what it has cost."""
    from gpu_offload.orchestrator.lifecycle.status import standings, standings_text
    from gpu_offload.orchestrator.registry.stores import store_of

    settings = settings_of(directory, config, sets)
    found = standings(store_of(settings), settings, run)
    if as_json:
        print_json({"runs": [standing.json() for standing in found]})
    else:
        click.echo(standings_text(found))


@click.command()
@settings_options
@verbose_option
@click.argument("run", required=False)
@click.option("--run", "by_option", metavar="RUN", help="The same, for scripts.")
@click.option("--reason", default="stopped by hand", help="What the journal shall say.")
def stop(
    directory: Path,
    config: Path | None,
    sets: tuple[str, ...],
    run: str | None,
    by_option: str | None,
    reason: str,
    *,
    verbose: bool,
) -> None:
    """End RUN: terminate its instances, found by tag, wait until they are, and close its journal.

    Without RUN: the one that is open. Harmless where nothing is left to stop; its checkpoint stays, so the same
    training carries on from there.
    """
    from gpu_offload.orchestrator.lifecycle.stop import stop_run
    from gpu_offload.orchestrator.registry.stores import store_of
    from gpu_offload.orchestrator.run.journal import Journal

    settings, console = settings_of(directory, config, sets), console_of(verbose=verbose)
    store = store_of(settings)
    wanted = run or by_option
    if wanted is None:
        still_open = [record.id for record in Journal(store).open_runs()]
        if len(still_open) > 1:
            raise click.UsageError(f"several runs are open, name one: {', '.join(still_open)}")
        if not still_open:
            click.echo("no run is open")
            return
        wanted = still_open[0]
    ended = stop_run(settings, store, wanted, console, reason=reason)
    click.echo(f"run {wanted}: {f'terminated {chr(44).join(ended)}' if ended else 'no instance was left'}")


@click.command()
@settings_options
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run is over.")
@click.option("--attempt", type=int, help="Which attempt; by default the latest.")
def logs(
    directory: Path,
    config: Path | None,
    sets: tuple[str, ...],
    run: str,
    attempt: int | None,
    *,
    follow: bool,
) -> None:
    """Print what RUN's training has printed; the store has it at most 15 s later."""
    from gpu_offload.orchestrator.lifecycle.logs import read_log
    from gpu_offload.orchestrator.registry.stores import store_of

    settings = settings_of(directory, config, sets)
    for text in read_log(store_of(settings), run, attempt=attempt, follow=follow):
        click.echo(text, nl=False)


@click.command()
@settings_options
@click.argument("run", required=False)
@click.option("--format", "form", type=click.Choice(["markdown", "json", "html"]), default="markdown")
@click.option(
    "-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead."
)
def report(
    directory: Path,
    config: Path | None,
    sets: tuple[str, ...],
    run: str | None,
    form: str,
    output: Path | None,
) -> None:
    """Tell what RUN (the latest, where none is named) did, took and cost, against what was estimated."""
    from gpu_offload.orchestrator.registry.stores import store_of
    from gpu_offload.orchestrator.report.load import gather, latest_run, render

    settings = settings_of(directory, config, sets)
    store = store_of(settings)
    text = render(gather(store, settings.store, run or latest_run(store)), cast("Format", form))
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")
        click.echo(f"{output}: {len(text.encode()):,} bytes", err=True)


@click.command()
@settings_options
@verbose_option
@click.argument("run")
def attach(directory: Path, config: Path | None, sets: tuple[str, ...], run: str, *, verbose: bool) -> None:
    """Carry on with RUN from the store alone: watch it, collect, publish and account for it."""
    from gpu_offload.orchestrator.lifecycle.controllers import controller_of
    from gpu_offload.orchestrator.lifecycle.train import TrainingFailedError
    from gpu_offload.orchestrator.registry.stores import store_of
    from gpu_offload.orchestrator.run.journal import Journal

    settings = settings_of(directory, config, sets)
    store = store_of(settings)
    outcome = controller_of(settings, store, Journal(store).run(run), console_of(verbose=verbose)).to_end()
    if outcome is None or outcome.status != "published":
        raise TrainingFailedError(
            f"run {run}: {f'{outcome.status}: {outcome.message}' if outcome else 'open'}"
        )
    click.echo(f"run {run}: published version {outcome.version}")


COMMANDS = (status, stop, logs, report, attach)
