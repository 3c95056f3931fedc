"""Addresses of simulated machines: on the loopback network, or each in a network namespace of its own."""

import itertools
import random
from collections.abc import Callable
from contextlib import ExitStack

from gpu_offload.infra.simulator.endpoint import Application, Server
from gpu_offload.infra.simulator.hardware import Hardware
from gpu_offload.infra.simulator.host import Machine
from gpu_offload.infra.simulator.isolation import isolation
from gpu_offload.infra.simulator.link import LinkRelay


class LoopbackPlace:
    """Machines on 127.77.0.0/16; needs no root."""

    clean_command = ""
    """A shell command that removes the place."""

    def __init__(self, network: LinkRelay, *, use_sshd: bool) -> None:
        # Not a fixed one: clouds of several processes share the loopback addresses.
        self.ssh_port = random.SystemRandom().randrange(20_000, 30_000)
        self.ssh_user = isolation().user if use_sshd else "offload"
        self._network = network
        self._use_sshd = use_sshd
        self._addresses = itertools.count(1)

    def build(self, hardware: Hardware, on_exit: Callable[[str], None]) -> Machine:
        """Return a machine, switched off."""
        return Machine(hardware, self._network, on_exit, use_sshd=self._use_sshd)

    def next_address(self) -> str:
        """Return an address that no machine has."""
        number = next(self._addresses)
        return f"127.77.{number // 250}.{number % 250 + 1}"

    def serve(self, application: Application, stack: ExitStack) -> None:
        """Serve the API where machines reach it, until the stack closes; return its URL, None for the runner's own."""


class NamespacePlace:
    """Machines in networks of their own, with the API at our end of their cables; needs root."""

    ssh_port = 22
    ssh_user = "offload"

    def __init__(self, network: LinkRelay, stack: ExitStack, *, use_sshd: bool) -> None:
        from gpu_offload.infra.simulator.namespace import AddressRange

        self._range = AddressRange()
        self._range.open()
        stack.callback(self._range.close)
        self.clean_command = self._range.clean_command
        self._network = network
        self._use_sshd = use_sshd

    def build(self, hardware: Hardware, on_exit: Callable[[str], None]) -> Machine:
        """See `LoopbackPlace`."""
        from gpu_offload.infra.simulator.namespace import NamespaceMachine

        return NamespaceMachine(hardware, self._network, on_exit, use_sshd=self._use_sshd, range=self._range)

    def next_address(self) -> str:
        """See `LoopbackPlace`."""
        return self._range.next_address()

    def serve(self, application: Application, stack: ExitStack) -> str:
        """See `LoopbackPlace`."""
        outside = Server(application, self._range.gateway)
        outside.start()
        stack.callback(outside.stop)
        return outside.url
