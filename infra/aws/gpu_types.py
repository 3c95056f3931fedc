"""Default GPU instance types, with dated prices for use without the API."""

from collections.abc import Mapping
from dataclasses import dataclass

NOTED = "2026-07"
"""When the prices were noted."""

NOTED_REGION = "us-east-1"
"""Where the on-demand prices hold."""


@dataclass(frozen=True, slots=True)
class GpuType:
    """An instance type with one NVIDIA GPU. Prices in USD/h, Linux, shared tenancy.

    Attributes:
        gpu: The GPU's short name.
        vcpus: Virtual CPUs.
        memory_gib: Memory of the machine.
        on_demand: In `NOTED_REGION`.
        spot: By region, about the middle of what was seen.
    """

    gpu: str
    vcpus: int
    memory_gib: float
    on_demand: float
    spot: Mapping[str, float]


GPU_TYPES: Mapping[str, GpuType] = {
    "g4dn.xlarge": GpuType("T4", 4, 16, 0.526, {"us-east-1": 0.213, "us-east-2": 0.145}),
    "g5.xlarge": GpuType("A10G", 4, 16, 1.006, {"us-east-1": 0.44, "us-east-2": 0.38}),
    "g6.xlarge": GpuType("L4", 4, 16, 0.8048, {"us-east-1": 0.45, "us-east-2": 0.22}),
    "g6e.xlarge": GpuType("L40S", 4, 32, 1.861, {"us-east-1": 1.10, "us-east-2": 0.575}),
}
"""The smallest size of each family whose GPUs PyTorch's wheels support. All families count against one quota."""

FAMILIES = tuple(name.partition(".")[0] for name in GPU_TYPES)
