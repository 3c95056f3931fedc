"""The sections on machines that train: `[ec2]` and `[ray]`."""

from typing import Annotated, Literal

from pydantic import Field

from gpu_offload.infra.aws.gpu_types import GPU_TYPES, ONE_GPU
from gpu_offload.orchestrator.settings.section import Section
from gpu_offload.orchestrator.settings.types import (
    Cidr,
    Count,
    Distinct,
    Flag,
    Gpus,
    Image,
    InstanceType,
    NotEmpty,
    Number,
    ProfileName,
    RayAddress,
    RayResources,
    Region,
    RoleArn,
    Subnet,
)


class Ec2Settings(Section):
    """The instances that may be rented."""

    regions: Annotated[tuple[Region, ...], Distinct, NotEmpty] = ("us-east-1", "us-east-2", "us-west-2")
    """Regions to search for offers."""
    instance_types: Annotated[tuple[InstanceType, ...], Distinct, NotEmpty] = ONE_GPU
    """Instance types that may be rented; left out, those of our price table with as many GPUs as `gpus` says."""
    gpus: Gpus = Field(default=1, examples=[4])
    """GPUs of an instance: only types with so many are rented; "auto" for any number. Several train together, and training.batch
    is divided among them."""
    market: Literal["spot", "on-demand", "spot-then-on-demand"] = "spot-then-on-demand"
    """spot, on-demand, or spot until the deadline requires on-demand."""
    policy: Literal["expected-cost", "uniform-progress", "greedy", "on-demand"] = "expected-cost"
    """How "spot-then-on-demand" chooses: at the least expected cost; ahead of a straight line to the deadline; spot or
    waiting for it as long as the deadline allows; or on-demand first. All of them keep the deadline."""
    image: Image | None = Field(default=None, examples=["ami-0123456789abcdef0"])
    """An AMI, or an SSM parameter that names one. Default: Amazon's deep-learning image. An AMI belongs to one region."""
    subnet: Subnet | None = Field(default=None, examples=["subnet-0123456789abcdef0"])
    """The instances' subnet. Default: the zone's default subnet. A subnet belongs to one zone."""
    instance_profile: ProfileName | None = Field(default=None, examples=["gpu-offload-trainer"])
    """Instance profile with which an instance writes below its own run; `offload bootstrap` creates it."""
    schedule_role: RoleArn | None = Field(
        default=None, examples=["arn:aws:iam::123456789012:role/gpu-offload-scheduler"]
    )
    """ARN of the role with which EventBridge Scheduler terminates an instance at its deadline; `offload bootstrap`
        creates it."""
    volume_gib: Count = Field(default=60, ge=8, le=16_384)
    """Size of the root volume, GiB."""
    ssh_port: Count = Field(default=22, ge=1, le=65_535)
    """Port of the SSH server."""
    ssh_cidr: Cidr | None = Field(default=None, examples=["203.0.113.7/32"])
    """Addresses that may connect to SSH. Default: the address of the machine that drives the run, /32."""
    max_attempts: Count = Field(default=6, ge=1, le=50)
    """Maximum number of instances that a run starts, one after the other."""

    @property
    def named_types(self) -> tuple[str, ...]:
        """The instance types among which `gpus` chooses: those of the setting, or of our table by default."""
        return tuple(GPU_TYPES) if self.instance_types == ONE_GPU else self.instance_types

    @property
    def types(self) -> tuple[str, ...]:
        """The instance types that may be rented, as far as their GPUs are known."""
        return tuple(
            name
            for name in self.named_types
            if self.gpus == "auto" or name not in GPU_TYPES or GPU_TYPES[name].gpus == self.gpus
        )


class RaySettings(Section):
    """The cluster of `--on ray`, and what a training occupies there."""

    address: RayAddress = "auto"
    """"auto" (the cluster that this machine belongs to), HOST:6379 from a node of it, ray://HOST:10001 or,
    for its Jobs API, https://HOST or http://localhost:8265 from elsewhere."""
    cpus: Number = Field(default=1.0, ge=0, le=1024)
    """CPUs that a training occupies on its node; it computes and loads images with as many threads."""
    gpus: Number | None = Field(default=None, ge=0, le=1, examples=[0.25])
    """GPUs that a training occupies: 1, 0, or a fraction where several small ones share a GPU; left out, 1 where a node has
    one."""
    memory_gib: Number | None = Field(default=None, gt=0, examples=[8.0])
    """Main memory that a training occupies, GiB; left out, Ray does not count it."""
    resources: RayResources = Field(default_factory=dict, examples=[{"trainer": 1}])
    """Resources of your own that a node must have, by the names given to `ray start --resources`."""
    autoscales: Flag = False
    """Whether the cluster adds nodes by itself: then a training waits for one, instead of failing where no node is large
    enough."""
