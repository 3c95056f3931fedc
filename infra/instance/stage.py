"""Readiness stages of an instance, their time limits and results."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """The readiness stages, in this order."""

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
    """The stage can never be done; waiting costs money."""

    reason: str


StageResult = Passed | Pending | Broken
