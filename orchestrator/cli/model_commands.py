"""Commands that make a model or fetch one: plan, train, pull, demo."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_offload.errors import EXIT_FAILED
from gpu_offload.orchestrator.cli.options import (
    Answer,
    SettingsOptions,
    answers,
    command_name,
    console_of,
    json_option,
    need,
    print_json,
    say,
    settings_options,
    show,
    verbose_option,
    where_option,
    writing,
)

if TYPE_CHECKING:
    from gpu_offload.orchestrator.lifecycle.train_report import TrainReport
    from gpu_offload.orchestrator.offers.offer import Where


@click.command()
@settings_options
@json_option
@verbose_option
@where_option
@click.option(
    "--calibrate/--no-calibrate",
    default=None,
    help="Measure a few training steps on this machine first, or never. By default only if Ultralytics is "
    "installed; a measurement is kept for the next time.",
)
@click.option("--all", "everything", is_flag=True, help="Show every place, with its reason.")
def plan(
    given: SettingsOptions,
    where: "Where",
    *,
    as_json: bool,
    verbose: bool,
    calibrate: bool | None,
    everything: bool,
) -> None:
    """Estimate time and cost of the training in every possible place. Spends nothing."""
    from gpu_offload.orchestrator import api
    from gpu_offload.orchestrator.output.table import terminal_width
    from gpu_offload.orchestrator.plan.receipt import receipt_text

    report = api.plan(given.settings, on=where, calibrate=calibrate, console=console_of(verbose=verbose))
    text = receipt_text(report, width=terminal_width(), everything=everything)
    show(report.json(), text, as_json=as_json)


@click.command()
@settings_options
@json_option
@verbose_option
@where_option
@click.option(
    "--calibrate/--no-calibrate",
    default=None,
    help="Measure as `offload plan` does, or never. By default only if the decision depends on it.",
)
@click.option(
    "--detach",
    is_flag=True,
    help="On an instance, return as soon as it trains by itself; see `offload attach`.",
)
@click.option(
    "--repair", is_flag=True, help="Verify a version that is published already, and put back what is damaged."
)
@click.option("--sweep", hidden=True, help="The sweep that the training is part of: no alias moves.")
def train(
    given: SettingsOptions,
    where: "Where",
    *,
    as_json: bool,
    verbose: bool,
    calibrate: bool | None,
    detach: bool,
    repair: bool,
    sweep: str | None,
) -> int:
    """Train where it is cheapest and publish the model; skip what is already trained.

    Interrupted or killed, the same command carries on from the last completed epoch.
    """
    from gpu_offload.orchestrator.backends.standby import standing_by

    settings = given.settings
    with standing_by(settings, on=where, calibrate=calibrate) as standby:
        from gpu_offload.orchestrator import api

        report = api.train(
            settings,
            on=where,
            calibrate=calibrate,
            console=console_of(verbose=verbose),
            show_plan=None if as_json else say,
            detach=detach,
            sweep=sweep,
            repair=repair,
            standby=standby,
        )
    from gpu_offload.orchestrator.lifecycle.train_report import trained_text
    from gpu_offload.orchestrator.output.table import for_terminal

    if as_json:
        print_json(report.json())
    else:
        say(for_terminal(trained_text(report)))
        say(next_commands(report))
    return EXIT_FAILED if report.candidate and settings.registry.on_candidate == "fail" else 0


def next_commands(report: "TrainReport") -> str:
    """Return the commands that are useful after a training."""
    from gpu_offload.orchestrator.output.table import terminal_width

    first: tuple[tuple[str, str], ...]
    offload = command_name()
    if report.status == "detached":
        return f"\nNext:\n  {offload} status {report.run}\n  {offload} logs -f {report.run}"
    if report.candidate:
        name = report.semver or report.version
        first = (
            (f"pull {report.file} --version candidate", "download the candidate, verified"),
            (f"promote {name}", "make it stable all the same"),
        )
    else:
        first = ((f"pull {report.file}", "download the model, verified"),)
    rows = (
        *first,
        ("report", "time, cost and quality of the run"),
        ("models", "the published versions"),
        ("status", "the runs, and where everything is kept"),
    )
    widest = max(len(command) for command, _ in rows)
    lines = [f"  {offload} {command:{widest}}  {text}" for command, text in rows]
    if max(map(len, lines)) > terminal_width():  # `offload` is a long path
        lines = [f"  {offload} {command}\n      {text}" for command, text in rows]
    return "\nNext:\n" + "\n".join(lines)


@click.command()
@answers
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--version", "wanted", default="stable", help="A version, its beginning, or an alias.")
@click.option("--format", "export", metavar="NAME", help="A format that it was exported to, such as onnx.")
@click.option("--from", "source", metavar="URL", help="A store to pull from, instead of the configuration's.")
@click.option(
    "--verify-signer",
    "signer",
    metavar="OWNER/REPO",
    help="Take only a file that a workflow of this repository attested; needs gh.",
)
def pull(
    given: SettingsOptions,
    destination: Path,
    wanted: str,
    source: str | None,
    export: str | None,
    signer: str | None,
) -> Answer:
    """Download a model, verified, to DESTINATION: a file or a folder."""
    from gpu_offload.orchestrator import api

    with writing(destination):
        if source is None:
            return api.pull(given.settings, destination, version=wanted, export=export, signer=signer)
        return api.pull_from(source, destination, version=wanted, export=export, signer=signer)


@click.command()
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the project; by default demo, or demo-gpu.",
)
@click.option("--gpu", is_flag=True, help="The GPU path, on a simulated cloud: no account, no root, no GPU.")
@verbose_option
def demo(into: Path | None, *, gpu: bool, verbose: bool) -> None:
    """Plan, train on this CPU, publish, report and skip, on a generated dataset; leaves a project to look around in."""
    folder = (into or Path("demo-gpu" if gpu else "demo")).resolve()
    if gpu:
        need("simulator")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if gpu:
        from gpu_offload.orchestrator.gpu_demo import run_gpu_demo

        run_gpu_demo(folder, console_of(verbose=verbose), say, command=command_name(folder))
        return
    from gpu_offload.orchestrator.demo import run_demo

    run_demo(folder, console_of(verbose=verbose), say, command=command_name(folder))


COMMANDS = (plan, train, pull, demo)
