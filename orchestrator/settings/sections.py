"""The sections of `offload.toml`: every setting's name, type, default and meaning.

The names in the file are kebab-case, the attributes snake_case. `settings.types` holds the constraints on single
values, `settings.consistency` those between settings.
"""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gpu_offload.dataset.split import SplitRule
from gpu_offload.dataset.task import Task
from gpu_offload.infra.aws.gpu_types import GPU_TYPES, ONE_GPU
from gpu_offload.orchestrator.settings.types import (
    Cidr,
    Count,
    Device,
    Dimension,
    Distinct,
    Duration,
    Entrypoint,
    ExportFormat,
    Flag,
    Fold,
    Gpus,
    HttpUrl,
    Hyperparameter,
    Image,
    InitFrom,
    InstanceType,
    Model,
    NotEmpty,
    Number,
    Path,
    ProfileName,
    RayAddress,
    RayResources,
    Region,
    RoleArn,
    StoreUrl,
    Subnet,
    Text,
)


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class Section(BaseModel):
    """A table of the configuration: immutable, and without unknown names."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=_kebab,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )


class SplitSettings(Section):
    """How images that come without a split are divided; what is left of 1 is for training."""

    val: Number = Field(default=0.2, ge=0, lt=1)
    """Fraction of the images that validates each epoch."""
    test: Number = Field(default=0.0, ge=0, lt=1)
    """Fraction of the images that is kept out of the training altogether."""
    seed: Count = Field(default=0, ge=0)
    """Another seed divides differently; the same one never moves an image when others are added."""
    fold: Fold | None = Field(default=None, examples=["1/5"])
    """Validate on part k of n in place of val, for cross-validation: n trainings validate on every image once."""

    @property
    def rule(self) -> SplitRule:
        """The rule as the dataset package takes it."""
        fold = None if self.fold is None else self.fold.split("/")
        part = None if fold is None else (int(fold[0]), int(fold[1]))
        return SplitRule(seed=self.seed, val=self.val, test=self.test, fold=part)


class DatasetSettings(Section):
    """What is trained on."""

    path: Path = Field(examples=["raw_dataset"])
    """A flat folder of images and YOLO labels, a data.yaml, or a folder with one folder a class; relative to
    this file."""
    classes: Annotated[tuple[Text, ...], Distinct] = ()
    """Names of the classes in the order of their numbers in the labels; empty: as data.yaml or the folders
    name them."""
    task: Task | None = Field(default=None, examples=["detect"])
    """What is learnt; left out, the labels tell."""
    split: SplitSettings = SplitSettings()
    """How a flat folder is divided into training, validation and test images."""


class TrainingSettings(Section):
    """What is trained, and how."""

    model: Model = "yolov8n.yaml"
    """A definition (a built-in name or a path to a .yaml), published weights (yolo11n.pt),
    https://HOST/FILE.pt#sha256=..., or store:KEY."""
    epochs: Count = Field(default=20, ge=1, le=100_000)
    """Passes over the training images."""
    image_size: Count = Field(default=640, ge=32, le=8192)
    """Side of the square that images are scaled to, in pixels; a multiple of 32."""
    batch: Count = Field(default=16, ge=1, le=65_536)
    """Images a step."""
    seed: Count = Field(default=0, ge=0, le=2**31 - 1)
    """Seed of every random choice."""
    init_from: InitFrom = "scratch"
    """Weights that the model starts from, named as in model; "stable" or a version: those of a published version, which
    is continued; "scratch": random weights, or those that model itself names."""
    warm_epochs: Count | None = Field(default=None, ge=1, le=100_000, examples=[10])
    """Passes of a training that continues a version; left out, half of epochs."""
    max_warm_starts: Count = Field(default=5, ge=1, le=1000)
    """Trainings in a row that continue another one before one begins from scratch."""
    hyperparameters: dict[str, Hyperparameter] = Field(default_factory=dict)
    """Handed to Ultralytics as they are: lr0, optimizer, mosaic, patience, ..."""
    entrypoint: Entrypoint | None = Field(default=None, examples=["mine.train:main"])
    """package.module:function of your own that trains in Ultralytics' place."""
    include: Annotated[tuple[Path, ...], Distinct] = ()
    """Files, folders or patterns that the entrypoint reads beside the modules it imports; part of the training key."""
    requirements: Path | None = Field(default=None, examples=["requirements-train.txt"])
    """A requirements file for the entrypoint; locked with hashes and installed wherever it trains."""
    license: Text | None = Field(default=None, examples=["MIT"])
    """SPDX expression of the model's licence, for plan and manifest; left out, AGPL-3.0 for Ultralytics' models."""
    device: Device = "auto"
    """Where the training computes: "auto" (the first GPU, else the CPU), "cpu", "cuda", "cuda:1", "1" or "mps"."""
    isolation: Literal["auto", "required", "off"] = "auto"
    """On a runner of GitHub's: train as another user, without network and credentials, where the runner can ("auto"), or not at
    all ("required"); "off" for code of your own that needs the network or the runner's files. An instance always isolates."""
    speed: dict[str, Flag] = Field(default_factory=dict)
    """Speed switches turned on or off by hand; the machine chooses the others."""


