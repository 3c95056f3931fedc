"""`python -m gpu_offload.remote_job.yolo.rank`: another process of a team than the first, started by `team`."""

import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from gpu_offload.infra.signals import ENDING_SIGNALS
from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.data import TrainingData
from gpu_offload.remote_job.files.checkpoint import Checkpoints
from gpu_offload.remote_job.interruption import Interruption
from gpu_offload.remote_job.progress import Progress
from gpu_offload.remote_job.yolo import gpu_memory, isolation
from gpu_offload.remote_job.yolo.team import NO_MEMORY, Orders


class Silent(Progress):
    """Reports nothing."""

    def __init__(self) -> None:
        """Open nothing."""

    def event(self, event: Any, **fields: Any) -> None:
        """Report nothing."""

    def batch(self, *positions: int, **fields: Any) -> None:
        """Report nothing."""

    def update(self, *, state: Any = None, **fields: Any) -> None:
        """Report nothing."""


def follow(text: str) -> None:
    """Train as another rank than the first, to the end."""
    # A terminal sends them to the whole group; rank 0 alone stops the training, and ends the others.
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        _die_with_parent()
    orders = Orders.model_validate_json(text)
    spec = orders.spec
    output = Path(spec.output)
    bench = Bench(
        spec=spec,
        progress=Silent(),
        interruption=Interruption(),
        checkpoints=Checkpoints.of(spec, output),
        data=TrainingData(Path(orders.tree), Path(orders.argument), orders.images),
        weights=Path(orders.weights) if orders.weights else None,
    )
    isolation.isolate(bench.work / "config")
    from gpu_offload.remote_job.yolo import resume, run

    try:
        with isolation.offline():
            run.build(bench, resume.resumption(bench)).train()
    except RuntimeError as error:
        if gpu_memory.said(error) is None:
            raise
        traceback.print_exc()
        sys.exit(NO_MEMORY)


def _die_with_parent() -> None:
    """Ask Linux for SIGKILL should rank 0 die: SIGTERM is not heard here."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    follow(sys.stdin.read())
