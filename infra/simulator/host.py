"""The machine behind an instance: processes on this machine, with a real SSH server.

`Machine` is a host without root: its own loopback address, folder, SSH server and metadata service, in a PID
namespace of its own where the kernel allows that to everybody. See `infra.simulator.namespace` for root's.
"""

import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpu_offload.infra.simulator.guest import MARK, marked
from gpu_offload.infra.simulator.isolation import SSH_USER, isolation, passwd
from gpu_offload.infra.simulator.link import Link, Network

PACKAGE = Path(__file__).resolve().parents[2]
"""Where `import infra` finds us: what the image has baked in."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FREEZE = 0.3, 0.1
"""A slow disk: seconds frozen, seconds running, in turn."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a host is made of: everything that the launch decides."""

    instance_id: str
    instance_type: str
    address: str
    user_data: bytes
    folder: Path
    endpoint: str
    """URL of the cloud's API, as seen from the instance."""
    ssh_port: int
    baked: Mapping[str, str]
    """What the image's marker `/opt/gpu-offload/baked` says; empty for no marker."""
    environment: Mapping[str, str]
    """More variables for everything that runs on it."""
    grace: float


def baked_software() -> dict[str, str]:
    """What an image made from this very code says of itself: version, lock and interpreter."""
    try:
        release = version("gpu-offload")
    except PackageNotFoundError:
        release = "0"
    lock = PACKAGE / "infra" / "instance" / "requirements.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else ""
    return {"version": release, "lock": digest, "python": sys.executable}


