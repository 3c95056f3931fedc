"""Turns the first ending signal into an exception while a run is driven.

GitHub sends SIGINT to a cancelled step, SIGTERM 7.5 s later and SIGKILL 2.5 s after that. A flag would be seen only
when the current call returns; an exception interrupts that call.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from gpu_offload.infra.signals import ENDING_SIGNALS, handled, signal_text


class EndingSignal(BaseException):
    """This process received an ending signal. Not an Exception, so that no library handles it as its own fault."""

    def __init__(self, number: int) -> None:
        self.by = signal_text(number)
        super().__init__(self.by)


@contextmanager
def ending_signals() -> Iterator[None]:
    """Raise EndingSignal in the main thread at the first ending signal, and ignore further ones in this context.

    Handle the exception inside the context, so that a second Ctrl-C cannot interrupt the cleanup. Signals that were
    ignored stay ignored (`infra.signals.handled`).
    """

    def end(number: int, _frame: FrameType | None) -> None:
        for each in ENDING_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise EndingSignal(number)

    with handled(end):
        yield