class LimitSettings(Section):
    """What a run may take."""

    deadline: Duration = timedelta(hours=6)
    """Time from the start of a run to its end, over all its attempts; no instance outlives it."""
    max_cost_usd: Number = Field(default=1.0, ge=0)
    """Dollars a run may cost, over all its attempts; nothing is launched whose upper estimate is higher."""
    value_of_time_usd_per_hour: Number = Field(default=0.0, ge=0)
    """What an hour sooner is worth in dollars; 0: a GPU only where the CPU does not finish in time."""
    ci_limit: Duration = timedelta(hours=6)
    """When the CI job is ended from outside; 6h on a runner of GitHub's."""
    on_overrun: Literal["stop", "escalate", "continue"] = "stop"
    """What becomes of a run that will not keep its limits: stop with a checkpoint, escalate (from this CPU to an
    instance, from an instance to a faster one or to on-demand), or continue up to the limit."""


class StoreSettings(Section):
    """Where datasets, checkpoints and models are kept."""

    url: StoreUrl = "file:.offload"
    """file:FOLDER (relative to this file), s3://BUCKET/PREFIX, sftp://USER@HOST/PATH or hf://OWNER/REPOSITORY; file:.offload is
    kept outside of the checkout."""
    endpoint_url: HttpUrl | None = Field(default=None, examples=["https://ACCOUNT.r2.cloudflarestorage.com"])
    """Another server that speaks the S3 API: R2, MinIO, Ceph."""
    region: Text | None = Field(default=None, examples=["us-east-1"])
    """The bucket's region; left out, that of the environment. R2 needs "auto"."""
    public_url: HttpUrl | None = Field(default=None, examples=["https://models.example.org"])
    """Public web address of models/, aliases/ and index.json, if it is not the bucket's
    own."""


class RegistrySettings(Section):
    """Which versions become `stable`, and how they are counted."""

    metric: Text | None = Field(default=None, examples=["map50"])
    """What versions are judged by; left out, map50_95 of a detector and accuracy of a classifier."""
    floor: Number = Field(default=0.001, ge=0)
    """What a version must reach to become stable, the first one too; below it stays a candidate. The default holds only
    models that find nothing."""
    tolerance: Number = Field(default=0.02, ge=0)
    """How much worse than stable, on the same held-out images, a version may be and still replace it."""
    on_candidate: Literal["pass", "fail"] = "pass"
    """Result of `offload train` where the version it published stays a candidate: exit code 0, or 1."""
    on_revert: Literal["yank", "delete", "keep"] = "yank"
    """What becomes of a version whose data a later commit reverted: yank it, delete its files as well, or keep it."""
    exports: Annotated[tuple[ExportFormat, ...], Distinct] | None = Field(default=None, examples=[["onnx"]])
    """Formats that a model is published in beside its own; left out, safetensors for Ultralytics' models, and ONNX for those that
    detect."""
    on_failed_export: Literal["publish", "fail"] = "publish"
    """What becomes of a model that cannot be written in a format, or differs there: publish it without, or fail."""
    site: Literal["off", "store"] = "off"
    """Whether each publication writes the model's page, site/index.html and site/feed.xml, in the store."""
    bump: Literal["auto", "major", "minor", "patch"] = "auto"
    """How far a version is from its parent; auto: major for other classes, model family or image size, minor for other
    data, else patch."""


class RetentionSettings(Section):
    """What is deleted after each publication."""

    mode: Literal["off", "dry-run", "delete"] = "off"
    """What happens after a publication: nothing, a note of what would be deleted, or the deletion."""
    keep: Count = Field(default=5, ge=1)
    """The newest versions, which stay."""
    days: Number = Field(default=30.0, ge=0)
    """Versions, checkpoints and staged datasets younger than this stay."""
    below_gb: Number | None = Field(default=None, ge=0, examples=[4.5])
    """Delete only as much as brings the store below this, in GB, the oldest first."""


