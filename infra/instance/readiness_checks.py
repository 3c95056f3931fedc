"""The checks behind each readiness stage of an instance."""

import json
import socket
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from gpu_offload.infra.instance.stage import Broken, Passed, Pending, StageResult
from gpu_offload.infra.instance.user_data import READY
from gpu_offload.infra.ssh.client import SshHost
from gpu_offload.infra.ssh.connection import Address
from gpu_offload.infra.ssh.errors import HostError, HostKeyMismatchError

P = ParamSpec("P")


def _unless_silent(check: Callable[P, StageResult]) -> Callable[P, StageResult]:
    """Treat errors of the host as "not yet", but raise HostKeyMismatchError: that one does not get better."""

    @wraps(check)
    def patient(*args: P.args, **kwargs: P.kwargs) -> StageResult:
        try:
            return check(*args, **kwargs)
        except HostKeyMismatchError:
            raise
        except HostError as error:
            return Pending(str(error))

    return patient


def check_boot(address: Address) -> StageResult:
    """Check whether the address answers at the port, even with a refusal: then its kernel runs."""
    try:
        socket.create_connection((address.host, address.port), timeout=5).close()
    except ConnectionRefusedError:
        return Passed("the kernel answers")
    except OSError as error:
        return Pending(str(error))
    return Passed("the port is open")


@_unless_silent
def check_ssh(host: SshHost) -> StageResult:
    """Check whether we can log in. A refused key counts as "not yet": cloud-init writes it late."""
    host.run("true", timeout=15)
    return Passed(host.name)


@_unless_silent
def check_cloud_init(host: SshHost) -> StageResult:
    """Check whether all of the user data was processed."""
    ready = f'[ -e "${{GPU_OFFLOAD_ROOT%/}}{READY}" ]'
    # Looked for again after cloud-init's answer, which takes a second: our last command may have run meanwhile.
    done = host.run(f"{ready} || {{ cloud-init status --format=json; {ready}; }}", timeout=30, check=False)
    return Passed() if done.exit_code == 0 else read_cloud_init(done.text)


def read_cloud_init(text: str) -> StageResult:
    """Read `cloud-init status --format=json`, where the last command of the user data has not run yet.

    https://docs.cloud-init.io/en/latest/reference/cli.html#status
    """
    try:
        said = json.loads(text)
        status, errors = str(said["status"]), [str(error) for error in said.get("errors") or []]
    except (ValueError, KeyError, TypeError, AttributeError):
        return Pending("cloud-init says nothing yet")
    if status == "error":
        return Broken(f"cloud-init failed: {'; '.join(errors) or 'no reason given'}")
    if status == "done":
        return Broken("cloud-init is done without having done our commands; was the user data replaced?")
    return Pending(f"cloud-init is {status}")


NVIDIA_SMI = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]


@_unless_silent
def check_driver(host: SshHost, *, gpus: int) -> StageResult:
    """Check whether the driver sees the GPUs of the offer; with none in the offer, report what there is."""
    done = host.run(NVIDIA_SMI, timeout=60, check=False)
    # One line for each GPU. After a failure, the output is the driver's message.
    lines = done.text.splitlines() if done.exit_code == 0 else []
    found = [line.strip() for line in lines if line.strip()]
    if gpus == 0:
        return Passed("; ".join(found) or "no GPU, as the offer says")
    if len(found) < gpus:
        said = "; ".join(found) or (done.stderr or done.stdout).decode(errors="replace").strip()[:300]
        return Pending(f"{len(found)} of {gpus} GPUs: {said or 'nvidia-smi says nothing'}")
    return Passed("; ".join(found))


CUDA_OPERATION = """
import torch
a = torch.ones(256, 256, device="cuda")
assert float((a @ a).sum()) == 256.0 ** 3
print(torch.cuda.get_device_name(), "CUDA", torch.version.cuda)
"""


@_unless_silent
def check_cuda(host: SshHost, python: str, *, gpus: int) -> StageResult:
    """Run a CUDA operation with the PyTorch that will train; skip it where the offer has no GPU.

    A failure is "not yet": a GPU that was just detected can need more time, and the stage's limit decides.
    """
    if gpus == 0:
        return Passed("no GPU to try")
    return Passed(host.run([python, "-c", CUDA_OPERATION], timeout=120).text.strip())
