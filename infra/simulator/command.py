"""Any command, run inside a simulated cloud: `offload simulate -- COMMAND`."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import TextIO

from gpu_offload.infra.signals import ending_with_us, handled
from gpu_offload.infra.simulator.behaviour import Behaviour, Leftovers
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.simulator.fault import InjectedFault, parse_all

EXIT_LEFTOVERS = 3
"""Something that costs money was left when the command had ended well."""
DROPPED = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_CA_BUNDLE")
"""Variables that would lead the command out of the simulated cloud."""


def simulate(
    command: Sequence[str],
    faults: Iterable[str | InjectedFault] = (),
    *,
    behaviour: Behaviour | None = None,
    namespaces: bool = False,
    sshd: bool = True,
    report: TextIO | None = None,
) -> int:
    """Run a command inside a simulated cloud and say what it leaves there; without a command, stay up.

    The command keeps its standard streams. Signals sent to this process are passed on to it, so it may clean up. Without
    a command, the environment is printed, and SIGINT or SIGTERM ends it. The report goes to standard error by default.

    Returns:
        The command's exit code, 128 and the signal's number where one ended it, 127 where it does not exist;
        EXIT_LEFTOVERS in place of 0 where instances or volumes are left.

    Raises:
        FaultSyntaxError: with the mistakes of all faults.
    """
    report = sys.stderr if report is None else report
    given = list(faults)
    lines = parse_all(fault for fault in given if isinstance(fault, str))
    parsed = [fault for fault in given if isinstance(fault, InjectedFault)]
    with SimulatedCloud(behaviour, [*lines, *parsed], namespaces=namespaces, sshd=sshd) as cloud:
        code = _run(command, cloud) if command else _stay(cloud)
        cloud.settle()
        left = cloud.leftovers()
        _tell(cloud, left, report)
    return EXIT_LEFTOVERS if code == 0 and command and left.costs_money else code


def _run(command: Sequence[str], cloud: SimulatedCloud) -> int:
    """Run to the end, passing signals on."""
    # A profile or a role would take precedence over the keys of the simulated cloud.
    environment = {name: value for name, value in os.environ.items() if name not in DROPPED}
    received: list[int] = []
    child: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        received.append(number)
        for process in child:
            process.send_signal(number)

    with handled(pass_on):
        try:
            # A session of its own: a terminal's Ctrl-C reaches it once, through us.
            process = subprocess.Popen(
                ending_with_us(command), env=environment | cloud.environment(), start_new_session=True
            )
        except OSError as error:
            print(f"offload simulate: {error}", file=sys.stderr)  # noqa: T201  the output of a command
            return 126
        child.append(process)
        for number in received:
            process.send_signal(number)
        try:
            # In pieces: a signal that comes right before a wait is heard only when that ends.
            while (code := process.poll()) is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1.0)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return code if code >= 0 else 128 - code


def _stay(cloud: SimulatedCloud) -> int:
    """Print the environment for a shell, and wait for a signal to end."""
    done = threading.Event()
    with handled(lambda *_: done.set()):
        for name, value in cloud.environment().items():
            print(f"export {name}={shlex.quote(value)}")  # noqa: T201  to be evaluated by a shell
        sys.stdout.flush()
        while not done.wait(1.0):
            pass  # in pieces, as in `_run`
    return 0


def _tell(cloud: SimulatedCloud, left: Leftovers, report: TextIO) -> None:
    """Say what is left, and how many calls it took."""
    calls = sum(cloud.runner_calls.values())
    inside = sum(cloud.calls.values()) - calls
    print(f"simulated cloud: left: {left}", file=report)
    for instance_id in left.instances:
        print(f"simulated cloud: {instance_id} would go on costing money", file=report)
    print(f"simulated cloud: {calls} API calls, and {inside} by instances", file=report)
    for event in cloud.events:
        if event.kind in {"fault", "error"}:
            print(f"simulated cloud: {event.kind}: {event.subject}: {event.text}", file=report)
    report.flush()
