"""`python -m gpu_offload.orchestrator.backends.ray_client TASK.json`: talks to a Ray cluster for another process.

Ray ends a process that uses its client once the cluster is gone, so the driver of a run does not use it itself. Without
a spec in the task it prints RayFacts of the cluster. With one it trains: it prints ProgressEvents as the store gets
them, keeps the last heartbeat below `output`, and stops at SIGTERM or when its standard input ends. Exit codes: those
of the training module, 69 if the cluster cannot be used, 74 if the training's node is gone.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal, TextIO

from gpu_offload.errors import EXIT_RESUMABLE, OffloadError
from gpu_offload.infra.instance.wheel import pack_wheel
from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.infra.store.s3_credentials import STORE_KEYS, store_keys
from gpu_offload.orchestrator.backends.ray_cluster import (
    GIB,
    Cluster,
    NodeLostError,
    RayCluster,
    RayNode,
    TaskLostError,
    needs_of,
    placement_fault,
)
from gpu_offload.orchestrator.backends.ray_jobs import RayJobs
from gpu_offload.orchestrator.offers.ray import EXIT_NODE_LOST, EXIT_UNREACHABLE, RayError, RayFacts, RayTask
from gpu_offload.orchestrator.run.events import EventReader
from gpu_offload.orchestrator.run.record import run_key
from gpu_offload.remote_job.files import durable
from gpu_offload.remote_job.result import ProgressEvent
from gpu_offload.remote_job.spec import StoreRef, TrainingSpec

READ_FOLDER_S, READ_S = 1.0, 15.0
"""Between two reads of a training's progress: from a folder, and from any other store, which gets it every 15 s."""
OUTPUT: TextIO = sys.stdout
"""For our own lines alone; what else is printed goes to standard error."""
MOST_CHECKED = 16
"""Nodes that are checked before a training."""
TRAIN_EXTRA = "pip install 'gpu-offload[train]'"


def look(task: RayTask, cluster: Cluster, environment: Mapping[str, str]) -> RayFacts:
    """Return what the cluster has for a training, and everything that keeps the training from running there."""
    nodes = cluster.nodes()
    needs = needs_of(task.ray, nodes)
    fault = placement_fault(nodes, needs)
    if fault is not None and not task.ray.autoscales:
        remedy = "change ray.cpus, ray.gpus, ray.memory-gib or ray.resources, add such a node, or set ray.autoscales"
        return RayFacts(faults=(f"{fault}: {remedy}",))
    suited = [node for node in nodes if node.has(needs)] or list(nodes)
    one = suited[0]
    return RayFacts(
        faults=_node_faults(task, cluster, suited[:MOST_CHECKED], needs, environment),
        nodes=len(nodes),
        cpus=needs.get("CPU", 0.0),
        gpus=needs.get("GPU", 0.0),
        gpu=one.gpu,
        memory_gib=one.resources.get("memory", 0.0) / GIB,
    )


def _node_faults(
    task: RayTask,
    cluster: Cluster,
    nodes: Sequence[RayNode],
    needs: Mapping[str, float],
    environment: Mapping[str, str],
) -> tuple[str, ...]:
    """Check the nodes by a test object in the store; return their faults, each once."""
    store = _store(task.store)
    key, body = f"runs/ray-{token_hex(6)}/checkpoint/probe.json", token_hex(16)
    store.create(key, body.encode())
    given = {"modules": task.modules, "store": task.store.model_dump(), "key": key, "body": body}
    try:
        keys = store_keys(task.store.endpoint_url, environment)
        found = cluster.check(nodes, needs, (_package(), given, keys))
    finally:
        with contextlib.suppress(StoreError):
            store.delete(key)
    by_fault: dict[str, list[str]] = {}
    for address, answer in found.items():
        for fault in answer_faults(answer, task.store):
            by_fault.setdefault(fault, []).append(address)
    return tuple(
        f"node {places[0]}{f' and {len(places) - 1} more' if len(places) > 1 else ''} {fault}"
        for fault, places in by_fault.items()
    )


def answer_faults(answer: Mapping[str, Any], store: StoreRef) -> list[str]:
    """Return what is wrong with a node by its answer to `ray_worker.check`, and what to do."""
    faults = []
    if fault := answer.get("fault"):
        faults.append(f"cannot train: {fault}")
    if missing := answer.get("missing"):
        faults.append(
            f"has no {', '.join(missing)}: install what a training needs there, for example {TRAIN_EXTRA} in the image"
        )
    if fault := answer.get("store"):
        if store.url.startswith("file:"):
            remedy = "a folder must be at the same path on every node (NFS, for example); or set store.url to s3://BUCKET"
        else:
            remedy = f"give the nodes a role that may use the bucket, or, outside AWS, set {STORE_KEYS[0]} and {STORE_KEYS[1]}"
        faults.append(f"cannot read the store {store.url} ({fault}): {remedy}")
    return faults


