"""The sections of `offload.toml`: every setting's name (kebab-case there), type, default and meaning."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from gpu_offload.dataset.split import SplitRule
from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.settings.dimension import Scalar, path_of
from gpu_offload.orchestrator.settings.machines import Ec2Settings, RaySettings
from gpu_offload.orchestrator.settings.section import Section
from gpu_offload.orchestrator.settings.types import (
    Count,
    Device,
    Dimension,
    Distinct,
    Duration,
    Entrypoint,
    ExportFormat,
    Flag,
    Fold,
    Goal,
    HttpUrl,
    Hyperparameter,
    InitFrom,
    Model,
    Number,
    Path,
    Speed,
    StoreUrl,
    Text,
)


class SplitSettings(Section):
    """How to split images that come without a split; the remaining fraction is for training."""

    val: Number = Field(default=0.2, ge=0, lt=1)
    """Fraction of the images used for validation."""
    test: Number = Field(default=0.0, ge=0, lt=1)
    """Fraction of the images used for neither training nor validation."""
    seed: Count = Field(default=0, ge=0)
    """Seed of the split. With the same seed, adding images never moves another image."""
    fold: Fold | None = Field(default=None, examples=["1/5"])
    """Part k of n to validate on, in place of val, for cross-validation."""

    @property
    def rule(self) -> SplitRule:
        """The rule as the dataset package takes it."""
        fold = None if self.fold is None else self.fold.split("/")
        part = None if fold is None else (int(fold[0]), int(fold[1]))
        return SplitRule(seed=self.seed, val=self.val, test=self.test, fold=part)


class DatasetSettings(Section):
    """The dataset to train on."""

    path: Path = Field(examples=["raw_dataset"])
    """A flat folder of images and YOLO labels, a data.yaml, or a folder with one subfolder per class; relative to
    this file."""
    classes: Annotated[tuple[Text, ...], Distinct] = ()
    """Class names in the order of their indices in the labels. Empty: taken from data.yaml or the folders."""
    task: Task | None = Field(default=None, examples=["detect"])
    """The task. Default: inferred from the labels."""
    split: SplitSettings = SplitSettings()
    """How to split a flat folder into training, validation and test images."""


class TrainingSettings(Section):
    """The model and how to train it."""

    model: Model = "yolov8n.yaml"
    """A definition (a built-in name or a path to a .yaml), published weights (yolo11n.pt),
    https://HOST/FILE.pt#sha256=..., or store:KEY."""
    epochs: Count = Field(default=20, ge=1, le=100_000)
    """Passes over the training images."""
    image_size: Count = Field(default=640, ge=32, le=8192)
    """Side of the square that images are scaled to, in pixels; a multiple of 32."""
    batch: Count = Field(default=16, ge=1, le=65_536)
    """Images per batch."""
    seed: Count = Field(default=0, ge=0, le=2**31 - 1)
    """Random seed."""
    init_from: InitFrom = "scratch"
    """Initial weights, named as in model. "stable" or a version continues that published version; "scratch" takes random
    weights, or those that model names."""
    warm_epochs: Count | None = Field(default=None, ge=1, le=100_000, examples=[10])
    """Epochs of a training that continues a version. Default: half of epochs."""
    max_warm_starts: Count = Field(default=5, ge=1, le=1000)
    """Number of consecutive warm starts before a training starts from scratch."""
    hyperparameters: dict[str, Hyperparameter] = Field(default_factory=dict)
    """Passed to Ultralytics unchanged: lr0, optimizer, mosaic, patience, ..."""
    entrypoint: Entrypoint | None = Field(default=None, examples=["mine.train:main"])
    """package.module:function of your own that trains instead of Ultralytics."""
    include: Annotated[tuple[Path, ...], Distinct] = ()
    """Files, folders or patterns that the entrypoint needs besides the modules it imports; part of the training key."""
    requirements: Path | None = Field(default=None, examples=["requirements-train.txt"])
    """Requirements file of the entrypoint. It is locked with hashes and installed wherever the training runs."""
    license: Text | None = Field(default=None, examples=["MIT"])
    """SPDX expression of the model's licence, for plan and manifest. Default for Ultralytics' models: AGPL-3.0."""
    device: Device = "auto"
    """Device: "auto" (the first GPU, else the CPU), "cpu", "cuda", "cuda:1", "1" or "mps"."""
    isolation: Literal["auto", "required", "off"] = "auto"
    """On a runner of GitHub's: train as another user, without network and credentials, where the runner can ("auto"), or not at
    all ("required"); "off" for code of your own that needs the network or the runner's files. An instance always isolates."""
    speed: Speed = Field(default_factory=dict)
    """Speed switches to turn on or off; the others are chosen for the machine."""

    def having(self, values: Mapping[str, Scalar]) -> "TrainingSettings":
        """Return these settings with the values of a sweep's dimensions. Raises ValidationError."""
        data = self.model_dump()
        for name, value in values.items():
            path = path_of(name)
            table = data["hyperparameters"] if len(path) == 3 else data
            table[path[-1] if len(path) == 3 else path[-1].replace("-", "_")] = value
        return TrainingSettings.model_validate(data)

    @property
    def base_model(self) -> str:
        """The user's own code that trains, or the model of Ultralytics; for people and for comparisons."""
        return self.entrypoint or self.model


