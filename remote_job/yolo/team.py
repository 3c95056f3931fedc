"""Several processes that train one model together, a GPU each: this one is rank 0, which reports, saves and decides.

The others get the variables that `torch.distributed.run` gives its workers, and Ultralytics' trainer takes part by them. They
report and save nothing and hear no signals: they end with rank 0, and it with the first of them that fails.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gpu_offload.errors import EXIT_FAILED
from gpu_offload.infra.signals import ending_with_us
from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.spec import SpecError, TrainingSpec
from gpu_offload.remote_job.wire import Wire
from gpu_offload.remote_job.yolo import gpu_memory

PATIENCE_S = 5.0
"""How long rank 0 may take to notice that another rank is gone: NCCL can wait for it for hours."""


NO_MEMORY = 79
"""The exit code of a rank whose GPU's memory does not suffice."""


class Orders(Wire):
    """What another rank reads from its standard input."""

    spec: TrainingSpec
    tree: str
    argument: str
    images: dict[str, int]
    weights: str | None


@contextlib.contextmanager
def team(bench: Bench) -> Iterator[None]:
    """Start the other ranks of a training; they are gone when the context ends. Call it before Ultralytics is imported.

    Raises:
        GpuMemoryError: Another rank's GPU has not enough memory.
        SpecError: Ultralytics was imported before, as the only process of a training.
    """
    ranks = bench.spec.gpus
    if ranks == 1:
        yield
        return
    if "ultralytics" in sys.modules:
        raise SpecError(["gpus: several need a process of their own: python -m gpu_offload.remote_job"])
    from torch.distributed import TCPStore

    # As torch.distributed.run does it: the address is taken before any rank asks for it.
    meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(meeting.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "WORLD_SIZE": str(ranks),
        "OMP_NUM_THREADS": str(max(1, int(os.environ["OMP_NUM_THREADS"]) // ranks)),
    }
    orders = Orders(
        spec=bench.spec,
        tree=str(bench.data.tree),
        argument=str(bench.data.argument),
        images=bench.data.images,
        weights=str(bench.weights) if bench.weights else None,
    ).model_dump_json()
    ended, others = threading.Event(), []
    try:
        for rank in range(1, ranks):
            others.append(_start(rank, os.environ | shared, orders))
            threading.Thread(target=_watch, args=(others[-1], rank, bench, ended), daemon=True).start()
        os.environ.update(shared | {"RANK": "0", "LOCAL_RANK": "0"})
        yield
    except RuntimeError as error:
        # A rank that is gone ends the collective operations of this one.
        if (full := _rank_without_memory(others)) is not None:
            raise _no_memory(bench, full) from error
        raise
    finally:
        ended.set()
        for other in others:
            other.kill()
            other.wait()


def _rank_without_memory(others: "Sequence[subprocess.Popen[str]]") -> int | None:
    until = time.monotonic() + PATIENCE_S
    while True:
        codes = [other.poll() for other in others]
        if NO_MEMORY in codes:
            return codes.index(NO_MEMORY) + 1
        if None not in codes or time.monotonic() > until:
            return None
        time.sleep(0.05)


def _no_memory(bench: Bench, rank: int) -> Exception:
    return gpu_memory.explained(f"GPU {rank}", bench.spec.batch, bench.spec.image_size, "see the log")


def _start(rank: int, environment: dict[str, str], orders: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", "-m", "gpu_offload.remote_job.yolo.rank"]
    process = subprocess.Popen(
        ending_with_us(command) if sys.platform == "linux" else command,
        env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        stdin=subprocess.PIPE,
        stdout=sys.stderr.fileno(),
        text=True,
    )
    assert process.stdin is not None  # noqa: S101 - a pipe
    with process.stdin:
        process.stdin.write(orders)
    return process


def _watch(other: "subprocess.Popen[str]", rank: int, bench: Bench, ended: threading.Event) -> None:
    """End this process if another rank ends first, and this one does not notice by itself."""
    code = other.wait()
    if ended.is_set() or code == 0:
        return
    message = f"the process of GPU {rank} ended with code {code}; its last output is in the log"
    if code == NO_MEMORY:
        message = str(_no_memory(bench, rank))
    print(message)  # noqa: T201 - to the log
    if ended.wait(PATIENCE_S):
        return
    bench.progress.update(state="failed", message=message)
    bench.progress.event("failed", message=message)
    # The main thread waits in a collective operation that never returns: no exception reaches it.
    os._exit(EXIT_FAILED)


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Let Ultralytics' trainer and validator take part in a team without GPUs: they assume one for each rank."""
    import torch
    from torch.nn import parallel
    from ultralytics.engine import validator

    wrapped, backend = parallel.DistributedDataParallel, validator.AutoBackend

    def wrap(model: Any, **settings: Any) -> Any:
        return wrapped(model, **(settings | {"device_ids": None}))

    def load(**settings: Any) -> Any:
        return backend(**(settings | {"device": torch.device("cpu")}))

    class NoGpu:
        current_device: Callable[[], int] = staticmethod(lambda: 0)

    known = validator.get_torch_device_backend
    parallel.DistributedDataParallel, validator.AutoBackend = wrap, load
    validator.get_torch_device_backend = lambda _device: NoGpu
    try:
        yield
    finally:
        parallel.DistributedDataParallel, validator.AutoBackend = wrapped, backend
        validator.get_torch_device_backend = known
