"""Revises a run's estimate by what its training reports: after the first steps, and after each epoch."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from gpu_offload.orchestrator.estimate.correction import Estimate, remaining_note
from gpu_offload.orchestrator.estimate.forecast import ForecastPosition, forecast
from gpu_offload.orchestrator.estimate.workload import Workload
from gpu_offload.orchestrator.output.epoch import Revised
from gpu_offload.orchestrator.run.pace import workload_of
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.remote_job.result import ProgressEvent

TOLD_AGAIN = 0.1
"""Relative change of the whole time that is logged again."""

PLANNING_LIMIT_S = 60.0
"""How long a command plans at most before it creates its run."""


def beginning(created: float, now: float, age: float) -> float:
    """Return when a run's command began (Unix seconds), by the process's `age` if that fits the run's creation."""
    started = now - age
    return started if 0 <= created - started <= PLANNING_LIMIT_S else created


def past_of(run: RunRecord) -> tuple[float, ...]:
    """Return the errors of earlier trainings' first-step estimates where it runs without an instance."""
    here = next((c.predicted for c in run.candidates if not c.offer.is_rented and c.predicted), None)
    return here.rests if here is not None else ()


@dataclass(slots=True)
class Revision:
    """The estimate of one attempt, as its events come in."""

    run: RunRecord
    began: float
    """From when the whole time is counted, in Unix seconds."""
    past: tuple[float, ...] = ()
    """ln(actual / forecast) of earlier trainings of the same key."""
    first: Estimate | None = None
    """The estimate after the first steps, by which it is scored."""
    latest: Estimate | None = None
    _work: Workload | None = field(init=False)
    _epochs: int = 0
    _told: float = math.inf

    def __post_init__(self) -> None:
        self._work = workload_of(self.run)

    def take(self, event: ProgressEvent) -> Revised | None:
        """Update the estimate by an event; return what is new about the time left, None for nothing."""
        if event.event not in {"pace", "epoch"} or not event.epoch or self._work is None:
            return None
        self._epochs += event.event == "epoch"
        if event.pace is None:
            return None
        done = event.epoch if event.event == "epoch" else event.epoch - 1
        elapsed = max(0.0, event.time - self.began)
        at = ForecastPosition(
            epochs=min(done, self._work.epochs),
            batches=0 if event.event == "epoch" else event.batch or 0,
            elapsed=elapsed,
            measured=self._epochs,
        )
        try:
            estimate = forecast(self._work, event.pace, at, self.past)
        except (ValueError, ArithmeticError):  # any process can write the numbers
            return None
        self.first, self.latest = self.first or estimate, estimate
        whole = estimate.interval
        likely, text = max(whole.likely, 1e-3), ""
        if abs(math.log(likely) - math.log(self._told)) > TOLD_AGAIN and done < self._work.epochs:
            self._told = likely
            text = f"{remaining_note(whole, elapsed)}, {estimate.notes[0]}"
        return Revised(text, whole.likely - elapsed)


def first_revision(run: RunRecord, events: Iterable[ProgressEvent]) -> tuple[Estimate, ProgressEvent] | None:
    """Return the estimate after an attempt's first steps, and the event that it follows from; None where there is none."""
    revision = Revision(run, run.began_at, past_of(run))
    for event in events:
        revision.take(event)
        if revision.first is not None:
            return revision.first, event
    return None
