"""The events of a simulated cloud, in order."""

import threading
import time
from collections.abc import Callable

from gpu_offload.infra.simulator.behaviour import Event


class EventLog:
    """Events of one cloud; safe between threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def say(self, kind: str, subject: str, text: str) -> None:
        """Add an event that happens now."""
        with self._lock:
            self._events.append(Event(self._clock(), kind, subject, text))

    def all(self) -> tuple[Event, ...]:
        """Return the events so far."""
        with self._lock:
            return tuple(self._events)
