"""Retries effects on a store or a cloud that cannot be reached."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from gpu_offload.infra.store.errors import StoreUnreachableError
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import CloudUnreachableError

T = TypeVar("T")

LIMIT_S = 900.0
"""How long to wait for an unreachable store or cloud: the training continues without it."""

LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Repeats an effect while store or cloud do not answer, with growing pauses."""

    console: Console
    clock: Callable[[], float]
    sleep: Callable[[float], None]

    def __call__(self, effect: Callable[[], T]) -> T:
        """Return what the effect returns. Raises StoreUnreachableError, CloudUnreachableError after LIMIT_S."""
        since, pause = self.clock(), 1.0
        while True:
            try:
                return effect()
            except (StoreUnreachableError, CloudUnreachableError) as error:
                # An effect that lasted longer, such as a training, is not repeated.
                if self.clock() - since > LIMIT_S:
                    raise
                self.console.warning(f"{error}; trying again in {pause:.0f} s")
                self.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
