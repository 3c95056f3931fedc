"""Holds a training to its limits: warns early, and stops a training on this machine."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import Ending
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.next_step import next_step
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt
from gpu_offload.orchestrator.run.pace import goes_to_its_limit, overrun
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.step import CloseAttempt
from gpu_offload.remote_job.result import Heartbeat

STOP_LOOK_S = 20.0
"""Seconds between two checks for a stop request while the training runs on this machine."""

CONSEQUENCES = {
    "stop": "Once that is certain it stops, and keeps its checkpoint",
    "escalate": "Once that is certain it moves to an offer that makes it, or stops, and keeps its checkpoint",
    "continue": "It goes on until then, and keeps its checkpoint",
}
"""By `limits.on-overrun`."""


@dataclass(slots=True)
class LimitWatch:
    """Watches the limits of one run for one driver."""

    run: RunRecord
    journal: Journal
    console: Console
    clock: Callable[[], float]
    _doubted: int = 0
    """The last attempt that was warned about."""

    def warn(self, observation: Observation) -> None:
        """Warn once, and early, that an attempt will more likely than not exceed a limit, and say what follows."""
        current = observation.current
        if current is None or current.record.number == self._doubted or observation.driver is not None:
            return
        why = overrun(self.run, observation, current, likely=True)
        if why is None:
            return
        self._doubted = current.record.number
        consequence: str = self.run.on_overrun
        if goes_to_its_limit(self.run, current.record.offer):
            consequence = "continue"
        self.console.warning(f"it may not make it: {why}. {CONSEQUENCES[consequence]}")

    def judge(
        self, observation: Observation, attempt: ObservedAttempt
    ) -> Callable[[Heartbeat | None], Ending | None]:
        """Return the function that decides from the latest heartbeat why a training here must end, or None."""
        stop, looked_at = observation.stop, observation.now

        def judged(beat: Heartbeat | None) -> Ending | None:
            nonlocal stop, looked_at
            if beat is not None and beat.state in {"finished", "failed", "interrupted"}:
                return None  # it ends by itself, and says why
            now = self.clock()
            if stop is None and now - looked_at >= STOP_LOOK_S:
                looked_at = now
                with contextlib.suppress(StoreError):
                    stop = self.journal.stop_requested(self.run.id)
            # The heartbeat is newer than the checkpoint that the observation saw.
            kept = max(observation.epochs_completed, beat.epochs_completed if beat else 0)
            view = replace(
                observation,
                now=now,
                stop=stop,
                attempts=(*observation.attempts[:-1], replace(attempt, heartbeat=beat)),
                # Seen before the training began, and not again: what was shutting down must not keep this one going.
                instances=tuple(replace(i, state="terminated") for i in observation.instances),
                epochs_completed=kept,
            )
            self.warn(view)
            step = next_step(self.run, view)
            return (step.reason, step.message) if isinstance(step, CloseAttempt) else None

        return judged
