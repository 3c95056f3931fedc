"""Readiness stages of an instance, their time limits and results."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class ReadinessStage(StrEnum):
    """The readiness stages, in this order."""

    CAPACITY = "capacity"
    BOOT = "boot"
    SSH = "ssh"
    CLOUD_INIT = "cloud-init"
    DRIVER = "driver"
    CUDA = "cuda"


LIMITS_S: Mapping[ReadinessStage, float] = {
    ReadinessStage.CAPACITY: 120.0,
    ReadinessStage.BOOT: 180.0,
    ReadinessStage.SSH: 180.0,
    ReadinessStage.CLOUD_INIT: 300.0,
    ReadinessStage.DRIVER: 120.0,
    ReadinessStage.CUDA: 180.0,
}
"""Seconds for each stage, counted from the end of the one before. A first CUDA call on a cold disk takes a minute."""

ADVICE: Mapping[ReadinessStage, str] = {
    ReadinessStage.CAPACITY: "another zone or type may have room",
    ReadinessStage.BOOT: "the image may not fit the instance type; see the console output",
    ReadinessStage.SSH: "does the security group let this machine's address in, and is there a route? See the console output",
    ReadinessStage.CLOUD_INIT: "see the console output; /var/log/cloud-init-output.log has all of it",
    ReadinessStage.DRIVER: "the image has no working NVIDIA driver for this instance type; choose another image",
    ReadinessStage.CUDA: "driver and PyTorch's CUDA do not go together, or the GPU is broken; another instance may do",
}


@dataclass(frozen=True, slots=True)
class Passed:
    """The stage is done. `detail` is for people: "Tesla T4, driver 570.1, 15360 MiB"."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """Not yet; check again. `detail` says what is missing."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """The stage cannot succeed; waiting costs money."""

    reason: str


StageResult = Passed | Pending | Broken
