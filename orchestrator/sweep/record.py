"""The documents of a sweep in the store, below `sweeps/<id>/`:

    sweep.json              what it tries and its limits; changed by compare-and-swap
    driver.json             the lease of its driver
    trials/<n>.json         a trial, written once before its first training
    trials/<n>.end.json     how it ended, written once

Everything else follows from the runs and models of its trainings, whose keys a trial lists.
"""

from typing import Literal

from pydantic import Field

from gpu_offload.orchestrator.settings.dimension import Scalar
from gpu_offload.orchestrator.settings.types import Goal
from gpu_offload.remote_job.wire import Wire

SWEEP_PREFIX = "sweeps/"
NAME = "sweep-"
"""The prefix of a sweep's id, which no run's has."""

Why = Literal["complete", "budget", "deadline"]


class Closed(Wire):
    """Why a sweep is over; a higher limit opens it again."""

    at: float
    why: Why
    message: str


class SweepRecord(Wire):
    """A sweep. Its id is a digest of its definition, so that the same command finds it."""

    format: Literal[1] = 1
    id: str
    space: dict[str, str | tuple[Scalar, ...]]
    """Each dimension as written in the configuration: a range, or a list of values."""
    seeds: int
    folds: int
    metric: str | None
    """The metric that trials are compared by; None: the main metric of the first result."""
    goal: Goal
    epochs: int
    """Epochs of the shortest training."""
    created_at: float
    """Unix seconds."""
    opened_at: float
    """When the present limits began to count, Unix seconds."""
    trials: int = Field(ge=1)
    budget_usd: float
    deadline_s: float
    closed: Closed | None = None

    @property
    def deadline_at(self) -> float:
        """When its last training must end, Unix seconds."""
        return self.opened_at + self.deadline_s


class TrainingRef(Wire):
    """One training of a trial."""

    seed: int
    """Added to training.seed."""
    fold: int | None
    training_key: str
    version: str


class TrialRecord(Wire):
    """A choice of values, and its trainings."""

    format: Literal[1] = 1
    number: int = Field(ge=1)
    values: dict[str, Scalar]
    at: float
    trainings: tuple[TrainingRef, ...]


class TrialEnd(Wire):
    """How a trial ended. `epoch` and `value` are the last of a pruned one."""

    number: int
    state: Literal["complete", "pruned", "failed"]
    at: float
    message: str = ""
    epoch: int | None = None
    value: float | None = Field(default=None, allow_inf_nan=False)


def sweep_key(sweep: str, name: str) -> str:
    """Return the store key of a sweep's document."""
    return f"{SWEEP_PREFIX}{sweep}/{name}"
