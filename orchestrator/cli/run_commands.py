"""Commands about runs: status, stop, logs, report, attach."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from gpu_offload.orchestrator.cli.options import (
    SettingsOptions,
    console_of,
    json_option,
    need,
    print_json,
    run_settings_options,
    say,
    settings_options,
    verbose_option,
    write,
    writing,
)

if TYPE_CHECKING:
    from gpu_offload.infra.store.protocol import ObjectStore
    from gpu_offload.orchestrator.report.load import Format
    from gpu_offload.orchestrator.run.journal import Journal
    from gpu_offload.orchestrator.settings.load import Settings


@click.command()
@run_settings_options
@json_option
@click.argument("run", required=False)
def status(given: SettingsOptions, run: str | None, *, as_json: bool) -> None:
    """Show RUN or the latest runs: place, progress and cost so far; and where everything is kept."""
    from gpu_offload.orchestrator.lifecycle.status import standings, standings_text
    from gpu_offload.orchestrator.output.table import for_terminal, terminal_width
    from gpu_offload.orchestrator.project_states import places_text
    from gpu_offload.orchestrator.workspace import Workspace

    settings = given.settings
    found = standings(given.store, settings, run)
    if as_json:
        print_json({"runs": [standing.json() for standing in found]})
    else:
        say(standings_text(found, width=terminal_width()))
        if run is None:
            say(f"\n{for_terminal(places_text(settings, Workspace.of(settings.root)))}")


@click.command()
@run_settings_options
@verbose_option
@click.argument("run", required=False)
@click.option("--run", "by_option", metavar="RUN", help="The same as the argument RUN.")
@click.option("--reason", default="stopped by hand", help="Recorded with the run.")
def stop(
    given: SettingsOptions, run: str | None, by_option: str | None, reason: str, *, verbose: bool
) -> None:
    """Stop RUN, or the open run: terminate its instances and wait until they are gone.

    Instances are found by tag. The checkpoint stays, so the same training continues from there. Repeating it is
    harmless.
    """
    from gpu_offload.orchestrator.lifecycle.stop import stop_run
    from gpu_offload.orchestrator.run.journal import Journal

    if run and by_option and run != by_option:
        raise click.UsageError(f"{run} and {by_option} are two runs: name one")
    settings, console = given.settings, console_of(verbose=verbose)
    store = given.store
    wanted = run or by_option
    if wanted is None:
        still_open = Journal(store).open_ids()
        if len(still_open) > 1:
            raise click.UsageError(f"several runs are open, name one: {', '.join(still_open)}")
        if not still_open:
            click.echo("no run is open")
            return
        wanted = still_open[0]
    ended = stop_run(settings, store, wanted, console, reason=reason)
    what = f"terminated {', '.join(ended)}" if ended else "no instance was running"
    say(f"run {wanted} stopped; {what}; {_kept(Journal(store), wanted)}")


def _kept(journal: "Journal", run: str) -> str:
    from gpu_offload.orchestrator.run.journal_documents import JournalError

    try:
        documents = journal.read(run)
    except JournalError:
        return "the store has no record of it"
    if documents.outcome is not None and documents.outcome.status == "published":
        return f"it had published version {documents.outcome.version}"
    if documents.checkpoint is None or not documents.checkpoint.epochs_completed:
        return "no epoch was completed, so nothing is kept"
    done, of = documents.checkpoint.epochs_completed, journal.run(run).spec.epochs
    return f"kept the checkpoint after epoch {done} of {of}: `offload train` continues from it"


@click.command()
@run_settings_options
@click.argument("run", required=False)
@click.option("-f", "--follow", is_flag=True, help="Print new lines until the run ends.")
@click.option("--attempt", type=click.IntRange(1), help="The number of the attempt; by default the latest.")
def logs(given: SettingsOptions, run: str | None, attempt: int | None, *, follow: bool) -> None:
    """Print the log of RUN or of the latest run; a line arrives within 15 s."""
    from gpu_offload.orchestrator.lifecycle.logs import read_log
    from gpu_offload.orchestrator.report.load import latest_run

    store = given.store
    for text in read_log(store, run or latest_run(store), attempt=attempt, follow=follow):
        say(text, nl=False)


@click.command()
@run_settings_options
@click.argument("run", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json", "html"]),
    help="By default text in a terminal and Markdown elsewhere; of -o, by the file's ending.",
)
@json_option
@click.option("-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
def report(
    given: SettingsOptions, run: str | None, form: str | None, output: Path | None, *, as_json: bool
) -> None:
    """Report the outcome, time, cost and quality of RUN, of a sweep, or of the latest run."""
    from gpu_offload.orchestrator.output.table import terminal_width
    from gpu_offload.orchestrator.report.load import gather, latest_run, render

    if as_json and form not in {None, "json"}:
        raise click.UsageError(f"choose one of --json and --format {form}")
    settings = given.settings
    store = given.store
    chosen = cast("Format", "json" if as_json else form or _form_for(output))
    if run is not None and run.startswith("sweep-"):
        text = _sweep_text(settings, store, run, chosen)
    else:
        found = gather(store, settings.store, run or latest_run(store), pictures=chosen == "html")
        text = render(found, chosen, width=terminal_width())
    if output is None:
        # A page and an object have long lines, which `say` cuts.
        (say if chosen == "text" else write)(text, nl=False)
    else:
        with writing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(text, encoding="utf-8")
        click.echo(f"{output}: {len(text.encode()):,} bytes", err=True)


def _sweep_text(settings: "Settings", store: "ObjectStore", sweep: str, form: "Format") -> str:
    from gpu_offload.orchestrator.output.table import terminal_width

    need("sweep")
    from gpu_offload.orchestrator.sweep.gather import gather_sweep
    from gpu_offload.orchestrator.sweep.render import render_sweep

    return render_sweep(gather_sweep(store, settings.store, sweep), form, width=terminal_width())


def _form_for(output: Path | None) -> str:
    if output is not None:
        return {".html": "html", ".json": "json", ".txt": "text"}.get(output.suffix, "markdown")
    # What is not shown in a terminal goes into a job summary, an issue or a file.
    return "text" if sys.stdout.isatty() else "markdown"


@click.command()
@settings_options
@verbose_option
@click.argument("run")
def attach(given: SettingsOptions, run: str, *, verbose: bool) -> None:
    """Watch RUN from here until its model is published; also a run that another machine started."""
    from gpu_offload.orchestrator.lifecycle.controllers import controller_of
    from gpu_offload.orchestrator.lifecycle.train import TrainingFailedError
    from gpu_offload.orchestrator.run.journal import Journal

    settings = given.settings
    store = given.store
    outcome = controller_of(settings, store, Journal(store).run(run), console_of(verbose=verbose)).to_end()
    if outcome is None or outcome.status != "published":
        raise TrainingFailedError(
            f"run {run}: {f'{outcome.status}: {outcome.message}' if outcome else 'open'}"
        )
    say(f"run {run}: published version {outcome.version}")


COMMANDS = (status, stop, logs, report, attach)
