"""Collects what the store refuses, and gives the attempt up when that lasts."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gpu_offload.errors import OffloadError
from gpu_offload.infra.store.errors import StoreCredentialsError, StoreDeniedError, StoreMissingError

DENIED_S = 300.0
"""How long a rented machine trains while the store denies what it writes: half the time after which a silent one is given
up, so that a policy that is being replaced costs nothing, and a machine that can keep nothing costs minutes."""

LASTING = (StoreDeniedError, StoreMissingError, StoreCredentialsError)
"""What waiting does not cure."""


class RefusedByStoreError(OffloadError):
    """The store denied what an attempt wrote until the attempt was given up; what it trained meanwhile is not kept."""


@dataclass
class Trouble:
    """The troubles of one attempt with its store, by what was written. Used from several threads.

    Attributes:
        note: Gets the trouble in a sentence, each time that it changes; empty once it is over.
        stop: Called once with the reason when the attempt is given up.
        limit_s: Seconds of denial after which that happens; infinity where it costs nothing to go on.
        given_up: The reason, None while it is not.
    """

    note: Callable[[str], None] = lambda _text: None
    stop: Callable[[str], None] = lambda _reason: None
    limit_s: float = math.inf
    given_up: str | None = None
    _why: dict[str, tuple[type[Exception], str]] = field(default_factory=dict)
    _denied_since: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def took(self, what: str) -> None:
        """Note that the store took something, such as `heartbeat`."""
        with self._lock:
            self._denied_since.pop(what, None)
            if self._why.pop(what, None) is not None:
                self.note(next((text for _, text in self._why.values()), ""))

    def refused(self, what: str, error: Exception) -> None:
        """Note that the store did not take something; give the attempt up where it denied it for too long."""
        now = time.monotonic()
        text = f"the store did not take the {what}: {error}"
        with self._lock:
            if not isinstance(error, LASTING):
                text += "; it is tried again"
            else:
                since = self._denied_since.setdefault(what, now)
                if now - since >= self.limit_s and self.given_up is None:
                    self.given_up = (
                        f"{text}; for {(now - since) / 60:.0f} min, so what it trains cannot be kept"
                    )
                    self.stop(self.given_up)
                if not math.isinf(self.limit_s):
                    end = time.gmtime(time.time() + self.limit_s - (now - since))
                    text += f"; if that lasts, the training stops at {time.strftime('%H:%M', end)} UTC"
            # Noted once for each kind of error: the time until the end, in the text, changes with every try.
            if self._why.get(what, (None, ""))[0] is not type(error):
                self._why[what] = type(error), text
                self.note(text)
