"""Why and when a training should stop before it is done: signals, a dead parent, a spot notice."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from gpu_offload.errors import ResumableError
from gpu_offload.infra.signals import handled


class InterruptedTrainingError(ResumableError):
    """The training was asked to stop and left a state that a later run resumes."""


class Interruption:
    """A request to stop, from any thread; the training stops at its next boundary.

    Boundaries are the ends of batches, in training and in validation. Stages that have none and change
    nothing that lasts (imports, scanning) run inside `at_once`, which an interruption leaves immediately.
    """

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._reason: str | None = None
        self._at_once = False
        self._handles_signals = False

    @property
    def requested(self) -> bool:
        """Whether the training should stop."""
        return self._requested.is_set()

    @property
    def reason(self) -> str | None:
        """Why it should stop, in a sentence; the first reason counts."""
        return self._reason

    def request(self, reason: str) -> None:
        """Ask the training to stop at its next boundary."""
        if self._requested.is_set():
            return
        self._reason = reason
        self._requested.set()
        # An exception can be raised in the main thread only by the main thread, in its signal handler.
        if (
            self._at_once
            and self._handles_signals
            and threading.current_thread() is not threading.main_thread()
        ):
            os.kill(os.getpid(), signal.SIGTERM)

    def check(self) -> None:
        """Raise InterruptedTrainingError if the training should stop."""
        if self._requested.is_set():
            raise InterruptedTrainingError(self._reason or "interrupted")

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Run a stage that may be left at any point."""
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False
        self.check()

    @contextlib.contextmanager
    def unwrapped(self) -> Iterator[None]:
        """Restore our own exception if a library wrapped it.

        Ultralytics, for one, turns anything that is raised while it builds a dataset into a RuntimeError. Taken
        for a failure of the training, that would end the run; it was only asked to stop.
        """
        try:
            yield
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None:
                if isinstance(cause, InterruptedTrainingError):
                    raise cause from None
                cause = cause.__cause__ or cause.__context__
            raise

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Take SIGINT, SIGTERM and SIGHUP as a request to stop, except those that are ignored.

        Does nothing outside the main thread.
        """

        def handle(number: int, _frame: FrameType | None) -> None:
            self.request(f"received {signal.Signals(number).name}")
            if self._at_once:
                self._at_once = False
                self.check()

        with handled(handle):
            self._handles_signals = signal.getsignal(signal.SIGTERM) is handle
            try:
                yield
            finally:
                self._handles_signals = False

    def watch_parent(self) -> threading.Thread:
        """Take the end of standard input as the death of the parent process, and start watching for it.

        A parent that is killed cannot signal its children, but the kernel closes its end of the pipe.
        """

        def watch() -> None:
            descriptor = sys.stdin.fileno()
            with contextlib.suppress(OSError):
                while os.read(descriptor, 4096):
                    pass
            self.request("the process that started the training is gone")

        thread = threading.Thread(target=watch, name="parent-watch", daemon=True)
        thread.start()
        return thread
