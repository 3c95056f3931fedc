"""A host with a network, a file system and processes of its own, in namespaces; needs root."""

import contextlib
import itertools
import os
import random
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from gpu_offload.errors import OffloadError
from gpu_offload.infra.simulator.host import Machine

METADATA = ("169.254.169.254", 80)
SSH_PORT = 22
COMMANDS = ("unshare", "nsenter", "ip", "tc", "mount")


class NamespaceError(OffloadError, RuntimeError):
    """This machine or user cannot have such hosts; the text says why."""


def why_not() -> str | None:
    """Why there can be no hosts with namespaces here; None where there can."""
    if os.geteuid() != 0:
        return "namespaces need root"
    if missing := [name for name in COMMANDS if shutil.which(name) is None]:
        return f"namespaces need {', '.join(missing)} in the PATH"
    if shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        return "namespaces need OpenSSH's sshd"
    probe = ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "true"]
    done = subprocess.run(probe, capture_output=True, check=False, timeout=20)
    return (
        None if done.returncode == 0 else f"namespaces are not allowed here: {done.stderr.decode().strip()}"
    )


def run(*words: str) -> str:
    """Run a command of the system. Raises NamespaceError with what it said."""
    done = subprocess.run(words, capture_output=True, check=False, timeout=20, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise NamespaceError(f"{' '.join(words)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace")


class AddressRange:
    """The addresses of one cloud: 10.77.x.0/24, from `open` on, of which nothing ever leaves by the default route."""

    def __init__(self) -> None:
        if reason := why_not():
            raise NamespaceError(reason)
        self.number = 0
        self._next = itertools.count(2)
        self._lock = threading.Lock()

    @property
    def gateway(self) -> str:
        """Our own address in it."""
        return f"10.77.{self.number}.1"

    @property
    def network(self) -> str:
        """The range, in CIDR notation."""
        return f"10.77.{self.number}.0/24"

    @property
    def clean_command(self) -> str:
        """A shell command that undoes `open`."""
        return (
            f"ip route del unreachable {self.network} metric 4000; ip addr del {self.gateway}/32 dev lo; true"
        )

    def open(self) -> None:
        """Take a range that is free: our own address in it, and no way out for the others.

        The route is the claim, as it can be added only once. Cables of a cloud that has just ended may be there
        a little longer than its route.
        """
        taken = run("ip", "route", "show", "type", "unreachable") + run("ip", "-o", "link", "show")
        free = [n for n in range(256) if f"10.77.{n}.0/24" not in taken and f" gpo{n}-" not in taken]
        random.SystemRandom().shuffle(free)
        for self.number in free:
            with contextlib.suppress(NamespaceError):
                run("ip", "route", "add", "unreachable", self.network, "metric", "4000")
                break
        else:
            raise NamespaceError("all of 10.77.0.0/16 is taken: `ip route show type unreachable`")
        try:
            run("ip", "addr", "add", f"{self.gateway}/32", "dev", "lo")
        except NamespaceError:
            self.close()
            raise

    def close(self) -> None:
        """Give the range back."""
        subprocess.run(["/bin/sh", "-c", self.clean_command], capture_output=True, check=False, timeout=20)

    def next_address(self) -> str:
        """Return an address that was never used."""
        with self._lock:
            number = next(self._next)
        if number > 254:
            raise NamespaceError(f"{self.network} is used up")
        return f"10.77.{self.number}.{number}"

    def cable(self, address: str) -> str:
        """The name of our end of an instance's cable."""
        return f"gpo{self.number}-{address.rpartition('.')[2]}"


@dataclass(slots=True)
class NamespaceMachine(Machine):
    """An instance's host in namespaces of its own.

    It has an address of 10.77.x.0/24 on a veth pair to this machine, an overlay over this machine's files that
    vanishes with it, and the metadata service at 169.254.169.254. When its first process dies, the kernel removes
    namespaces, cable and files.
    """

    range: AddressRange = field(default_factory=AddressRange)
    WRAPPER: ClassVar[tuple[str, ...]] = (
        "unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "--",
    )  # fmt: skip

    @property
    def isolated(self) -> bool:
        """Whether everything ends with the first process: always."""
        return True

    def cut(self) -> None:
        """Let a cable swallow every packet, in both directions."""
        self._shape("blackhole")

    def heal(self) -> None:
        """Undo `cut` and `slow_network`."""
        self._shape(None)

    def slow_network(self, bits_per_second: float) -> None:
        """Let the cable carry no more than this, either way.

        The queue holds two seconds. A short one drops so many packets that a connection may not get one through in
        five seconds, and ends.
        """
        rate = f"{max(int(bits_per_second), 8000)}bit"
        self._shape("tbf", "rate", rate, "burst", "32kbit", "latency", "2s")

    def full_disk(self) -> None:
        """Shrink the disk to what is on it: ENOSPC from now on."""
        for pid in self._init():
            disk = os.statvfs(Path(f"/proc/{pid}/root", "var"))
            # A smaller size would be refused, and none at all is no limit.
            used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
            options = f"remount,size={max(used, 4096)}"
            run("nsenter", "-t", str(pid), "-m", "--", "mount", "-o", options, str(self.folder / "disk"))

    def _shape(self, discipline: str | None, *options: str) -> None:
        """Set, or take away, the queueing discipline of both ends."""
        what = ("replace", "root", discipline, *options) if discipline else ("del", "root")
        verb, rest = what[0], what[1:]
        cable = self.range.cable(self.hardware.address)
        ends = [("tc", "qdisc", verb, "dev", cable, *rest)]
        ends += [
            ("nsenter", "-t", str(pid), "-n", "--", "tc", "qdisc", verb, "dev", "eth0", *rest)
            for pid in self._init()
        ]
        for command in ends:
            subprocess.run(command, capture_output=True, check=False, timeout=20, stdin=subprocess.DEVNULL)

    def _wrapper(self) -> tuple[str, ...]:
        return self.WRAPPER

    def _root(self) -> Path | None:
        return None

    def _addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return (self.hardware.address, SSH_PORT), METADATA

    def _metadata_url(self, address: tuple[str, int]) -> str:
        return f"http://{address[0]}"

    def _connect(self, process: "subprocess.Popen[bytes]") -> None:
        """Plug the cable in; the guest waits for it."""
        end = time.monotonic() + 60
        while not (pids := self._init()):
            if process.poll() is not None or time.monotonic() > end:
                raise NamespaceError(f"{self.hardware.instance_id} did not start: {self.console()[-500:]}")
            time.sleep(0.005)
        # The process may still be on its way into its own network.
        pid, cable, address = str(pids[0]), self.range.cable(self.hardware.address), self.hardware.address
        while Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            time.sleep(0.005)
        inside = (
            "ip link set lo up",
            f"ip addr add {METADATA[0]}/32 dev lo",
            f"ip addr add {address}/32 dev eth0",
            "ip link set eth0 up",
            f"ip route add {self.range.gateway} dev eth0",
            f"ip route add default via {self.range.gateway}",
        )
        # Made with its other end inside, so that no `eth0` ever appears among this machine's links.
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", pid)
        run("ip", "link", "set", cable, "up")
        run("ip", "route", "replace", f"{address}/32", "dev", cable)
        run("nsenter", "-t", pid, "-n", "--", "/bin/sh", "-ec", "; ".join(inside))
        (self.folder / "plugged").touch()
