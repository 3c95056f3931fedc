"""Delayed and repeated calls: one thread, one heap."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Timers:
    """Calls functions at their time, one after the other, in a thread of its own."""

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._on_error = on_error
        self._thread = threading.Thread(target=self._run, name="simulated-cloud-timers", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call `call` in `seconds`."""
        with self._changed:
            # The count orders calls of the same moment; functions cannot be compared.
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._count), call))
            self._changed.notify()

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Call `call` again and again, first in `seconds`."""

        def again() -> None:
            try:
                call()
            finally:
                self.after(seconds, again)

        self.after(seconds, again)

    def stop(self) -> None:
        """Cancel what is due later, and wait for a running call."""
        with self._changed:
            self._stopped = True
            self._heap.clear()
            self._changed.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._stopped:
                if not self._heap:
                    self._changed.wait()
                elif (wait := self._heap[0][0] - time.monotonic()) > 0:
                    self._changed.wait(wait)
                else:
                    return heapq.heappop(self._heap)[2]
        return None

    def _run(self) -> None:
        while (call := self._next()) is not None:
            try:
                call()
            except Exception as error:  # noqa: BLE001  a failed timer must not stop the others
                self._on_error(error)
