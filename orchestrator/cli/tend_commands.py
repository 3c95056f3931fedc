"""Commands that end leaks, test for them, and simulate a cloud: tend, drill, simulate."""

import sys

import click

from gpu_offload.infra.origin import documentation
from gpu_offload.orchestrator.cli.options import (
    SettingsOptions,
    console_of,
    json_option,
    need,
    run_settings_options,
    show_answer,
    verbose_option,
)


@click.command(epilog=f"\b\nMore: {documentation('leaks.md')}")
@run_settings_options
@json_option
@verbose_option
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
def tend(given: SettingsOptions, *, as_json: bool, verbose: bool, dry_run: bool) -> None:
    """Continue every open run, and terminate what must not run any more.

    Finished trainings are published and accounted for, interrupted ones get their next instance. Then every instance,
    volume, security group and schedule with our tag is removed if its time is up, its run is over, or its run is not
    in the store. The removal is confirmed; resources of others are not touched. Exit code 1 if anything that may cost
    money is left. Run it on a schedule.
    """
    from gpu_offload.orchestrator.cleanup.tend import Tend
    from gpu_offload.orchestrator.registry.stores import store_of

    settings = given.settings
    tended = Tend(settings, store_of(settings), console_of(verbose=verbose), dry_run=dry_run).tend()
    show_answer(tended, as_json=as_json)
    if tended.failures:
        sys.exit(1)


@click.command(epilog=f"\b\nMore: {documentation('drill.md')}")
@json_option
@click.option("--only", multiple=True, metavar="FAULT", help="Only this fault; may be repeated.")
@click.option("--jobs", type=click.IntRange(1, 8), default=2, help="Faults at the same time; by default 2.")
@click.option("--on-my-account", is_flag=True, help="Rent real instances, on your account; costs money.")
@click.option(
    "--max-cost-usd",
    type=click.FloatRange(min=0, min_open=True),
    help="Maximum cost of --on-my-account in all.",
)
@click.option(
    "--store", metavar="URL", help="A store for --on-my-account only: the drill publishes models there."
)
def drill(
    only: tuple[str, ...],
    jobs: int,
    max_cost_usd: float | None,
    store: str | None,
    *,
    on_my_account: bool,
    as_json: bool,
) -> None:
    """Inject every fault that gpu-offload promises to survive, and show the outcome.

    Each fault gets a simulated cloud, a store and a small training of its own: nothing is spent, and your own
    configuration is not touched. Exit code 1 if anything was leaked or lost.

    With --on-my-account, --max-cost-usd and --store, the faults that can be injected into real instances are, one
    after the other, on the cheapest type that ./offload.toml allows.
    """
    if on_my_account and (max_cost_usd is None or store is None):
        raise click.UsageError(
            "--on-my-account rents instances: say what it may cost (--max-cost-usd 1) and where it may publish "
            "(--store s3://BUCKET/drill, not your project's)"
        )
    if not on_my_account and (max_cost_usd is not None or store is not None):
        raise click.UsageError(
            "--max-cost-usd and --store belong to --on-my-account; a simulated drill costs nothing"
        )
    if not on_my_account:
        need("simulator")
    from gpu_offload.orchestrator.drill import suite as drilling
    from gpu_offload.orchestrator.drill.command import DrillError

    def show_result(one: "drilling.Survived") -> None:
        click.echo(f"{one.name}: {one.outcome} ({one.seconds:.1f} s)", err=True)

    try:
        if on_my_account and max_cost_usd is not None and store is not None:
            from gpu_offload.orchestrator.drill.real_account import drill_on_account

            settings = SettingsOptions().settings
            report = drill_on_account(settings, store, max_cost_usd, wanted=only, on_result=show_result)
        else:
            report = drilling.drill(only, jobs=jobs, on_result=show_result)
    except DrillError as error:
        raise click.UsageError(str(error)) from error
    show_answer(report, as_json=as_json)
    if not report.green:
        sys.exit(1)


@click.command(
    # The options behind COMMAND belong to it.
    context_settings={"ignore_unknown_options": True},
    epilog=f"\b\nMore: {documentation('simulated-cloud.md')}",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="LINE",
    help="What goes wrong meanwhile, such as instance:reclaim:after=epoch=1; may be repeated.",
)
@click.option("--namespaces", is_flag=True, help="Instances with a network of their own; needs root.")
@click.option("--no-sshd", is_flag=True, help="Our own SSH server even where there is an sshd.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def simulate(faults: tuple[str, ...], command: tuple[str, ...], *, namespaces: bool, no_sshd: bool) -> None:
    """Run COMMAND in a simulated cloud, with real SSH hosts on this machine.

    Its exit code is passed on, or 3 where it left something that would cost money. Without COMMAND the cloud
    stays up and its environment is printed. Write `offload simulate -- COMMAND`.
    """
    need("simulator")
    from gpu_offload.infra.simulator.command import simulate as run_inside
    from gpu_offload.infra.simulator.fault import FaultSyntaxError
    from gpu_offload.infra.simulator.namespace import NamespaceError

    try:
        code = run_inside(command, faults, namespaces=namespaces, sshd=not no_sshd)
    except (FaultSyntaxError, NamespaceError) as error:
        raise click.UsageError(str(error)) from error
    sys.exit(code)


COMMANDS = (tend, drill, simulate)
