"""The first process of a simulated instance: `python -m gpu_offload.infra.simulator.guest FOLDER LIFELINE`."""

import contextlib
import ctypes
import json
import os
import signal
import sys
import sysconfig
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from gpu_offload.infra.simulator.guest_processes import marked
from gpu_offload.infra.simulator.guest_root import add_user, enter_own_root, open_way
from gpu_offload.infra.simulator.metadata_server import MetadataServer

PR_SET_CHILD_SUBREAPER, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 36, 47, 4
MS_BIND = 4096

SHIMS = {
    "shutdown": "shutdown",
    "poweroff": "shutdown -P now",
    "halt": "shutdown -H now",
    "reboot": "shutdown -r now",
}
SHIM = """#!/bin/sh
printf '%s\\n' "{command} $*" >'{control}'
"""


def say(text: str) -> None:
    """Write a line to the console, with the seconds since the start, as a kernel does."""
    print(f"[{time.monotonic() - _START:12.6f}] {text}", flush=True)  # noqa: T201  the console is our output


_START = time.monotonic()


def due(arguments: list[str], now: datetime) -> tuple[str, float] | None:
    """Parse a `shutdown` command line: the action and its delay in seconds; None cancels.

    After shutdown(8): `now`, `+MINUTES` or `HH:MM`, one minute where nothing is said. Raises ValueError.
    """
    action = "poweroff"
    words: list[str] = []
    for word in arguments:
        match word:
            case "-c":
                return None
            case "-r" | "--reboot":
                action = "reboot"
            case "-H" | "--halt" | "-h" | "-P" | "--poweroff" | "--no-wall":
                pass
            case _ if word.startswith("-"):
                raise ValueError(f"shutdown: unknown option {word}")
            case _:
                words.append(word)
    when = words[0] if words else "+1"
    if when == "now":
        return action, 0.0
    if when.removeprefix("+").isdigit():
        return action, 60.0 * int(when.removeprefix("+"))
    clock = datetime.strptime(when, "%H:%M").time()  # noqa: DTZ007  a time of day
    at = datetime.combine(now.date(), clock, now.tzinfo)
    return action, (at + timedelta(days=at <= now) - now).total_seconds()


class Guest:
    """One instance from inside: its init process, and what a hypervisor does for a real one.

    Serves the metadata, carries out the user data, runs the SSH server, reaps processes, and powers off, with
    everything below it, on `shutdown`, on SIGTERM from the cloud, or when the cloud is gone: `lifeline` is the
    reading end of a pipe that only the cloud holds open, so its death ends the instance.

    `folder` holds `instance.json` (see `infra.simulator.instance_file`), `user-data` and `metadata.json`; it gets
    `console.log` (our standard output), `control` (a FIFO for power commands) and `exit` (why it went down).
    """

    def __init__(self, folder: Path, lifeline: int) -> None:
        self.folder = folder
        self.lifeline = lifeline
        self.config: dict[str, Any] = json.loads((folder / "instance.json").read_text())
        self.first = os.getpid() == 1
        """Whether we are PID 1 of a namespace, so that all ends with us."""
        self._timer: threading.Timer | None = None
        self._going = threading.Lock()

    def run(self) -> None:
        """Boot, then reap until the end."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if self.config["passwd"]:
            path = str(self.folder / "passwd").encode()
            if libc.mount(path, b"/etc/passwd", None, MS_BIND, None):
                say(f"no users of our own: {os.strerror(ctypes.get_errno())}")
        # A user namespace gives all capabilities, which the programs of an instance must not inherit.
        if os.geteuid() != 0:
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        if self.config["root"] is None:
            self._move_in()
        self._shims()
        address, port = self.config["metadata"]
        server = MetadataServer((address, port), self.folder / "metadata.json")
        say(f"Linux (simulated) {self.config['instance_id']} {self.config['instance_type']}: no GPU")
        # Before any thread starts: a fork copies only the thread that calls it.
        if os.fork() == 0:
            server.socket.close()
            os.close(self.lifeline)
            self._boot()
        signal.signal(
            signal.SIGTERM, lambda *_: threading.Thread(target=self.go_down, args=("acpi",)).start()
        )
        for target in (server.serve_forever, self._watch_lifeline, self._watch_control):
            threading.Thread(target=target, daemon=True).start()
        # As init does: orphans of this instance become children of its first process.
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                time.sleep(0.05)

    def _move_in(self) -> None:
        """Take on a file system and a network of our own, with users."""
        enter_own_root(self.folder)
        environment = self.config["environment"]
        add_user(environment["USER"], 0, "/bin/sh")
        if not open_way(Path(sys.executable), Path(__file__), Path(sysconfig.get_path("purelib"), "x")):
            say("the interpreter is closed to other users: the job runs as one")
            environment["GPU_OFFLOAD_SAME_USER"] = "1"
        while not (self.folder / "plugged").exists():
            time.sleep(0.005)

    def _shims(self) -> None:
        """Put the power commands in front of the machine's own."""
        control = self.folder / "control"
        if not control.exists():
            os.mkfifo(control, 0o600)
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        for name, command in SHIMS.items():
            path = programs / name
            path.write_text(SHIM.format(command=command, control=control))
            path.chmod(0o755)

    def _boot(self) -> None:
        """In a child: what cloud-init and systemd do. Never returns."""
        code = 1
        try:
            from gpu_offload.infra.simulator.guest_boot import boot

            boot(self.folder, self.config, say)
            code = 0
        except Exception as error:  # noqa: BLE001  every error belongs on the console
            say(f"boot failed: {type(error).__name__}: {error}")
        finally:
            sys.stdout.flush()
            os._exit(code)

    def _watch_lifeline(self) -> None:
        while os.read(self.lifeline, 1):
            pass
        self._end()

    def _watch_control(self) -> None:
        """Execute power commands; the FIFO is also open for writing, so that it never ends."""
        with os.fdopen(os.open(self.folder / "control", os.O_RDWR), "r") as control:
            for line in control:
                say(f"power: {line.strip()}")
                try:
                    self._plan(due(line.split()[1:], datetime.now().astimezone()))
                except ValueError as error:
                    say(str(error))

    def _plan(self, what: tuple[str, float] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if what is not None:
            action, seconds = what
            self._timer = threading.Timer(seconds, self.go_down, args=(action,))
            self._timer.daemon = True
            self._timer.start()

    def go_down(self, why: str) -> None:
        """Ask every process to end, wait a moment, power off."""
        if not self._going.acquire(blocking=False):
            return  # once only, and never released
        say(f"going down: {why}")
        with contextlib.suppress(OSError):
            part = self.folder / "exit.part"
            part.write_text(why)
            part.replace(self.folder / "exit")
        for pid in self._others():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + float(self.config["grace"])
        while time.monotonic() < end and self._others():
            time.sleep(0.02)
        self._end()

    def _end(self) -> None:
        """Exit at once; the kernel then ends every other process of PID 1's namespace."""
        # Again and again: a process may fork between the list and the signal.
        while not self.first and (others := self._others()):
            for pid in others:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        os._exit(0)

    def _others(self) -> list[int]:
        """Everything that runs in this instance but us: all of the namespace, or what carries our mark."""
        return [pid for pid in marked(self.folder, everything=self.first) if pid != os.getpid()]


if __name__ == "__main__":
    Guest(Path(sys.argv[1]), int(sys.argv[2])).run()
