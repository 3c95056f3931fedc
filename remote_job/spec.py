"""What to train: the JSON document that starts the training module, on the runner and on the instance alike."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gpu_offload.dataset.task import Task
from gpu_offload.errors import OffloadError
from gpu_offload.remote_job.wire import Wire

TRAINING_VERSION = "1"
"""Part of every training key. Raise it when a change to this package changes what a training yields."""

SWITCHES = (
    "threads",
    "allocator",
    "channels_last",
    "mixed_precision",
    "fused_norm",
    "fused_optimizer",
    "image_cache",
    "trial",
)
"""Names of the speed switches; see `remote_job.speed.plan`."""

LATER = Path("-")
"""In place of a spec's path, which then comes as a JSON string on a line of standard input."""


class SpecError(OffloadError):
    """The spec cannot be trained; `faults` lists everything that is wrong with it."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class DatasetRef(Wire):
    """Which dataset, and where its training tree is.

    Exactly one of `tree` (a folder made by `dataset.materialise`) and `archive` (the key of a `StagedDataset`, or of one
    archive made by `dataset.pack`) is given; the tree in the store is the same tree.
    """

    fingerprint: str
    tree: str | None = None
    archive: str | None = None


class Weights(Wire):
    """Starting weights that a stage before the training fetched: a local path, a key in the store, or both.

    The path is used where it exists.
    """

    sha256: str
    path: str | None = None
    key: str | None = None


class StoreRef(Wire):
    """An object store as `infra.store.factory.open_store` takes it; `file:` URLs are absolute here."""

    url: str
    endpoint_url: str | None = None
    region: str | None = None


class TrainingSpec(Wire):
    """The complete input of the training module.

    Everything that decides the result is in the training key; the rest (`run`, `attempt`, `output`, `store`) decides
    where the training runs and where its traces go.
    """

    format: Literal[1] = 1
    run: str
    attempt: int = Field(ge=1)
    training_key: str
    task: Task
    dataset: DatasetRef
    model: str
    """A model definition (`yolov8n.yaml`, a built-in name or a path) or the name of `weights`."""
    weights: Weights | None = None
    epochs: int = Field(ge=1)
    image_size: int = Field(ge=32)
    batch: int = Field(ge=1)
    seed: int = Field(ge=0)
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    """Handed to Ultralytics as they are."""
    entrypoint: str | None = None
    """`package.module:function` that trains in Ultralytics' place; see `docs/bring-your-own.md`."""
    license: str | None = None
    """SPDX expression of training code and weights, for the manifest; None where it is not known."""
    device: str = "auto"
    """Where to compute: `auto` is the first GPU where there is one, else the CPU; `cpu`, `mps`, `cuda`, `cuda:1`."""
    gpus: int = Field(default=1, ge=1)
    """How many GPUs train together, from the first on, a process each; the batch is divided among them. With `device` cpu so
    many processes share the CPU. A training of the user's own finds the number here and starts its processes itself."""
    project: str | None = None
    """A local folder with the entrypoint's modules and files; None for the working directory."""
    packages: str | None = None
    """A local folder, below which the project's requirements are installed; each lock has a folder of its own."""
    installed_s: float = Field(default=0.0, ge=0)
    """Seconds that installing them took on this machine."""
    exports: tuple[str, ...] = ()
    """Formats that the model is written in beside its own; see `remote_job.yolo.exports`. They do not decide the model."""
    exports_required: bool = False
    """Whether a result without one of them counts."""
    speed: dict[str, bool] = Field(default_factory=dict)
    """Speed switches (`SWITCHES`) turned on or off by hand; what is absent is chosen by the machine."""
    output: str
    """A local folder: progress.jsonl, heartbeat.json, log, checkpoint/, result/ are written below it."""
    store: StoreRef | None = None
    """Where `runs/<run>/...` is mirrored as the training goes on; None keeps everything local."""

    @property
    def base_model(self) -> str:
        """What trains, for people and for comparisons: code of one's own, or the model of Ultralytics."""
        return self.entrypoint or self.model
