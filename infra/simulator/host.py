"""The machine behind a simulated instance: processes on this machine, with a real SSH server."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gpu_offload.infra.simulator.hardware import Hardware
from gpu_offload.infra.simulator.instance_file import process_environment, write_instance
from gpu_offload.infra.simulator.isolation import isolation
from gpu_offload.infra.simulator.link import Link, LinkRelay
from gpu_offload.infra.simulator.processes import Processes, send


@dataclass(slots=True)
class Machine:
    """An instance's host, without root: a loopback address, a folder, an SSH server and a metadata service.

    It has a PID namespace of its own where the kernel allows that without root. `on_exit` gets the reason why it
    went down: `poweroff`, `reboot`, `acpi` or `` (crash). `infra.simulator.namespace` has the host for root.
    """

    hardware: Hardware
    network: LinkRelay
    on_exit: Callable[[str], None]
    use_sshd: bool = True
    link: Link | None = None
    _process: "subprocess.Popen[bytes] | None" = None
    _lifeline: int | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    processes: Processes = field(init=False)

    def __post_init__(self) -> None:
        self.processes = Processes(self.folder, self._first)

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
        # The guest ends when the writing end closes, which the kernel does should this process die.
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
                    env=process_environment(self.folder),
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
        """Return the console output so far."""
        try:
            return (self.folder / "console.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def power_button(self) -> None:
        """Ask the operating system to go down, as the cloud does before it takes the power."""
        self.processes.resume()
        for pid in self._init():
            send(pid, signal.SIGCONT)
            send(pid, signal.SIGTERM)

    def kill(self) -> None:
        """Take the power; returns when nothing of it runs any more."""
        self.processes.resume()
        with self._lock:
            process = self._process
            lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)
        # `unshare --kill-child` ends with all its processes; the guest without a namespace ends by its lifeline.
        if process is not None:
            if self.isolated:
                send(process.pid, signal.SIGKILL)
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=5)
        self.processes.kill()

    def unplug(self) -> None:
        """Lose power: open connections get no answer."""
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

    def full_disk(self) -> None:
        """Let no process write a byte more into a file: EFBIG here, where a full disk says ENOSPC."""
        (self.folder / "full-disk").touch()
        self.processes.limit_files()

    def _first(self) -> list[int]:
        """The processes that the instance cannot be without, while it is switched on."""
        process = self._process
        return [process.pid, *self._init()] if process is not None and process.poll() is None else []

    def _init(self) -> list[int]:
        """The instance's first process, as this machine numbers it."""
        process = self._process
        if process is None or process.poll() is not None:
            return []
        if not self.isolated:
            return [process.pid]
        # `unshare` forks the instance's first process, whose parent stays outside of the namespace.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            return [int(pid) for pid in children.read_text().split()]
        except OSError:
            return []

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        with self._lock:
            if self._process is not process or self._lifeline is None:
                return  # it was us who took the power
            os.close(self._lifeline)
            self._lifeline = None
        self.processes.kill()
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
        ssh, metadata = self._addresses()
        write_instance(
            self.hardware,
            root=self._root(),
            ssh=ssh,
            metadata=metadata,
            metadata_url=self._metadata_url(metadata),
            use_sshd=self.use_sshd,
        )

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
