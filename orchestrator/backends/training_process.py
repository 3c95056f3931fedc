"""The process of a training on this machine, with its signals, output, lease and limits."""

import math
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import IO

from gpu_offload.infra.signals import handled
from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.run.backend import Ending
from gpu_offload.orchestrator.run.events import parse_events
from gpu_offload.orchestrator.run.lease import RENEW_S
from gpu_offload.remote_job.result import ProgressEvent

LONGEST_LINE = 1 << 16
"""Characters of a line of output that are looked at together."""
LOOK_S = 1.0
"""Seconds between two looks at a training's heartbeat, a file on this machine."""
AGAIN_S = 1.0
"""Seconds after which a second Ctrl-C is one: before, a wrapper may pass on the one that the terminal sent."""
KEEP_S = 120.0
"""How long a training that is stopped may take to reach the end of its batch and to upload its checkpoint."""


class TrainingProcess(subprocess.Popen[str]):
    """The process that trains."""

    told: int | None = None
    """The ending signal that we passed on."""
    verdict: Ending | None = None
    mirror_code: int = 0
    """The exit code of the process that mirrors it to the store, where another one does."""

    def __init__(self, command: list[str], *, env: Mapping[str, str] | None = None) -> None:
        # In a session of its own: a terminal's Ctrl-C would otherwise reach it twice, by its group and by us.
        super().__init__(
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    @property
    def code(self) -> int:
        """How it ended: 0 where it trained and all of it is in the store; negative after a signal."""
        return self.returncode

    def stop(self, reason: str) -> None:
        """Ask the training to stop with a checkpoint at the end of its batch."""
        del reason  # it gives its own: the signal
        self.terminate()

    def end(self) -> None:
        """Kill it with all its processes; the checkpoint of the last complete epoch is kept."""
        os.killpg(self.pid, signal.SIGKILL)


@contextmanager
def passing_signals_on(process: TrainingProcess) -> Iterator[None]:
    """Pass ending signals on to the training as SIGTERM, which leaves a resumable state; a second Ctrl-C kills it."""
    first = math.inf

    def pass_on(number: int, _frame: FrameType | None) -> None:
        nonlocal first
        process.told = process.told or number
        # Its process group is gone, and its number can be another process's.
        if process.poll() is not None:
            return
        now = time.monotonic()
        if number == signal.SIGINT and now - first > AGAIN_S:
            process.end()
            return
        first = min(first, now)
        process.stop(f"received {signal.Signals(number).name}")

    with handled(pass_on):
        yield


@contextmanager
def renewing(renew: Callable[[], object]) -> Iterator[None]:
    """Renew the lease in the background."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(RENEW_S):
            renew()

    with beside(work, over, "lease"):
        yield


@contextmanager
def judging(process: TrainingProcess, judge: Callable[[], Ending | None]) -> Iterator[None]:
    """Ask once a second whether the training may go on; stop it, gently at first, where it may not."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(LOOK_S):
            process.verdict = judge()
            if process.verdict is None:
                continue
            process.stop(process.verdict[1])
            if not over.wait(KEEP_S):
                process.end()
            return

    with beside(work, over, "limits"):
        yield


@contextmanager
def beside(work: Callable[[], None], over: threading.Event, name: str) -> Iterator[None]:
    """Let a thread work until `over`, which the end of the block sets."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def events_of(process: "TrainingProcess") -> Iterator[ProgressEvent]:
    """Return the progress that the training prints; other lines are the user code's own output."""
    return parse_events(lines_of(process.stdout))


def lines_of(stream: IO[str] | None) -> Iterator[str]:
    """Yield a stream's lines; one without an end comes in pieces, so that it fills no memory."""
    return iter(lambda: stream.readline(LONGEST_LINE), "") if stream is not None else iter(())


def drain(process: "TrainingProcess", tail: deque[str]) -> None:
    """Keep the last lines of a process's standard error in `tail`."""
    for line in lines_of(process.stderr):
        tail.append(plain(line.rstrip("\n")))
