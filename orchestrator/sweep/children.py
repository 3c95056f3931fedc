"""The processes of a sweep: each is an ordinary `offload train` or `offload stop`, which a signal ends resumably."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gpu_offload.infra.signals import ending_with_us
from gpu_offload.orchestrator.output.console import Console, plain

COMMAND = (sys.executable, "-P", "-m", "gpu_offload.orchestrator.cli")
EPOCH = re.compile(r"\s*epoch \d+/\d+ ")
"""A line of a training after an epoch."""
TAIL_LINES = 20
POLL_S = 0.1
ENDING_S = 180.0
"""Seconds that a process may take to save its checkpoint and to terminate its instance."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended. `error` is the error object of a failed command, empty if it printed none."""

    code: int
    error: dict[str, Any]
    tail: str

    @property
    def message(self) -> str:
        """Why it failed, in words."""
        return str(self.error.get("message") or self.tail or f"exit code {self.code}")


@dataclass
class Child:
    """A running command. Its messages go to the console as details, its epochs as progress, each line with its name."""

    arguments: Sequence[str]
    kind: Literal["train", "stop"]
    trial: int
    training: int
    name: str
    console: Console
    on_cpu: bool = False
    reserved_usd: float = 0.0
    process: "subprocess.Popen[str]" = field(init=False)
    _said: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    _printed: list[str] = field(default_factory=list)
    _readers: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        command = [*COMMAND, *self.arguments]
        # In its own session, so that a terminal's Ctrl-C reaches it once, through us.
        self.process = subprocess.Popen(
            # Linux can end a process with its parent, even if the parent is killed.
            ending_with_us(command) if sys.platform == "linux" else command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        # A thread for each stream: a full pipe that is not read would stop the command.
        for work in (self._read_messages, self._read_output):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            self._readers.append(thread)

    def _read_messages(self) -> None:
        if self.process.stderr is None:
            return
        with self.process.stderr as stream:
            for line in stream:
                text = plain(line.rstrip())
                self._said.append(text)
                if not self.console.verbose and EPOCH.match(text):
                    self.console.progress(self.name, text.strip())
                self.console.detail(f"{self.name}: {text}")

    def _read_output(self) -> None:
        if self.process.stdout is not None:
            with self.process.stdout as stream:
                self._printed += stream

    def poll(self) -> Ended | None:
        """Return how it ended, None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        for reader in self._readers:
            reader.join(timeout=5)
        try:
            document = json.loads("".join(self._printed))
        except ValueError:
            document = {}
        found = document.get("error") if isinstance(document, dict) else None
        said = [line.removeprefix("error: ") for line in self._said if line.startswith("error: ")]
        tail = (said or list(self._said) or [""])[-1]
        return Ended(128 - code if code < 0 else code, found if isinstance(found, dict) else {}, tail)

    def send(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it with its descendants. An instance that it rented ends by its own time limit, or by `tend`."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass
class Children:
    """The running commands. A signal is passed on to all of them, also to one that is just being started."""

    console: Console
    clock: Callable[[], float]
    signal: int | None = None
    _working: list[Child] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._working)

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._working))

    def of(self, trial: int, training: int) -> Child | None:
        """Return the command of a training, None if there is none."""
        return next((c for c in self._working if (c.trial, c.training) == (trial, training)), None)

    def add(self, child: Child) -> None:
        """Add a command that was started."""
        self._working.append(child)
        if self.signal is not None:  # it came while the process was being started
            child.send(self.signal)

    def on_signal(self, number: int) -> None:
        """Note a signal, and pass it on."""
        self.signal = number
        for child in self._working:
            child.send(number)

    def take_ended(self) -> Iterator[tuple[Child, Ended]]:
        """Yield and forget the commands that have ended."""
        for child in self:
            ended = child.poll()
            if ended is not None:
                self._working.remove(child)
                yield child, ended

    def end(self) -> None:
        """End the commands, each in a resumable state, and wait for them."""
        if self._working:
            self.console.note(f"waiting for {len(self._working)} trainings to stop")
        for child in self._working:
            child.send()
        until = self.clock() + ENDING_S
        while any(child.poll() is None for child in self._working) and self.clock() < until:
            time.sleep(POLL_S)
        for child in self._working:
            child.kill()
        self._working.clear()
