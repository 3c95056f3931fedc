"""Thin client of a Ray cluster: lists its nodes, checks them, runs one training in a task."""

import logging
import math
import platform
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gpu_offload.errors import OffloadError
from gpu_offload.orchestrator.backends import ray_worker
from gpu_offload.orchestrator.offers.ray import RayError
from gpu_offload.orchestrator.settings.machines import RaySettings

EXTRA = "pip install 'gpu-offload[ray]'"
CONNECT_S = 10.0
LOOK_S = 1.0
GIB = 2**30


class TaskLostError(OffloadError):
    """The task ended without an answer: it was cancelled, it failed, or its worker died."""


class NodeLostError(TaskLostError):
    """The node of the task is gone."""


@dataclass(frozen=True, slots=True)
class RayNode:
    """A live node: its id, its address and its resources in all, by Ray's names."""

    id: str
    address: str
    resources: Mapping[str, float]

    def has(self, needs: Mapping[str, float]) -> bool:
        """Whether a task with these needs can ever run on it."""
        return all(self.resources.get(name, 0.0) >= amount for name, amount in needs.items())

    @property
    def gpu(self) -> str | None:
        """Ray's name of its accelerator: `T4`, `A10G`."""
        kinds = (name for name in self.resources if name.startswith("accelerator_type:"))
        return next((name.partition(":")[2] for name in kinds), None)


def needs_of(settings: RaySettings, nodes: Sequence[RayNode]) -> dict[str, float]:
    """Return what a training asks of a node, by Ray's names; left out, a GPU where the cluster has one."""
    gpus = settings.gpus
    if gpus is None:
        gpus = 1.0 if any(node.resources.get("GPU", 0.0) >= 1 for node in nodes) else 0.0
    memory = settings.memory_gib or 0.0
    needs = {"CPU": settings.cpus, "GPU": gpus, "memory": memory * GIB, **settings.resources}
    return {name: amount for name, amount in needs.items() if amount > 0}


def placement_fault(nodes: Sequence[RayNode], needs: Mapping[str, float]) -> str | None:
    """Say why no node can ever run a task with these needs; None where one can."""
    if any(node.has(needs) for node in nodes):
        return None
    if not nodes:
        return "the cluster has no live node"
    wanted = ", ".join(_amount(name, amount) for name, amount in needs.items())
    has = (", ".join(_amount(name, node.resources.get(name, 0.0)) for name in needs) for node in nodes)
    return f"no node of the Ray cluster has {wanted} (they have {'; '.join(dict.fromkeys(has))})"


def _amount(name: str, amount: float) -> str:
    return f"{amount / GIB:.1f} GiB of memory" if name == "memory" else f"{amount:g} {name}"


def connection_fault(error: BaseException, address: str) -> str:
    """Say why a cluster could not be connected to, and what to do."""
    said = " ".join(str(error).split())
    lowered = said.lower()
    if "version" in lowered and ("mismatch" in lowered or "differ" in lowered):
        import ray

        return (
            f"the Ray cluster at {address} has other versions than this machine (Ray {ray.__version__}, Python "
            f"{platform.python_version()}): {said}. Use the cluster's versions here, or run this command on a node of it"
        )
    if address == "auto" and isinstance(error, ConnectionError):
        return (
            "no Ray cluster runs on this machine: start one with `ray start --head`, or set ray.address to "
            "ray://HOST:10001 or HOST:6379"
        )
    return (
        f"the Ray cluster at {address} does not answer ({said or type(error).__name__}). Is it up, and is this its "
        "address? From outside of the cluster use ray://HOST:10001, or the Jobs API at https://HOST"
    )