@dataclass
class Training:
    """One training on the cluster, seen from here."""

    task: RayTask
    spec: TrainingSpec
    cluster: Cluster
    store: ObjectStore
    stop: threading.Event
    variables: Mapping[str, str]
    _reader: EventReader = field(init=False)
    _read_at: float = 0.0

    def __post_init__(self) -> None:
        self._reader = EventReader(self.store, self.spec.run, self.spec.attempt)

    def run(self) -> int:
        """Train to the end; return the exit code."""
        nodes = self.cluster.nodes()
        name = f"{self.spec.run}-{self.spec.attempt}"
        project = Path(self.task.project).read_bytes() if self.task.project else None
        spec = self.spec.model_dump(mode="json")
        arguments = (_package(), name, spec, project, dict(self.variables), self.task.until)
        needs = needs_of(self.task.ray, nodes)
        if (fault := placement_fault(nodes, needs)) is not None and not self.task.ray.autoscales:
            raise RayError(fault)
        try:
            code, said = self.cluster.train(needs, arguments, name=f"offload {name}", tick=self._tick)
        except TaskLostError as error:
            self._relay()
            self._interrupted("told to stop" if self.stop.is_set() else f"the Ray task ended: {error}")
            return EXIT_NODE_LOST if isinstance(error, NodeLostError) else EXIT_RESUMABLE
        told = self._relay()
        if code < 0:
            hint = "; is there enough memory on the node?" if -code == signal.SIGKILL else ""
            return self._interrupted(f"the training process ended by {signal.Signals(-code).name}{hint}")
        if code != 0 and not told:  # the store did not get its last words
            event: Literal["interrupted", "failed"] = "interrupted" if code == EXIT_RESUMABLE else "failed"
            last = said.rpartition("\n")[2] or f"exit code {code}"
            say(ProgressEvent.measured(event=event, time=time.time(), message=last))
        # Not stopped by us: Ray drains a node before it takes it away.
        drained = code == EXIT_RESUMABLE and not self.stop.is_set()
        return EXIT_NODE_LOST if drained else code

    def _tick(self) -> bool:
        """Pass progress on; return whether the training may go on."""
        every = READ_FOLDER_S if self.task.store.url.startswith("file:") else READ_S
        if time.monotonic() - self._read_at >= every:
            self._read_at = time.monotonic()
            self._relay()
        return not self.stop.is_set()

    def _relay(self) -> bool:
        """Print new events and keep the heartbeat; return whether the training has reported its end."""
        ended = False
        with contextlib.suppress(StoreError):
            for event in self._reader.read():
                say(event)
                ended = ended or event.event in {"failed", "interrupted"}
            beat, _ = self.store.read(run_key(self.spec.run, f"attempts/{self.spec.attempt}/heartbeat.json"))
            if self.task.output is not None:
                durable.write(Path(self.task.output) / "heartbeat.json", beat, durable=False)
        return ended

    def _interrupted(self, message: str) -> int:
        say(ProgressEvent.measured(event="interrupted", time=time.time(), message=message))
        return EXIT_RESUMABLE


def say(document: ProgressEvent | RayFacts) -> None:
    """Print a document for the process that started this one."""
    print(document.model_dump_json(exclude_none=True), file=OUTPUT, flush=True)


def _package() -> bytes:
    return pack_wheel(version("gpu-offload")).body


def _store(store: StoreRef) -> ObjectStore:
    return open_store(store.url, endpoint_url=store.endpoint_url, region=store.region)


def _stop_requests() -> threading.Event:
    """Return what is set once this process should stop: by SIGTERM, or because its parent is gone."""
    stop = threading.Event()

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        stop.set()

    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
    return stop


def main(path: str) -> int:
    """Do what a task says; return the exit code."""
    task = RayTask.model_validate_json(Path(path).read_bytes())
    try:
        address = task.ray.address
        cluster: Cluster = RayJobs(address) if address.startswith("http") else RayCluster(address)
        if task.spec is None:
            say(look(task, cluster, os.environ))
            return 0
        stop = _stop_requests()  # after Ray has installed its own handler
        cores = {"GPU_OFFLOAD_CORES": str(max(1, int(task.ray.cpus)))}
        variables = cores | store_keys(task.store.endpoint_url, os.environ)
        return Training(task, task.spec, cluster, _store(task.store), stop, variables).run()
    except OffloadError as error:
        lost = isinstance(error, RayError)
        if lost and task.spec is None:
            say(RayFacts(faults=(str(error),)))
        sys.stderr.write(f"{error}\n")
        return EXIT_UNREACHABLE if lost else error.exit_code


if __name__ == "__main__":
    OUTPUT = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    code = main(sys.argv[1])
    OUTPUT.flush()
    sys.stderr.flush()
    os._exit(code)  # at its own exit Ray may end the process with another code, where the cluster is gone
