"""Thin client of a Ray cluster over HTTP: needs no Ray on this machine, and no version of the cluster.

https://docs.ray.io/en/latest/cluster/running-applications/job-submission/api.html
"""

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

from gpu_offload.infra import http
from gpu_offload.orchestrator.backends import ray_worker
from gpu_offload.orchestrator.backends.ray_cluster import (
    NodeLostError,
    RayNode,
    TaskLostError,
    connection_fault,
)
from gpu_offload.orchestrator.offers.ray import RayError

LOOK_S = 2.0
AWAY_S = 60.0
"""How long the head may be away before the connection counts as lost."""
ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}
ENTRYPOINT = "python ray_worker.py"


class RayJobs:
    """A connection over HTTP, where a training is a job of its own; see `Cluster`."""

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic) -> None:
        """See that the cluster answers. Raises RayError."""
        self._address, self._clock = address.rstrip("/"), clock
        try:
            self._ask("/api/version")
        except (http.HttpError, ValueError) as error:
            raise RayError(connection_fault(error, address)) from error

    def nodes(self) -> tuple[RayNode, ...]:
        """See `Cluster`."""
        try:
            answer = self._ask("/api/v0/nodes?limit=10000&detail=1")
            return tuple(
                RayNode(node["node_id"], node["node_ip"], node["resources_total"])
                for node in answer["data"]["result"]["result"]
                if node["state"] == "ALIVE"
            )
        except (http.HttpError, LookupError, TypeError, ValueError) as error:
            raise RayError(
                f"the nodes of the Ray cluster at {self._address} cannot be listed: {error}"
            ) from error

    def check(
        self, nodes: Sequence[RayNode], needs: Mapping[str, float], arguments: Sequence[Any]
    ) -> dict[str, dict[str, Any]]:
        """See `Cluster`: one node, which Ray chooses."""
        del nodes
        package, given, variables = arguments
        until = self._clock() + ray_worker.CHECK_S
        order = {"function": "check", "arguments": [given, variables]}
        try:
            answer = self._run(needs, package, order, None, "check", lambda: self._clock() < until)
        except TaskLostError as error:
            answer = {"fault": str(error)}
        return {"of the cluster": answer}

    def train(
        self, needs: Mapping[str, float], arguments: Sequence[Any], *, name: str, tick: Callable[[], bool]
    ) -> tuple[int, str]:
        """See `Cluster`: as a job."""
        package, label, spec, project, variables, until = arguments
        order = {"function": "train", "arguments": [label, spec, variables, until]}
        code, said = self._run(needs, package, order, project, name, tick)
        return int(code), str(said)

    def _run(
        self,
        needs: Mapping[str, float],
        package: bytes,
        order: Mapping[str, Any],
        project: bytes | None,
        name: str,
        tick: Callable[[], bool],
    ) -> Any:
        files = {
            "ray_worker.py": Path(ray_worker.__file__).read_bytes(),
            "package.zip": package,
            "order.json": json.dumps(order).encode(),
        }
        folder = _zipped(files if project is None else files | {"project.tar": project})
        job = f"offload-{name.replace(' ', '-')}-{token_hex(4)}"
        try:
            self._submit(job, needs, folder)
        except http.HttpError as error:
            raise RayError(connection_fault(error, self._address)) from error
        return self._followed(job, tick)

    def _submit(self, job: str, needs: Mapping[str, float], folder: bytes) -> None:
        package = f"_ray_pkg_{hashlib.sha256(folder).hexdigest()[:32]}.zip"
        self._ask(f"/api/packages/gcs/{package}", "PUT", folder)
        request = {
            "entrypoint": ENTRYPOINT,
            "submission_id": job,
            "entrypoint_num_cpus": needs.get("CPU", 0),
            "entrypoint_num_gpus": needs.get("GPU", 0),
            "entrypoint_memory": int(needs["memory"]) if "memory" in needs else None,
            "entrypoint_resources": {k: v for k, v in needs.items() if k not in {"CPU", "GPU", "memory"}},
            "runtime_env": {
                "working_dir": f"gcs://{package}",
                # Ray kills a job three seconds after it told it to stop, which is no time for a checkpoint.
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(int(ray_worker.KEEP_S))},
            },
        }
        self._ask("/api/jobs/", "POST", json.dumps({k: v for k, v in request.items() if v}).encode())

    def _followed(self, job: str, tick: Callable[[], bool]) -> Any:
        """Wait for a job and return its answer. Raises RayError, TaskLostError."""
        stopped, heard, status = False, self._clock(), "PENDING"
        info: dict[str, Any] = {}
        while status not in ENDED:
            time.sleep(LOOK_S)
            try:
                if not tick() and not stopped:
                    self._ask(f"/api/jobs/{job}/stop", "POST", b"{}")
                    stopped = True
                info = self._ask(f"/api/jobs/{job}")
                heard, status = self._clock(), str(info.get("status"))
            except http.HttpError as error:
                if self._clock() - heard > AWAY_S:
                    raise RayError(connection_fault(error, self._address)) from error
        answer = self._answer(job)
        if answer is not None:
            return answer
        message = str(info.get("message") or status).strip().partition("\n")[0]
        # Without an exit code of its entrypoint the job ended with its node.
        exited = info.get("driver_exit_code") not in {None, 0}
        raise (TaskLostError if exited or stopped else NodeLostError)(
            f"the job {job} {status.lower()}: {message}"
        )

    def _answer(self, job: str) -> Any:
        try:
            logs = str(self._ask(f"/api/jobs/{job}/logs").get("logs", ""))
        except http.HttpError:
            return None
        lines = [line for line in logs.splitlines() if line.startswith(ray_worker.ANSWER)]
        return json.loads(lines[-1].removeprefix(ray_worker.ANSWER)) if lines else None

    def _ask(self, path: str, method: str = "GET", body: bytes | None = None) -> Any:
        headers = {"Content-Type": "application/json"} if method == "POST" else {}
        with http.ask(self._address + path, method=method, body=body, headers=headers) as reply:
            text = http.read(reply)
        return json.loads(text) if text.strip().startswith(b"{") else {}


def _zipped(files: Mapping[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            # A fixed time: the package's name is the hash of its bytes, and Ray keeps equal ones once.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), body)
    return memory.getvalue()
