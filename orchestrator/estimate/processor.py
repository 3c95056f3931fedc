"""What this processor can do, by a benchmark of half a second, and what other programs leave of it."""

import functools
import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gpu_offload.orchestrator.estimate.cpu import Processor
from gpu_offload.remote_job.files import durable
from gpu_offload.remote_job.machine import core_part, cores, instruction_sets, processor
from gpu_offload.remote_job.pace import interpreter
from gpu_offload.remote_job.pace.idle import Idle, idle
from gpu_offload.remote_job.wire import Wire

PRODUCT_SIZE, PRODUCTS, PRODUCT_S = 64, 32, 0.3
"""Matrices so small that a product stays in one thread, how many of them, and for how long they are multiplied."""
COPY_BYTES, COPY_S = 1 << 26, 0.2
"""More than a third-level cache holds, and for how long it is copied."""


class ProcessorSpeed(Wire):
    """Speeds of one core."""

    product_gflops: float
    copy_gb_s: float
    slowness: float
    """Of Python."""


@functools.cache
def this_processor() -> Processor:
    """Return what this processor can do; measured at most once a machine, where there is a place to keep it."""
    path = _place()
    kept = _read(path) if path is not None else None
    found = kept or measure()
    if kept is None and path is not None:
        _keep(path, found)
    sets = instruction_sets()
    return Processor(
        product_gflops=found.product_gflops,
        copy_gb_s=found.copy_gb_s,
        bfloat16="amx" if "amx_bf16" in sets else "avx512" if "avx512_bf16" in sets else "none",
        wide="avx512" in sets,
        part=core_part(),
        slowness=found.slowness,
    )


def is_known() -> bool:
    """Whether it was measured before."""
    path = _place()
    return path is not None and _read(path) is not None


def measure() -> ProcessorSpeed:
    """Multiply and copy for half a second of processor time, which does not count neighbours."""
    import numpy as np

    ones = np.ones((PRODUCTS, PRODUCT_SIZE, PRODUCT_SIZE), np.float32)
    result = np.empty_like(ones)
    product = _rate(lambda: np.matmul(ones, ones, out=result), PRODUCT_S)
    source = np.ones(COPY_BYTES // 4, np.float32)
    target = np.empty_like(source)
    copied = _rate(lambda: np.copyto(target, source), COPY_S)
    return ProcessorSpeed(
        product_gflops=round(2 * PRODUCTS * PRODUCT_SIZE**3 * product / 1e9, 1),
        copy_gb_s=round(2 * COPY_BYTES * copied / 1e9, 1),
        slowness=round(interpreter.slowness(), 2),
    )


def _rate(work: Any, seconds: float) -> float:
    """Return how often a core does something in a second of its time."""
    work()  # the first brings memory in, and starts threads
    end, begun, done = time.perf_counter() + seconds, time.process_time(), 0
    while time.perf_counter() < end:
        work()
        done += 1
    return done / max(time.process_time() - begun, 1e-6)


def _place() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if (home := os.environ.get("HOME")) else "")
    if not base.startswith("/"):
        return None
    name = hashlib.sha256(f"{processor()} {cores()}".encode()).hexdigest()[:16]
    return Path(base) / "gpu-offload" / f"processor-{name}.json"


def _read(path: Path) -> ProcessorSpeed | None:
    try:
        found = ProcessorSpeed.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.product_gflops > 0 and found.copy_gb_s > 0 else None


def _keep(path: Path, found: ProcessorSpeed) -> None:
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.write(path, found.model_dump_json().encode(), durable=False)


LEAST_TICKS = 30
"""Of all cores together, fewer of which say nothing: 0.15 s of two cores."""


def _own(beside: Iterable[int]) -> float:
    times = os.times()
    ended = times.user + times.system + times.children_user + times.children_system
    return ended + sum(map(processor_seconds, beside))


def processor_seconds(process: int) -> float:
    """Return the processor time of a living process; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        ticks = int(fields[11]) + int(fields[12])  # fields 14 and 15 by proc(5), which counts from 1
    except (OSError, IndexError, ValueError):
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CoreReading:
    """How idle all cores have been, and what this process and those beside it have used of them, in seconds."""

    idle: Idle
    own: float
    wall: float

    @classmethod
    def of(cls, beside: Iterable[int] = ()) -> "CoreReading":
        """Return the reading of this moment; `beside` are processes that this one has started."""
        return cls(idle(), _own(beside), time.monotonic())

    def share(self, earlier: "CoreReading", cores: int) -> float:
        """Return the share of `cores` left by other programs since an earlier reading; they use foreign cores first."""
        if self.idle.total - earlier.idle.total < LEAST_TICKS:
            return 1.0
        own = (self.own - earlier.own) / max(self.wall - earlier.wall, 1e-3)
        others = self.idle.cores - self.idle.since(earlier.idle) - own
        beside = max(0.0, others - (self.idle.cores - cores))
        return cores / (cores + beside)
