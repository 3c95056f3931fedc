"""SIGINT and SIGTERM while something is rented: whatever this process does is left at once.

GitHub sends a cancelled step SIGINT, SIGTERM 7.5 s later and SIGKILL after another 2.5 s. A flag would be seen
when the call that happens to run returns; an exception leaves that call.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class EndingSignal(BaseException):
    """This process was told to end. No Exception, so that no library takes it for a fault of its own."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        super().__init__(self.name)


@contextmanager
def ending_signals(*, wanted: bool = True) -> Iterator[None]:
    """Raise EndingSignal in the main thread at the first signal; later ones are ignored, so that the end is orderly.

    Does nothing outside the main thread, where Python has no signals.
    """
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        for each in ENDING_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise EndingSignal(number)

    before = {number: signal.signal(number, end) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        # A process that is ending stays deaf to the signals that follow the first.
        if signal.getsignal(signal.SIGINT) is end:
            for number, handler in before.items():
                signal.signal(number, handler)
