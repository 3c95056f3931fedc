"""Whether an instance is ready to train: stages in order, each with its own time, and why it is not.

`decide` is pure: observations in, a step out. `await_ready` looks, asks it and waits.
"""

import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gpu_offload.infra.host import Host, HostError, HostKeyMismatchError
from gpu_offload.infra.ssh_host import Address
from gpu_offload.infra.user_data import READY


class Stage(StrEnum):
    """What has to be so, in this order."""

    CAPACITY = "capacity"
    BOOT = "boot"
    SSH = "ssh"
    CLOUD_INIT = "cloud-init"
    DRIVER = "driver"
    CUDA = "cuda"


STAGES = tuple(Stage)

LIMITS_S: Mapping[Stage, float] = {
    Stage.CAPACITY: 120.0,
    Stage.BOOT: 180.0,
    Stage.SSH: 180.0,
    Stage.CLOUD_INIT: 300.0,
    Stage.DRIVER: 120.0,
    Stage.CUDA: 180.0,
}
"""Seconds for each stage, counted from the end of the one before. A first CUDA call on a cold disk takes a minute."""

ADVICE: Mapping[Stage, str] = {
    Stage.CAPACITY: "another zone or type may have room",
    Stage.BOOT: "the image may not fit the instance type; see the console output",
    Stage.SSH: "does the security group let this machine's address in, and is there a route? See the console output",
    Stage.CLOUD_INIT: "see the console output; /var/log/cloud-init-output.log has all of it",
    Stage.DRIVER: "the image has no working NVIDIA driver for this instance type; choose another image",
    Stage.CUDA: "driver and PyTorch's CUDA do not go together, or the GPU is broken; another instance may do",
}


@dataclass(frozen=True, slots=True)
class Passed:
    """The stage is done. `detail` is for people: "Tesla T4, driver 570.1, 15360 MiB"."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """Not yet; look again. `detail` says what is missing."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """It will never be; waiting costs money."""

    reason: str


Seen = Passed | Pending | Broken


@dataclass(frozen=True, slots=True)
class Check:
    """Look at this stage next; its time began at `since`."""

    stage: Stage
    since: float


@dataclass(frozen=True, slots=True)
class Ready:
    """All stages are done."""

    details: Mapping[Stage, str]


@dataclass(frozen=True, slots=True)
class Failed:
    """The instance is of no use."""

    stage: Stage
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: `current` is looked at since `since`, in seconds of any clock that does not go back."""

    current: Stage
    since: float
    details: Mapping[Stage, str]


def begin(now: float, first: Stage = Stage.CAPACITY) -> Progress:
    """Return the start of waiting; `first` is later than capacity for an instance that already runs."""
    return Progress(first, now, {})


def decide(
    progress: Progress, seen: Seen, now: float, limits: Mapping[Stage, float] = LIMITS_S
) -> tuple[Progress, Check | Ready | Failed]:
    """Decide what follows from one observation of the current stage.

    Args:
        progress: how far it was.
        seen: what the current stage looks like.
        now: seconds on the clock of `progress.since`.
        limits: seconds for each stage.
    """
    stage = progress.current
    match seen:
        case Broken(reason):
            return progress, Failed(stage, f"{reason}; {ADVICE[stage]}")
        case Pending(detail):
            spent = now - progress.since
            if spent >= limits[stage]:
                missing = f": {detail}" if detail else ""
                return progress, Failed(stage, f"not done after {spent:.0f} s{missing}; {ADVICE[stage]}")
            return progress, Check(stage, progress.since)
        case Passed(detail):
            details = {**progress.details, stage: detail}
            if stage is STAGES[-1]:
                return Progress(stage, now, details), Ready(details)
            following = STAGES[STAGES.index(stage) + 1]
            return Progress(following, now, details), Check(following, now)


class NotReadyError(Exception):
    """The instance did not become ready; `console` is the end of its console output, where there is any."""

    def __init__(self, failed: Failed, console: str) -> None:
        self.stage = failed.stage
        self.reason = failed.reason
        self.console = console
        tail = f"\nconsole output, the end of it:\n{console[-4_000:]}" if console else ""
        super().__init__(f"instance not ready, stage {failed.stage}: {failed.reason}{tail}")


