"""A Ray cluster as an offer, or the faults that keep a training from running there; a process of its own asks it."""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from gpu_offload.errors import OffloadError
from gpu_offload.orchestrator.offers.offer import GPUS, Gpu, Offer
from gpu_offload.orchestrator.output.console import enumerated
from gpu_offload.orchestrator.settings.machines import RaySettings
from gpu_offload.orchestrator.training_environment import training_environment
from gpu_offload.remote_job.files import durable
from gpu_offload.remote_job.spec import StoreRef, TrainingSpec
from gpu_offload.remote_job.wire import Wire

CLIENT = (sys.executable, "-P", "-m", "gpu_offload.orchestrator.backends.ray_client")
EXIT_UNREACHABLE, EXIT_NODE_LOST = 69, 74
"""The cluster cannot be used, and the node of the training is gone (EX_UNAVAILABLE and EX_IOERR of sysexits.h)."""
ASK_S = 300.0
VALID_S = 600.0
"""How long a check counts: the trainings of a sweep share one."""


class RayError(OffloadError):
    """The Ray cluster cannot be used; the text says why and what to do."""


class RayTask(Wire):
    """The task of the process that talks to the cluster."""

    ray: RaySettings
    store: StoreRef
    modules: tuple[str, ...] = ()
    """What a training imports beside our own package's dependencies."""
    spec: TrainingSpec | None = None
    """The training; None to look at the cluster alone."""
    project: str | None = None
    """An archive of the user's own files, on this machine."""
    output: str | None = None
    """The folder on this machine that gets the heartbeat."""
    until: float = 0.0
    """When the training must end, Unix seconds."""


class RayFacts(Wire):
    """What the process found. `faults` are sentences; the rest is of the node that a training can run on."""

    faults: tuple[str, ...] = ()
    nodes: int = 0
    cpus: float = 0.0
    gpus: float = 0.0
    gpu: str | None = None
    """Ray's name of its accelerator."""
    memory_gib: float = 0.0


def check_isolation(isolation: str) -> None:
    """Check that `training.isolation` allows a cluster. Raises RayError."""
    if isolation == "required":
        raise RayError(
            'cannot train on Ray: training.isolation is "required", and a cluster isolates nothing; train on an '
            "instance (`--on ec2`), or change it if you trust everyone on the cluster"
        )


def ray_offer(settings: RaySettings, store: StoreRef, modules: Sequence[str], kept: Path) -> Offer:
    """Return the cluster as an offer, after a check of its nodes that is valid for ten minutes (`kept`).

    Each node must import `modules` and read the store. Raises RayError with every fault.
    """
    task = RayTask(ray=settings, store=store, modules=tuple(modules)).model_dump_json()
    path = kept / f"{hashlib.sha256(task.encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValidationError):
        # Not below 0: a clock that was set back would keep an old check for ever.
        if 0 <= time.time() - path.stat().st_mtime < VALID_S:
            return offer_of(RayFacts.model_validate_json(path.read_bytes()))
    facts = _ask(settings, task, in_bucket=not store.url.startswith("file:"))
    with contextlib.suppress(OSError):
        durable.write(path, facts.model_dump_json().encode(), durable=False)
    return offer_of(facts)


def _ask(settings: RaySettings, task: str, *, in_bucket: bool) -> RayFacts:
    """Ask the cluster. Ray's answers are pickles: a hostile node runs code in that process, so it gets no tokens."""
    with tempfile.TemporaryDirectory(prefix="offload-") as folder:
        path = Path(folder) / "task.json"
        path.write_text(task)
        try:
            done = subprocess.run(
                [*CLIENT, str(path)],
                stdin=subprocess.PIPE,
                env=training_environment(os.environ, project=Path.cwd(), in_bucket=in_bucket, own_code=False),
                capture_output=True,
                text=True,
                timeout=ASK_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RayError(
                f"the Ray cluster at {settings.address} did not answer within {ASK_S:.0f} s"
            ) from None
    try:
        facts = RayFacts.model_validate_json(done.stdout)
    except ValidationError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RayError(f"the connection to the Ray cluster at {settings.address} broke: {last}") from None
    if facts.faults:
        raise RayError(enumerated("cannot train on Ray", facts.faults))
    return facts


def offer_of(facts: RayFacts) -> Offer:
    """Return the place of a training; a GPU of unknown speed counts as the slowest that we know."""
    gpu: Gpu | None = None
    if facts.gpus > 0:
        gpu = GPUS.get((facts.gpu or "").partition("-")[0], GPUS["T4"])
    cpus = max(1, round(facts.cpus))
    return Offer(
        "ray", None, None, None, None, 0.0, "the cluster's own", gpu, cpus, round(facts.memory_gib, 1)
    )
