"""Readiness of an instance: stages in order, each with its own time limit."""

import time
from collections.abc import Callable, Mapping

from gpu_offload.errors import OffloadError
from gpu_offload.infra.instance.stage import ADVICE, LIMITS_S, Broken, Passed, ReadinessStage, StageResult


class NotReadyError(OffloadError):
    """The instance did not become ready; the text ends with its console output, where there is any."""

    def __init__(self, stage: ReadinessStage, reason: str, console: str) -> None:
        tail = f"\nconsole output, the end of it:\n{console[-4_000:]}" if console else ""
        super().__init__(f"instance not ready, stage {stage}: {reason}; {ADVICE[stage]}{tail}")


def await_ready(
    checks: Mapping[ReadinessStage, Callable[[], StageResult]],
    *,
    console: Callable[[], str],
    passed: Callable[[ReadinessStage, str, float], None],
    every: float = 2.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait for one stage after the other, with `every` so many seconds a check.

    `passed` is called with each stage that is done, what its check says, and the seconds that it took; `console`, on
    failure only, returns the console output.

    Raises:
        NotReadyError: a stage is broken or took too long.
        HostKeyMismatchError: another server answers at the address.
    """
    for stage, check in checks.items():
        since = clock()
        while not isinstance(seen := check(), Passed):
            spent = clock() - since
            if isinstance(seen, Broken):
                raise NotReadyError(stage, seen.reason, console())
            # A stage that passes late still passes: only waiting any longer is refused.
            if spent >= LIMITS_S[stage]:
                missing = f": {seen.detail}" if seen.detail else ""
                raise NotReadyError(stage, f"not done after {spent:.0f} s{missing}", console())
            sleep(every)
        passed(stage, seen.detail, clock() - since)
