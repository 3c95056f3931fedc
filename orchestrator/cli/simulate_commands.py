"""The simulated cloud from the command line."""

import sys

import click

from gpu_offload.infra.origin import documentation
from gpu_offload.orchestrator.cli.options import need


@click.command(
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


COMMANDS = (simulate,)