def await_ready(
    checks: Mapping[Stage, Callable[[], Seen]],
    *,
    console: Callable[[], str],
    first: Stage = Stage.CAPACITY,
    limits: Mapping[Stage, float] = LIMITS_S,
    every: float = 2.0,
    tell: Callable[[Stage, Seen, float], None] = lambda _stage, _seen, _seconds: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Ready:
    """Wait until every stage is done.

    Args:
        checks: how to look at each stage; one that is absent counts as passed.
        console: fetches the console output, asked only on failure; may return "".
        first: where to begin.
        limits: seconds for each stage.
        every: seconds between two looks.
        tell: told of each look: stage, what was seen, seconds since the stage began.
        clock: monotonic seconds.
        sleep: waits that many seconds.

    Raises:
        NotReadyError: a stage is broken or took too long.
        HostKeyMismatchError: somebody else answers at the address.
    """
    progress = begin(clock(), first)
    while True:
        stage, since = progress.current, progress.since
        seen = checks[stage]() if stage in checks else Passed()
        tell(stage, seen, clock() - since)
        progress, step = decide(progress, seen, clock(), limits)
        match step:
            case Ready():
                return step
            case Failed():
                raise NotReadyError(step, console())
            case Check():
                if progress.current is stage:
                    sleep(every)


def _unless_silent(look: Callable[[], Seen]) -> Seen:
    """Take silence for "not yet". An impostor is not a stage that fails: it is raised."""
    try:
        return look()
    except HostKeyMismatchError:
        raise
    except HostError as error:
        return Pending(str(error))


def check_boot(address: Address) -> Seen:
    """Look whether anything at the address answers at the port, if only with a refusal: then its kernel is up."""
    try:
        socket.create_connection((address.host, address.port), timeout=5).close()
    except ConnectionRefusedError:
        return Passed("the kernel answers")
    except OSError as error:
        return Pending(str(error))
    return Passed("the port is open")


def check_ssh(host: Host) -> Seen:
    """Look whether we can log in. A refused key is "not yet" too: cloud-init may be about to write it."""

    def look() -> Seen:
        host.run("true", timeout=15)
        return Passed(host.name)

    return _unless_silent(look)


def check_cloud_init(host: Host) -> Seen:
    """Look whether everything in the user data was done."""
    ready = f'test -e "${{GPU_OFFLOAD_ROOT%/}}{READY}"'

    def look() -> Seen:
        if host.run(ready, timeout=15, check=False).exit_code == 0:
            return Passed()
        return read_cloud_init(host.run("cloud-init status --format=json", timeout=30, check=False).text)

    return _unless_silent(look)


def read_cloud_init(text: str) -> Seen:
    """Read `cloud-init status --format=json`; the last word of the user data has not been done yet.

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


def check_driver(host: Host, *, gpus: int) -> Seen:
    """Look whether the driver sees the GPUs that the offer has; with none promised, say what there is."""

    def look() -> Seen:
        done = host.run(NVIDIA_SMI, timeout=60, check=False)
        found = (
            [line.strip() for line in done.text.splitlines() if line.strip()] if done.exit_code == 0 else []
        )
        if gpus == 0:
            return Passed("; ".join(found) or "no GPU, as the offer says")
        if len(found) < gpus:
            said = "; ".join(found) or (done.stderr or done.stdout).decode(errors="replace").strip()[:300]
            return Pending(f"{len(found)} of {gpus} GPUs: {said or 'nvidia-smi says nothing'}")
        return Passed("; ".join(found))

    return _unless_silent(look)


CUDA_OPERATION = """
import torch
a = torch.ones(256, 256, device="cuda")
assert float((a @ a).sum()) == 256.0 ** 3
print(torch.cuda.get_device_name(), "CUDA", torch.version.cuda)
"""


def check_cuda(host: Host, python: str, *, gpus: int) -> Seen:
    """Compute something on the GPU with the very PyTorch that will train; nothing where no GPU was promised.

    A failure is "not yet": a GPU that has just been found may need another moment, and the stage's time decides.
    """
    if gpus == 0:
        return Passed("no GPU to try")
    command = [python, "-c", CUDA_OPERATION]
    return _unless_silent(lambda: Passed(host.run(command, timeout=120).text.strip()))