class LimitSettings(Section):
    """Limits of a run."""

    deadline: Duration = timedelta(hours=6)
    """Maximum duration of a run, all attempts included. No instance outlives it."""
    max_cost_usd: Number = Field(default=1.0, ge=0)
    """Maximum cost of a run in USD, all attempts included. No instance is launched whose upper estimate is higher."""
    value_of_time_usd_per_hour: Number = Field(default=0.0, ge=0)
    """Value of finishing an hour earlier, in USD. 0: rent a GPU only if the CPU does not finish in time."""
    ci_limit: Duration = timedelta(hours=6)
    """Time limit of the CI job; 6h on GitHub-hosted runners."""
    on_overrun: Literal["stop", "escalate", "continue"] = "stop"
    """Action for a run that will exceed its limits: stop with a checkpoint, escalate (from this CPU to an instance, from
    an instance to a faster one or to on-demand), or continue up to the limit."""


class StoreSettings(Section):
    """Storage of datasets, checkpoints and models."""

    url: StoreUrl = "file:.offload"
    """file:FOLDER (relative to this file), s3://BUCKET/PREFIX, sftp://USER@HOST/PATH or hf://OWNER/REPOSITORY; file:.offload is
    kept outside of the checkout."""
    endpoint_url: HttpUrl | None = Field(default=None, examples=["https://ACCOUNT.r2.cloudflarestorage.com"])
    """Another server that speaks the S3 API: R2, MinIO, Ceph."""
    region: Text | None = Field(default=None, examples=["us-east-1"])
    """The bucket's region. Default: the region of the environment. R2 needs "auto"."""
    public_url: HttpUrl | None = Field(default=None, examples=["https://models.example.org"])
    """Public web address of models/, aliases/ and index.json, if it differs from the bucket's."""


LOWEST = 0.001
"""A metric below this is that of a model that finds nothing."""


class RegistrySettings(Section):
    """Which versions become `stable`, and how they are numbered."""

    metric: Text | None = Field(default=None, examples=["map50"])
    """Metric that compares versions. Default: map50_95 for detectors, accuracy for classifiers."""
    goal: Goal = "maximize"
    """Whether a higher or a lower metric is better."""
    floor: Number | None = Field(default=None, examples=[0.3])
    """Worst metric for stable, also for the first version; a worse one stays a candidate. Default: 0.001, which only stops
    models that find nothing; none where goal is minimize."""
    tolerance: Number = Field(default=0.02, ge=0)
    """Maximum loss of the metric against stable, on the same held-out images, with which a version replaces it."""
    on_candidate: Literal["pass", "fail"] = "pass"
    """Exit code of `offload train` if the published version stays a candidate: 0 (pass) or 1 (fail)."""
    on_revert: Literal["yank", "delete", "keep"] = "yank"
    """Action for a version whose data a later commit reverted: yank it, also delete its files, or keep it."""
    exports: Annotated[tuple[ExportFormat, ...], Distinct] | None = Field(default=None, examples=[["onnx"]])
    """Formats to publish a model in besides its own. Default: safetensors for Ultralytics' models, and ONNX for detectors."""
    on_failed_export: Literal["publish", "fail"] = "publish"
    """Action if an export fails or differs from the model: publish without it, or fail."""
    site: Literal["off", "store"] = "off"
    """Whether each publication writes the model's page, site/index.html and site/feed.xml, in the store."""
    bump: Literal["auto", "major", "minor", "patch"] = "auto"
    """Part of the version number to increase. auto: major for other classes, model family or image size, minor for other
    data, else patch."""

    @property
    def worst(self) -> float | None:
        """The floor that is in force."""
        return LOWEST if self.floor is None and self.goal == "maximize" else self.floor


class RetentionSettings(Section):
    """Deletions after each publication."""

    mode: Literal["off", "dry-run", "delete"] = "off"
    """Action after a publication: nothing, report what would be deleted, or delete it."""
    keep: Count = Field(default=5, ge=1)
    """Number of newest versions to keep."""
    days: Number = Field(default=30.0, ge=0)
    """Minimum age, in days, of versions, checkpoints and staged datasets that are deleted."""
    below_gb: Number | None = Field(default=None, ge=0, examples=[4.5])
    """Delete only until the store is below this size, in GB, oldest first."""


class SweepSettings(Section):
    """Which values `offload sweep` tries. Every other name is a setting of [training], or else one of its
    hyperparameters: a range ("0.1..0.9", "8..64", "log 1e-4..1e-1", "0..1 step 0.25") or a list of values.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Dimension] = Field(init=False)

    seed: Count = Field(default=1, ge=1, le=100)
    """Trainings per trial, with seeds from training.seed on; several give an interval."""
    folds: Count = Field(default=1, ge=1, le=100)
    """Folds of cross-validation: one training per fold and seed; 1: no folds."""
    trials: Count | None = Field(default=None, ge=1, le=10_000, examples=[12])
    """Maximum number of trials. Default: every combination of lists, at most 20."""
    parallel: Count = Field(default=1, ge=1, le=256)
    """Trainings at the same time, on instances or a Ray cluster; this machine trains one after the other."""
    budget_usd: Number | None = Field(default=None, ge=0, examples=[2.0])
    """Maximum cost of the sweep in USD. Default: limits.max-cost-usd."""
    deadline: Duration | None = Field(default=None, examples=["12h"])
    """Maximum duration of the sweep. Default: limits.deadline."""
    prune: Flag = True
    """Stop a trial early if its epochs are worse than those of two thirds of the others (successive halving)."""


class Sections(Section):
    """The whole of the configuration."""

    dataset: DatasetSettings
    training: TrainingSettings = TrainingSettings()
    limits: LimitSettings = LimitSettings()
    store: StoreSettings = StoreSettings()
    registry: RegistrySettings = RegistrySettings()
    retention: RetentionSettings = RetentionSettings()
    ec2: Ec2Settings = Ec2Settings()
    ray: RaySettings = RaySettings()
    sweep: SweepSettings = SweepSettings()
    """Which values `offload sweep` tries."""