class Ec2Settings(Section):
    """Which instances may be rented."""

    regions: Annotated[tuple[Region, ...], Distinct, NotEmpty] = ("us-east-1", "us-east-2", "us-west-2")
    """Regions to look for offers in."""
    instance_types: Annotated[tuple[InstanceType, ...], Distinct, NotEmpty] = ONE_GPU
    """Instance types that may be rented; left out, those of our price table with as many GPUs as `gpus` says."""
    gpus: Gpus = Field(default=1, examples=[4])
    """GPUs of an instance: only types with so many are rented; "auto" for any number. Several train together, and training.batch
    is divided among them."""
    market: Literal["spot", "on-demand", "spot-then-on-demand"] = "spot-then-on-demand"
    """Cheap and reclaimable, dear and safe, or the first until the deadline asks for the second."""
    policy: Literal["expected-cost", "uniform-progress", "greedy", "on-demand"] = "expected-cost"
    """How "spot-then-on-demand" chooses: at the least expected cost; ahead of a straight line to the deadline; spot or
    waiting for it as long as the deadline allows; or on-demand first. All of them keep the deadline."""
    image: Image | None = Field(default=None, examples=["ami-0123456789abcdef0"])
    """An AMI, or an SSM parameter that names one; left out, Amazon's deep-learning image. An AMI belongs to
    one region."""
    subnet: Subnet | None = Field(default=None, examples=["subnet-0123456789abcdef0"])
    """A subnet that instances start in; left out, the default one of the zone. A subnet belongs to one zone."""
    instance_profile: ProfileName | None = Field(default=None, examples=["gpu-offload-trainer"])
    """Name of the instance profile by which an instance writes below its own run; `offload bootstrap` makes
    it."""
    schedule_role: RoleArn | None = Field(
        default=None, examples=["arn:aws:iam::123456789012:role/gpu-offload-scheduler"]
    )
    """ARN of the role by which EventBridge Scheduler terminates an instance at its deadline; `offload
    bootstrap` makes it."""
    volume_gib: Count = Field(default=60, ge=8, le=16_384)
    """Size of the root volume, GiB."""
    ssh_port: Count = Field(default=22, ge=1, le=65_535)
    """Port that SSH listens on."""
    ssh_cidr: Cidr | None = Field(default=None, examples=["203.0.113.7/32"])
    """Addresses that may reach SSH; left out, that of the machine which drives the run, /32."""
    max_attempts: Count = Field(default=6, ge=1, le=50)
    """Instances a run may start, one after the other."""

    @property
    def types(self) -> tuple[str, ...]:
        """The instance types that may be rented, as far as their GPUs are known."""
        return tuple(
            name
            for name in (GPU_TYPES if self.instance_types == ONE_GPU else self.instance_types)
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


class SweepSettings(Section):
    """Which values `offload sweep` tries. Every other name is a setting of [training], or else one of its
    hyperparameters: a range ("0.1..0.9", "8..64", "log 1e-4..1e-1", "0..1 step 0.25") or a list of values.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Dimension] = Field(init=False)

    seed: Count = Field(default=1, ge=1, le=100)
    """Trainings of each trial with seeds of their own, from training.seed on; several give an interval."""
    folds: Count = Field(default=1, ge=1, le=100)
    """Parts for cross-validation: each trial is trained once for each part that validates; 1: no folds."""
    trials: Count | None = Field(default=None, ge=1, le=10_000, examples=[12])
    """Trials at most; left out, every combination of lists where there are at most 20, else 20."""
    parallel: Count = Field(default=1, ge=1, le=256)
    """Trainings at the same time, on instances or a Ray cluster; this machine trains one after the other."""
    budget_usd: Number | None = Field(default=None, ge=0, examples=[2.0])
    """Dollars that the whole sweep may cost; left out, limits.max-cost-usd."""
    deadline: Duration | None = Field(default=None, examples=["12h"])
    """Time from the start of the sweep to its end; left out, limits.deadline."""
    prune: Flag = True
    """Stop a trial early whose epochs are worse than those of two thirds of the others (successive halving)."""
    goal: Literal["maximize", "minimize"] = "maximize"
    """Whether a higher or a lower registry.metric is better."""


class Sections(Section):
    """The whole of the configuration."""

    dataset: DatasetSettings
    """What is trained on."""
    training: TrainingSettings = TrainingSettings()
    """What is trained, and how."""
    limits: LimitSettings = LimitSettings()
    """What a run may take."""
    store: StoreSettings = StoreSettings()
    """Where datasets, checkpoints and models are kept."""
    registry: RegistrySettings = RegistrySettings()
    """Which versions become `stable`, and how they are counted."""
    retention: RetentionSettings = RetentionSettings()
    """What is deleted after each publication."""
    ec2: Ec2Settings = Ec2Settings()
    """Which instances may be rented."""
    ray: RaySettings = RaySettings()
    """The cluster of `--on ray`, and what a training occupies there."""
    sweep: SweepSettings = SweepSettings()
    """Which values `offload sweep` tries."""