class Cluster(Protocol):
    """A connection to a cluster. Every call raises RayError where the cluster is gone."""

    def nodes(self) -> tuple[RayNode, ...]:
        """Return the live nodes."""

    def check(
        self, nodes: Sequence[RayNode], needs: Mapping[str, float], arguments: Sequence[Any]
    ) -> dict[str, dict[str, Any]]:
        """Return by node what `ray_worker.check` found there with these arguments, or `fault`."""

    def train(
        self, needs: Mapping[str, float], arguments: Sequence[Any], *, name: str, tick: Callable[[], bool]
    ) -> tuple[int, str]:
        """Run `ray_worker.train` on a node and return its answer.

        `tick` is called every second or two; once it is false the training is stopped, gently at first. Raises
        TaskLostError: it ended without an answer; NodeLostError: its node is gone.
        """


class RayCluster:
    """A connection by Ray's client, which ends its process once the cluster was away for a minute: one per process."""

    def __init__(self, address: str) -> None:
        """Connect. Raises RayError."""
        try:
            import ray
        except ImportError as error:
            raise RayError(f"Ray is not installed here: {EXTRA}") from error
        self._ray: Any = ray
        try:
            if address != "auto":  # Ray itself would try for minutes
                host, _, port = address.removeprefix("ray://").rpartition(":")
                socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            raise RayError(connection_fault(error, address)) from error
        self._ray.cloudpickle.register_pickle_by_value(ray_worker)

    def nodes(self) -> tuple[RayNode, ...]:
        """See `Cluster`."""
        return tuple(
            RayNode(node["NodeID"], node["NodeManagerAddress"], node["Resources"])
            for node in self._ray.nodes()
            if node["Alive"]
        )

    def check(
        self, nodes: Sequence[RayNode], needs: Mapping[str, float], arguments: Sequence[Any]
    ) -> dict[str, dict[str, Any]]:
        """See `Cluster`: all at the same time, without waiting for what they are occupied with."""
        del needs
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        package, given, variables = arguments
        task = self._ray.remote(ray_worker.check)
        shipped = self._ray.put(package)
        started = {
            task.options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            ).remote(shipped, dict(given), dict(variables)): node
            for node in nodes
        }
        ended, _ = self._ray.wait(list(started), num_returns=len(started), timeout=ray_worker.CHECK_S)
        found: dict[str, dict[str, Any]] = {}
        for reference, node in started.items():
            answer: dict[str, Any] = {"fault": f"no answer within {ray_worker.CHECK_S:.0f} s"}
            if reference in ended:
                try:
                    answer = self._ray.get(reference)
                except Exception as error:  # noqa: BLE001 - Ray's and whatever the node raised
                    answer = {"fault": _said(error)}
            found[f"{node.address} ({node.id[:8]})"] = answer
        return found

    def train(
        self,
        needs: Mapping[str, float],
        arguments: Sequence[Any],
        *,
        name: str,
        tick: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> tuple[int, str]:
        """See `Cluster`: as a task."""
        others = {key: value for key, value in needs.items() if key not in {"CPU", "GPU", "memory"}}
        reference = (
            self._ray.remote(ray_worker.train)
            .options(
                name=name,
                num_cpus=needs.get("CPU", 0),
                num_gpus=needs.get("GPU", 0),
                memory=needs.get("memory"),
                resources=others or None,
                max_retries=0,  # we retry, from our own checkpoint
            )
            .remote(*arguments)
        )
        kill_at = math.inf
        while not self._ray.wait([reference], timeout=LOOK_S)[0]:
            # Ray raises KeyboardInterrupt in a task that is cancelled; the worker then keeps a checkpoint.
            if not tick() and kill_at == math.inf:
                self._ray.cancel(reference)
                kill_at = clock() + ray_worker.KEEP_S
            elif clock() >= kill_at:
                self._ray.cancel(reference, force=True)
        try:
            code, said = self._ray.get(reference)
        except Exception as error:
            gone = isinstance(error, self._ray.exceptions.NodeDiedError)
            raise (NodeLostError if gone else TaskLostError)(_said(error)) from error
        return int(code), str(said)


def _said(error: BaseException) -> str:
    """Return the sentence with the cause; Ray puts a traceback before it, or advice after it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    raised = str(getattr(error, "cause", "")) if "Traceback" in str(error) else ""
    return f"{type(error).__name__}: {raised or lines[0].partition('. ')[0]}"
