"""Where a training could run and at which price: this CPU, a Ray cluster, or an instance type in a zone and a market."""

import re
from dataclasses import dataclass, replace
from typing import Literal

Market = Literal["spot", "on-demand"]
BackendName = Literal["cpu", "ec2", "ray"]
Where = Literal["auto", "cpu", "ec2", "ray"]
"""The place that `--on` asks for; the rule decides on `auto`."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """An accelerator: memory in GiB, dense half-precision peak in 10^12 operations a second, memory in 10^9 bytes/s."""

    name: str
    memory_gib: float
    fp16_tflops: float
    bandwidth_gb_s: float
    count: int = 1
    bf16: bool = True
    """Whether it computes in bfloat16 itself."""
    host: float = 1.0
    """How long the processor of its usual host takes to issue a step, relative to that of a T4's."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A place to train in, at a price."""

    where: BackendName
    instance_type: str | None
    region: str | None
    zone: str | None
    """An availability zone; None where the cloud may choose."""
    market: Market | None
    usd_per_hour: float
    """0 for a free runner, and for a cluster, whose price is its owner's."""
    price_basis: str
    """Where the price comes from: `EC2 API, 2026-11-22T20:00Z` or `table of 2026-07, not today's prices`."""
    gpu: Gpu | None
    vcpus: int
    """CPUs of the machine, for loading images."""
    memory_gib: float
    on_demand_usd_per_hour: float | None = None
    """The same instance without interruptions, to compare with."""

    @property
    def is_rented(self) -> bool:
        """Whether it is an instance, which trains by itself and costs money until it is terminated."""
        return self.where == "ec2"

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return {"cpu": "a CPU", "ec2": "EC2", "ray": "the Ray cluster"}[self.where]

    @property
    def machine(self) -> str:
        """What it is filed under among past trainings, unless it is this CPU."""
        if self.where == "ray":
            return f"ray-{self.gpu.name if self.gpu else f'cpu-{self.vcpus}'}"
        return self.instance_type or ""

    @property
    def unpriced(self) -> str:
        """What is said in place of a price of 0."""
        return "not counted" if self.where == "ray" else "free"

    @property
    def name(self) -> str:
        """A short unique name: `this CPU`, `g4dn.xlarge spot us-east-2a`."""
        if self.where == "cpu":
            return "this CPU"
        if self.where == "ray":
            return self.kind
        return " ".join(str(x) for x in (self.instance_type, self.market, self.zone or self.region) if x)


FAST_HOST = 0.44
"""`Gpu.host` of workstations and of servers of 2023 and later, as `benchmarks/gpu_prior.py` fits it."""

GPUS: dict[str, Gpu] = {
    "T4": Gpu("NVIDIA T4", 16, 65, 320, bf16=False),
    "A10G": Gpu("NVIDIA A10G", 24, 70, 600),
    "L4": Gpu("NVIDIA L4", 24, 121, 300, host=0.7),
    "L40S": Gpu("NVIDIA L40S", 48, 362, 864, host=0.7),
    "V100": Gpu("NVIDIA V100", 16, 125, 900, bf16=False),
    "A100": Gpu("NVIDIA A100", 40, 312, 1555),
    "H100": Gpu("NVIDIA H100", 80, 989, 3350, host=FAST_HOST),
    "H200": Gpu("NVIDIA H200", 141, 989, 4800, host=FAST_HOST),
}
"""Peaks as published by the makers: tensor cores, without sparsity. Hosts of L4 and L40S are between those measured."""


def gpu_named(name: str, memory_gib: float) -> Gpu:
    """Return the GPU of a name as its driver gives it; one that is not in the table counts as a T4 with a newer host."""
    # As whole words: an L40S is no L4.
    known = [key for key in GPUS if re.search(rf"\b{key}\b", name)]
    gpu = GPUS[known[0]] if known else replace(GPUS["T4"], host=FAST_HOST)
    return replace(gpu, name=name, memory_gib=memory_gib)


def cpu_offer(cores: int, memory_gib: float = 16.0) -> Offer:
    """Return this machine as an offer; a public repository's runner is free."""
    return Offer("cpu", None, None, None, None, 0.0, "free for public repositories", None, cores, memory_gib)
