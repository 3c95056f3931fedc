"""Readiness of an instance: stages in order, each with its own time limit."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gpu_offload.errors import OffloadError
from gpu_offload.infra.instance.stage import (
    ADVICE,
    LIMITS_S,
    STAGES,
    Broken,
    Passed,
    Pending,
    ReadinessStage,
    StageResult,
)


@dataclass(frozen=True, slots=True)
class Ready:
    """All stages are done."""

    details: Mapping[ReadinessStage, str]


@dataclass(frozen=True, slots=True)
class Failed:
    """The instance cannot be used."""

    stage: ReadinessStage
    reason: str


@dataclass(frozen=True, slots=True)
class ReadinessProgress:
    """Progress through the stages: `current` is checked since `since`, in seconds of a monotonic clock."""

    current: ReadinessStage
    since: float
    details: Mapping[ReadinessStage, str] = field(default_factory=dict)


def decide(
    progress: ReadinessProgress,
    seen: StageResult,
    now: float,
    limits: Mapping[ReadinessStage, float] = LIMITS_S,
) -> ReadinessProgress | Ready | Failed:
    """Decide what follows from one observation of the current stage; `now` is on the clock of `progress.since`."""
    stage = progress.current
    match seen:
        case Broken(reason):
            return Failed(stage, f"{reason}; {ADVICE[stage]}")
        # A stage that passes late still passes: only waiting any longer is refused.
        case Pending(detail):
            spent = now - progress.since
            if spent < limits[stage]:
                return progress
            missing = f": {detail}" if detail else ""
            return Failed(stage, f"not done after {spent:.0f} s{missing}; {ADVICE[stage]}")
        case Passed(detail):
            details = {**progress.details, stage: detail}
            if stage is STAGES[-1]:
                return Ready(details)
            return ReadinessProgress(STAGES[STAGES.index(stage) + 1], now, details)


class NotReadyError(OffloadError):
    """The instance did not become ready; `console` is the end of its console output, where there is any."""

    def __init__(self, failed: Failed, console: str) -> None:
        self.stage = failed.stage
        self.reason = failed.reason
        self.console = console
        tail = f"\nconsole output, the end of it:\n{console[-4_000:]}" if console else ""
        super().__init__(f"instance not ready, stage {failed.stage}: {failed.reason}{tail}")


def await_ready(
    checks: Mapping[ReadinessStage, Callable[[], StageResult]],
    *,
    console: Callable[[], str],
    first: ReadinessStage = ReadinessStage.CAPACITY,
    limits: Mapping[ReadinessStage, float] = LIMITS_S,
    every: float = 2.0,
    tell: Callable[[ReadinessStage, StageResult, float], None] = lambda _stage, _seen, _seconds: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Ready:
    """Wait until every stage is done, with `every` so many seconds a check; a missing check counts as passed.

    `tell` is called after each check with the stage, its result, and the seconds since the stage began; `console`, on
    failure only, returns the console output.

    Raises:
        NotReadyError: a stage is broken or took too long.
        HostKeyMismatchError: another server answers at the address.
    """
    progress = ReadinessProgress(first, clock())
    while True:
        stage = progress.current
        seen = checks[stage]() if stage in checks else Passed()
        tell(stage, seen, clock() - progress.since)
        match decide(progress, seen, clock(), limits):
            case Ready() as ready:
                return ready
            case Failed() as failed:
                raise NotReadyError(failed, console())
            case ReadinessProgress() as progress:
                if progress.current is stage:
                    sleep(every)