@dataclass(slots=True)
class Machine:
    """An instance's host. `on_exit` is told why it went down: `poweroff`, `reboot`, `acpi` or `` (crash)."""

    hardware: Hardware
    network: Network
    on_exit: Callable[[str], None]
    use_sshd: bool = True
    link: Link | None = None
    _process: "subprocess.Popen[bytes] | None" = None
    _lifeline: int | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _slow: threading.Event = field(default_factory=threading.Event)
    _frozen: threading.Thread | None = None

    @property
    def folder(self) -> Path:
        """Everything this host has on disk."""
        return self.hardware.folder

    def start(self, metadata: dict[str, str]) -> None:
        """Switch on. Returns at once; the boot goes on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.set_metadata(metadata)
        (self.folder / "exit").unlink(missing_ok=True)
        (self.folder / "user-data").write_bytes(self.hardware.user_data)
        self._prepare()
        reading, writing = os.pipe()
        try:
            with (self.folder / "console.log").open("ab") as console:
                process = subprocess.Popen(
                    [
                        *self._wrapper(),
                        sys.executable,
                        "-P",
                        "-m",
                        "gpu_offload.infra.simulator.guest",
                        str(self.folder),
                        str(reading),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    env=self._environment(),
                    pass_fds=(reading,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        with self._lock:
            self._process, self._lifeline = process, writing
        self._connect(process)
        threading.Thread(target=self._watch, args=(process,), daemon=True, name="simulated-host").start()

    @property
    def isolated(self) -> bool:
        """Whether it has a PID namespace, so that everything ends with the first process."""
        return bool(isolation().wrapper)

    def set_metadata(self, values: dict[str, str]) -> None:
        """Replace what the metadata service says."""
        if self.folder.exists():
            part = self.folder / "metadata.json.part"
            part.write_text(json.dumps(values))
            part.replace(self.folder / "metadata.json")

    def console(self) -> str:
        """What the boot has printed so far."""
        try:
            return (self.folder / "console.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    @property
    def alive(self) -> bool:
        """Whether it is switched on."""
        process = self._process
        return process is not None and process.poll() is None

    def power_button(self) -> None:
        """Ask the operating system to go down, as the cloud does before it takes the power."""
        self._slow.clear()
        for pid in self._init():
            _signal(pid, signal.SIGCONT)
            _signal(pid, signal.SIGTERM)

    def kill(self) -> None:
        """Take the power; returns when nothing of it runs any more."""
        self._slow.clear()
        with self._lock:
            process = self._process
            lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)
        if process is not None:
            if self.isolated:
                _signal(process.pid, signal.SIGKILL)
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=5)
        self._kill_rest()

    def unplug(self) -> None:
        """A power loss: whoever is connected hears nothing."""
        self.cut()
        self.kill()

    def close(self) -> None:
        """Take the power and leave nothing."""
        self.kill()
        if self.link is not None:
            self.link.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def cut(self) -> None:
        """Cut the network silently."""
        if self.link is not None:
            self.link.cut()

    def heal(self) -> None:
        """Undo `cut` and `slow_network`."""
        if self.link is not None:
            self.link.heal()
            self.link.slow(None)

    def slow_network(self, bits_per_second: float) -> None:
        """Let the network be no faster than this."""
        if self.link is not None:
            self.link.slow(bits_per_second)

    def slow_disk(self) -> None:
        """Let everything stand still most of the time, as if it waited for its disk. SSH's connections stay."""
        self._slow.set()
        if self._frozen is None or not self._frozen.is_alive():
            self._frozen = threading.Thread(target=self._stutter, daemon=True)
            self._frozen.start()

    def full_disk(self) -> None:
        """Let no process write a byte more into a file: EFBIG here, where a full disk says ENOSPC."""
        (self.folder / "full-disk").touch()
        for pid in self.processes():
            try:
                hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
            except (OSError, ValueError):
                continue

    def kill_ssh(self) -> None:
        """End the SSH server, whichever it is, and its sessions."""
        marks = (
            str(self.folder / "ssh" / "sshd_config").encode(),
            b"gpu_offload.infra.simulator.ssh_server",
            b"sshd:",
            b"sshd-session:",
        )
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if any(mark in Path(f"/proc/{pid}/cmdline").read_bytes() for mark in marks):
                    os.kill(pid, signal.SIGKILL)

    def processes(self) -> list[int]:
        """Every process of the instance but its first."""
        first = {*self._init(), *([self._process.pid] if self._process else [])}
        return [pid for pid in marked(self.folder) if pid not in first]

    def _stutter(self) -> None:
        frozen, running = FREEZE
        while self._slow.is_set() and self.alive:
            stopped = self.processes()
            for pid in stopped:
                _signal(pid, signal.SIGSTOP)
            time.sleep(frozen)
            for pid in stopped:
                _signal(pid, signal.SIGCONT)
            time.sleep(running)

    def _init(self) -> list[int]:
        """The instance's first process, as this machine numbers it."""
        process = self._process
        if process is None or process.poll() is not None:
            return []
        if not self.isolated:
            return [process.pid]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            return [int(pid) for pid in children.read_text().split()]
        except OSError:
            return []

    def _kill_rest(self) -> None:
        """Where no namespace ends them with their first process: all that carry the mark."""
        for _ in range(200):
            left = marked(self.folder)
            if not left:
                return
            for pid in left:
                _signal(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        with self._lock:
            if self._process is not process or self._lifeline is None:
                return  # it was us who took the power
            os.close(self._lifeline)
            self._lifeline = None
        self._kill_rest()
        try:
            why = (self.folder / "exit").read_text()
        except FileNotFoundError:
            why = ""
        self.on_exit(why)

    def _wrapper(self) -> tuple[str, ...]:
        return isolation().wrapper

    def _root(self) -> Path | None:
        """The folder that the instance's absolute paths are mapped into; None for a file system of its own."""
        return self.folder / "root"

    def _addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Where the SSH server and the metadata service listen."""
        ports = [_free_port(self.hardware.address) for _ in range(2)]
        return (self.hardware.address, ports[0]), (self.hardware.address, ports[1])

    def _metadata_url(self, address: tuple[str, int]) -> str:
        return f"http://{address[0]}:{address[1]}"

    def _prepare(self) -> None:
        """Write what the guest reads."""
        root = self._root()
        if root is not None:
            root.mkdir(exist_ok=True)
        own = isolation()
        home = f"{root or ''}/home/{SSH_USER}"
        (self.folder / "passwd").write_text(passwd(home))
        ssh, metadata = self._addresses()
        environment = {
            **self._environment(),
            "HOME": home,
            "USER": own.user,
            "LOGNAME": own.user,
            "GPU_OFFLOAD_ROOT": str(root) if root else "/",
            "GPU_OFFLOAD_SHUTDOWN": f"{self.folder}/bin/shutdown",
            "GPU_OFFLOAD_POLL": "0.5",
            **({"GPU_OFFLOAD_SAME_USER": "1"} if root else {}),
            "AWS_ENDPOINT_URL": self.hardware.endpoint,
            **({"AWS_EC2_METADATA_SERVICE_ENDPOINT": self._metadata_url(metadata)} if root else {}),
            **self.hardware.environment,
        }
        document: dict[str, Any] = {
            "instance_id": self.hardware.instance_id,
            "instance_type": self.hardware.instance_type,
            "ssh": ssh,
            "metadata": metadata,
            "root": str(root) if root else None,
            "passwd": own.users and root is not None,
            "sshd": own.sshd if self.use_sshd else None,
            "baked": dict(self.hardware.baked),
            "grace": self.hardware.grace,
            "environment": environment,
        }
        (self.folder / "instance.json").write_text(json.dumps(document))

    def _environment(self) -> dict[str, str]:
        """What every process of the instance gets; nothing of ours leaks into it."""
        return {
            MARK: str(self.folder),
            "PATH": f"{self.folder}/bin:{Path(sys.executable).parent}:{SYSTEM_PATH}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
        }

    def _connect(self, process: "subprocess.Popen[bytes]") -> None:  # noqa: ARG002  the namespace needs it
        """Make the SSH server reachable at the public address."""
        if self.link is not None:
            self.link.close()
        there = tuple(json.loads((self.folder / "instance.json").read_text())["ssh"])
        self.link = Link(self.network, (self.hardware.address, self.hardware.ssh_port), there)
        self.link.start()


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, or on its way
        os.kill(pid, number)
