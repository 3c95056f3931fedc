"""The closing of a sweep: why it is over, in words."""

from collections.abc import Sequence
from typing import cast

from gpu_offload.errors import OffloadError
from gpu_offload.orchestrator.output.units import human_money
from gpu_offload.orchestrator.sweep.journal import Trial
from gpu_offload.orchestrator.sweep.record import Closed, SweepRecord, Why
from gpu_offload.orchestrator.sweep.space import values_text


class SweepFailedError(OffloadError):
    """Every trial failed."""


def closing_of(
    record: SweepRecord, why: str, trials: Sequence[Trial], *, exhausted: bool, now: float
) -> Closed:
    """Return how a sweep is closed, for `why`: `budget`, `deadline`, `complete` or `failed`.

    Raises SweepFailedError for `failed`; the sweep stays open.
    """
    if why == "failed":
        first = next(trial for trial in trials if trial.end and trial.end.state == "failed")
        message = first.end.message if first.end else ""
        raise SweepFailedError(
            f"every trial of {record.id} failed; trial {first.record.number} "
            f"({values_text(first.record.values)}): {message}"
        )
    left = f"what is left of {human_money(record.budget_usd)} buys no other training"
    messages = {
        "budget": f"{left}; a higher --budget-usd continues it",
        "deadline": "the time is up; a longer --deadline continues it",
        "complete": f"{len(trials)} trials" + (", every combination" if exhausted else ""),
    }
    return Closed(at=now, why=cast("Why", why), message=messages[why])
