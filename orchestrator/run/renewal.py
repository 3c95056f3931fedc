"""Keeps a driver's lease alive while it waits, and says when the store denies it."""

from dataclasses import dataclass

from gpu_offload.infra.store.errors import StoreError, StoreUnreachableError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.lease import Lease

AGAIN_S = 15.0
"""Seconds from a renewal that failed to the next try."""


@dataclass
class Renewal:
    """Renews the lease on one run; raises no StoreError, because the training goes on without it."""

    lease: Lease
    store: ObjectStore
    run: str
    console: Console
    _denial: str = ""
    _failed_at: float = -AGAIN_S

    def __call__(self) -> None:
        """Renew the lease if it is time."""
        now = self.lease.clock()
        if 0 <= now - self._failed_at < AGAIN_S:
            return
        try:
            self.lease.claim(self.store, self.run)
        except StoreError as error:
            self._failed_at = now
            if isinstance(error, StoreUnreachableError) or type(error).__name__ == self._denial:
                return
            self._denial = type(error).__name__
            self.console.warning(
                f"this driver cannot renew its lease on run {self.run}: {error}. The training goes on; unless that passes, "
                "this driver ends within minutes"
            )
        else:
            self._denial = ""
