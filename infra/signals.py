"""Signal handlers that last for a while and respect what was ignored before."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C or a cancelled workflow; a plain `kill`, a shutdown; a terminal or SSH session that closed."""

NAMES = {signal.SIGINT: "Ctrl-C (SIGINT)", signal.SIGHUP: "a closed terminal (SIGHUP)"}


def signal_text(number: int) -> str:
    """Return a signal by what sends it, for people."""
    return NAMES.get(signal.Signals(number), signal.Signals(number).name)


_BECOME = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(143)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    print(f"offload: {sys.argv[2]}: {error.strerror}", file=sys.stderr)
    sys.exit(127 if isinstance(error, FileNotFoundError) else 126)
"""
"""Becomes a command, after asking Linux for SIGTERM (15) should the parent die (PR_SET_PDEATHSIG, 1). The parent may have
died just before. Linux means the parent's thread: the main thread has to start the command."""


def ending_with_us(command: Sequence[str]) -> list[str]:
    """Return a command, for this process to start, that gets SIGTERM should this process die. Linux only."""
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *command]


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Call `handler` for each of ENDING_SIGNALS until the context ends.

    A signal that is ignored stays ignored. A shell without job control starts background jobs with SIGINT ignored,
    so that Ctrl-C ends only the foreground job; `nohup` ignores SIGHUP, so that the command survives its terminal.
    A handler that was not installed from Python stays, because Python could not restore it.

    Does nothing outside the main thread, where Python allows no handlers.
    """
    # Python runs handlers in the main thread, and lets only that one install them.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: previous
        for number in ENDING_SIGNALS
        if (previous := signal.getsignal(number)) not in {signal.SIG_IGN, None}
    }
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
