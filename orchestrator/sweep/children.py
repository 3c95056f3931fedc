"""The processes of a sweep: each is an ordinary `offload train` or `offload stop`, which a signal ends resumably."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gpu_offload.infra.signals import ending_with_us
from gpu_offload.orchestrator.output.console import Console, plain

COMMAND = (sys.executable, "-P", "-m", "gpu_offload.orchestrator.cli")
EPOCH = re.compile(r"\s*epoch \d+/\d+ ")
"""A line of a training that says how far it is."""
TAIL_LINES = 20
POLL_S = 0.1
ENDING_S = 180.0
"""How long a process may take to keep its checkpoint and to terminate its instance."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended. `error` is the error object of a command that failed, empty where it printed none."""

    code: int
    error: dict[str, Any]
    tail: str

    @property
    def message(self) -> str:
        """Why it failed, in words."""
        return str(self.error.get("message") or self.tail or f"exit code {self.code}")


@dataclass
class Child:
    """A command at work. What it says goes to the console as details, its epochs as progress, with a name before each line."""

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
        # A session of its own: a terminal's Ctrl-C reaches it once, through us.
        self.process = subprocess.Popen(
            ending_with_us(command) if sys.platform == "linux" else command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        for work in (self._tell, self._keep):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            self._readers.append(thread)

    def _tell(self) -> None:
        if self.process.stderr is None:
            return
        with self.process.stderr as stream:
            for line in stream:
                text = plain(line.rstrip())
                self._said.append(text)
                if not self.console.verbose and EPOCH.match(text):
                    self.console.progress(self.name, text.strip())
                self.console.detail(f"{self.name}: {text}")

    def _keep(self) -> None:
        if self.process.stdout is not None:
            with self.process.stdout as stream:
                self._printed += stream

    def poll(self) -> Ended | None:
        """Return how it ended, None while it works."""
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

    def tell(self, number: int = signal.SIGTERM) -> None:
        """Pass a signal on."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it and all that it started, at once; what it rented is left to the run's own time limit and `tend`."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass
class Children:
    """The commands at work. A signal that came is passed on to all of them, also to one that was just being started."""

    console: Console
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    signal: int | None = None
    _working: list[Child] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._working)

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._working))

    def of(self, trial: int, training: int) -> Child | None:
        """Return the command that works on a training."""
        return next((c for c in self._working if (c.trial, c.training) == (trial, training)), None)

    def add(self, child: Child) -> None:
        """Count a command that was started."""
        self._working.append(child)
        if self.signal is not None:  # it came while the process was being started
            child.tell(self.signal)

    def on_signal(self, number: int) -> None:
        """Keep a signal, and pass it on."""
        self.signal = number
        for child in self._working:
            child.tell(number)

    def take_ended(self) -> Iterator[tuple[Child, Ended]]:
        """Yield the commands that have ended, and forget them."""
        for child in self:
            ended = child.poll()
            if ended is not None:
                self._working.remove(child)
                yield child, ended

    def end(self) -> None:
        """Let the commands end, each with a resumable state, and wait for them."""
        if self._working:
            self.console.note(f"waiting for {len(self._working)} trainings to stop")
        for child in self._working:
            child.tell()
        until = self.clock() + ENDING_S
        while any(child.poll() is None for child in self._working) and self.clock() < until:
            self.sleep(POLL_S)
        for child in self._working:
            child.kill()
        self._working.clear()
