"""Default GPU instance types, with dated prices for use without the API."""

from collections.abc import Mapping
from dataclasses import dataclass

NOTED = "2026-07"
"""When the prices were noted. On demand: AWS's price list of 20 July 2026, by `pkg/providers/pricing` of
github.com/aws/karpenter-provider-aws."""

NOTED_REGION = "us-east-1"
"""Region of the on-demand prices."""


@dataclass(frozen=True, slots=True)
class GpuType:
    """An instance type with NVIDIA GPUs. Prices in USD/h, Linux, shared tenancy.

    Attributes:
        gpu: The GPU's short name.
        vcpus: Virtual CPUs.
        memory_gib: Memory of the machine.
        on_demand: In `NOTED_REGION`.
        spot: By region, about the middle of what was seen; of the sizes with several GPUs nothing was seen, and it is the
            share of the on-demand price that the family's smallest size had.
        gpus: How many GPUs it has.
    """

    gpu: str
    vcpus: int
    memory_gib: float
    on_demand: float
    spot: Mapping[str, float]
    gpus: int = 1


GPU_TYPES: Mapping[str, GpuType] = {
    "g4dn.xlarge": GpuType("T4", 4, 16, 0.526, {"us-east-1": 0.213, "us-east-2": 0.145}),
    "g5.xlarge": GpuType("A10G", 4, 16, 1.006, {"us-east-1": 0.44, "us-east-2": 0.38}),
    "g6.xlarge": GpuType("L4", 4, 16, 0.8048, {"us-east-1": 0.45, "us-east-2": 0.22}),
    "g6e.xlarge": GpuType("L40S", 4, 32, 1.861, {"us-east-1": 1.10, "us-east-2": 0.575}),
    "g4dn.12xlarge": GpuType("T4", 48, 192, 3.912, {"us-east-1": 1.584, "us-east-2": 1.078}, 4),
    "g5.12xlarge": GpuType("A10G", 48, 192, 5.672, {"us-east-1": 2.481, "us-east-2": 2.143}, 4),
    "g6.12xlarge": GpuType("L4", 48, 192, 4.6016, {"us-east-1": 2.573, "us-east-2": 1.258}, 4),
    "g6e.12xlarge": GpuType("L40S", 48, 384, 10.4926, {"us-east-1": 6.202, "us-east-2": 3.242}, 4),
    "g5.48xlarge": GpuType("A10G", 192, 768, 16.288, {"us-east-1": 7.124, "us-east-2": 6.153}, 8),
    "g6.48xlarge": GpuType("L4", 192, 768, 13.3504, {"us-east-1": 7.465, "us-east-2": 3.649}, 8),
    "g6e.48xlarge": GpuType("L40S", 192, 1536, 30.1312, {"us-east-1": 17.81, "us-east-2": 9.310}, 8),
}
"""The smallest size of each family whose GPUs PyTorch's wheels support, and the sizes with 4 and 8 GPUs. All families count
against one quota."""

ONE_GPU = tuple(name for name, kind in GPU_TYPES.items() if kind.gpus == 1)

FAMILIES = tuple(dict.fromkeys(name.partition(".")[0] for name in GPU_TYPES))
