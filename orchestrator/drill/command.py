"""The `offload` process that a drill starts, watches and kills."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from gpu_offload.errors import OffloadError

_OFFLOAD = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from gpu_offload.orchestrator.cli import main
main()
"""
FOREGROUND = (sys.executable, "-P", "-c", _OFFLOAD)
"""Starts `offload` as a foreground command: it takes SIGINT even where the drill, as a background job, ignores it."""
EPOCH = re.compile(r"^\s*epoch \d+/\d+ ")


class DrillError(OffloadError):
    """A drill could not run, or an expected event did not happen in time."""


class Command:
    """A running `offload` command; each line of its output is kept with its time."""

    def __init__(self, arguments: tuple[str, ...], folder: Path, environment: Mapping[str, str]) -> None:
        self.lines: list[tuple[float, str]] = []
        self.process = subprocess.Popen(
            [*FOREGROUND, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe, see above
        with self.process.stdout as output:
            for line in output:
                self.lines.append((time.time(), line.rstrip()))

    def wait(self, seconds: float) -> int:
        """Return its exit code. Raises DrillError if it takes too long."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise DrillError(f"no end after {seconds:.0f} s; it said last: {self.last_words()}") from None
        self._reader.join(5)
        return code

    def last_words(self) -> str:
        """Return the end of its output."""
        return " / ".join(line.strip() for _, line in self.lines[-3:])

    def tell(self, number: signal.Signals) -> float:
        """Send a signal to this process only, as GitHub does; return the time, Unix seconds."""
        at = time.time()
        self.process.send_signal(number)
        return at

    def epoch_after(self, at: float) -> float | None:
        """Return the time of its next epoch line."""
        return next((when for when, line in self.lines if when > at and EPOCH.match(line)), None)

    def end(self) -> None:
        """End the command and its children, if they still run."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._reader.join(5)
