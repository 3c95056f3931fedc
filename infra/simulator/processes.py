"""The processes of a simulated machine, and faults that affect them."""

import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gpu_offload.infra.simulator.guest_processes import marked

FREEZE = 0.3, 0.1
"""A slow disk: seconds frozen, seconds running, in turn."""


class Processes:
    """All processes of one machine, known by the mark in their environment that holds its folder.

    `first` returns the processes that the machine cannot be without; none when it is switched off.
    """

    def __init__(self, folder: Path, first: Callable[[], list[int]]) -> None:
        self._folder = folder
        self._first = first
        self._slow = threading.Event()
        self._frozen: threading.Thread | None = None

    def others(self) -> list[int]:
        """Every process but the first."""
        first = {*self._first()}
        return [pid for pid in marked(self._folder) if pid not in first]

    def slow(self) -> None:
        """Freeze them most of the time."""
        self._slow.set()
        if self._frozen is None or not self._frozen.is_alive():
            self._frozen = threading.Thread(target=self._stutter, daemon=True)
            self._frozen.start()

    def resume(self) -> None:
        """End `slow`."""
        self._slow.clear()

    def limit_files(self) -> None:
        """Keep them from writing to files."""
        for pid in self.others():
            try:
                # The soft limit only: raising the hard one again would need root.
                hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
            except (OSError, ValueError):
                continue

    def kill_ssh(self) -> None:
        """Kill the SSH server, sshd or our own, and its sessions."""
        # sshd overwrites its command line with a title, which newer versions begin differently.
        marks = (
            str(self._folder / "ssh" / "sshd_config").encode(),
            b"gpu_offload.infra.simulator.ssh_server",
            b"sshd:",
            b"sshd-session:",
        )
        for pid in self.others():
            with contextlib.suppress(OSError):
                if any(mark in Path(f"/proc/{pid}/cmdline").read_bytes() for mark in marks):
                    os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill all of them, the first included, until none is left."""
        for _ in range(200):
            left = marked(self._folder)
            if not left:
                return
            for pid in left:
                send(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _stutter(self) -> None:
        frozen, running = FREEZE
        while self._slow.is_set() and self._first():
            stopped = self.others()
            for pid in stopped:
                send(pid, signal.SIGSTOP)
            time.sleep(frozen)
            for pid in stopped:
                send(pid, signal.SIGCONT)
            time.sleep(running)


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
