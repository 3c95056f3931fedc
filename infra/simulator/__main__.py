"""`python -m gpu_offload.infra.simulator [--fault LINE]... [--namespaces] [--] [COMMAND...]`; see docs/simulated-cloud.md."""

import argparse
import sys

from gpu_offload.infra.simulator.command import simulate
from gpu_offload.infra.simulator.fault import FaultSyntaxError
from gpu_offload.infra.simulator.namespace import NamespaceError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 2 is a usage error."""
    parser = argparse.ArgumentParser(
        prog="python -m gpu_offload.infra.simulator", description="Run a command in a simulated cloud."
    )
    parser.add_argument(
        "--fault", action="append", default=[], metavar="LINE", help="what goes wrong; may be repeated"
    )
    parser.add_argument(
        "--namespaces", action="store_true", help="hosts with a network of their own; needs root"
    )
    parser.add_argument(
        "--no-sshd", action="store_true", help="use our own SSH server even where there is an sshd"
    )
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="nothing: stay up and print the environment"
    )
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        return simulate(command, options.fault, namespaces=options.namespaces, sshd=not options.no_sshd)
    except (FaultSyntaxError, NamespaceError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
