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
    """A drill could not be held, or what should have happened by now has not."""


class Command:
    """An `offload` command at work; each line that it says is kept with its time."""

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
        """Return its exit code. Raises DrillError where it takes too long."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise DrillError(f"no end after {seconds:.0f} s; it said last: {self.last_words()}") from None
        self._reader.join(5)
        return code

    def last_words(self) -> str:
        """Return the end of what it said."""
        return " / ".join(line.strip() for _, line in self.lines[-3:])

    def tell(self, number: signal.Signals) -> float:
        """Send a signal, as GitHub does: to this process only; return when, Unix seconds."""
        at = time.time()
        self.process.send_signal(number)
        return at

    def epoch_after(self, at: float) -> float | None:
        """Return when it next told of an epoch."""
        return next((when for when, line in self.lines if when > at and EPOCH.match(line)), None)

    def end(self) -> None:
        """End it and what it started, if it still runs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._reader.join(5)
