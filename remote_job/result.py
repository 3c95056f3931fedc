"""The JSON documents that a training writes: its progress, its checkpoints and its result.

Local files below a spec's `output`, and the objects they become in the store:

    progress.jsonl                 runs/<run>/attempts/<n>/progress.jsonl   one ProgressEvent a line
    heartbeat.json                 runs/<run>/attempts/<n>/heartbeat.json   Heartbeat
    log.txt                        runs/<run>/attempts/<n>/log.txt
    checkpoint/manifest.json       runs/<run>/checkpoint/manifest.json      CheckpointManifest, written last
    checkpoint/<name>.pt           runs/<run>/checkpoint/<name>.pt
    checkpoint/<name>.json         runs/<run>/checkpoint/<name>.json        the last two manifests, for a damaged newest
    result/result.json             runs/<run>/result/result.json            TrainingResult, written last
    result/<artifact>              runs/<run>/result/<artifact>
"""

from collections.abc import Collection
from typing import Any, Literal

from pydantic import Field

from gpu_offload.dataset.task import Task
from gpu_offload.remote_job.pace.pace import Pace
from gpu_offload.remote_job.wire import Bytes, Count, Seconds, Text, Time, Wire

PREDICTIONS = "predictions.png"
"""The extra that shows what the model finds on held-out pictures."""

LEARNT_NOTHING = 0.01
"""Of a metric from 0 to 1, such as mAP50: below it, a model has learnt next to nothing."""

EventName = Literal[
    "start", "stage", "batch", "pace", "epoch", "checkpoint", "interrupted", "finished", "failed"
]
State = Literal["starting", "training", "finishing", "interrupted", "finished", "failed"]

MOST_METRICS, LONGEST_NAME = 500, 200
"""Metrics that a model may have, and letters of their names."""


def metrics_fault(metrics: Collection[str]) -> str:
    """Say what is wrong with the names of metrics; empty where nothing is."""
    if len(metrics) > MOST_METRICS:
        return f"{len(metrics)} metrics are too many: return at most {MOST_METRICS}"
    if "" in metrics:
        return "a metric has no name: give it one"
    longest = max(metrics, key=len, default="")
    if len(longest) <= LONGEST_NAME:
        return ""
    return (
        f"the metric {longest[:40]!r}... has a name of {len(longest)} letters: write at most {LONGEST_NAME}"
    )


class Artifact(Wire):
    """A file that counts only when its size and sha256 are right."""

    name: str
    size: Bytes
    sha256: str


class Export(Wire):
    """The model in another format, after it was compared with the model itself on held-out images."""

    format: str = Field(pattern="^[A-Za-z0-9]{1,16}$")
    """`onnx`, ..."""
    file: Artifact
    agreement: float
    """Share of the outputs that are the model's own, 0 to 1; see `remote_job.yolo.exports`."""
    images: int
    """How many images it was compared on."""


class ProgressEvent(Wire):
    """One line of progress; fields that do not belong to the event are absent.

    `seconds` is wall time: of the stage for `stage`, since the epoch began for `batch`, of the whole epoch
    (training, validation and saving) for `epoch`.
    """

    event: EventName
    time: Time
    """Unix time, seconds."""
    epoch: Count | None = None
    """Counted from 1."""
    epochs: Count | None = None
    batch: Count | None = None
    batches: Count | None = None
    stage: str | None = None
    seconds: Seconds | None = None
    losses: dict[str, float] | None = None
    metrics: dict[str, float] | None = None
    message: Text | None = None
    pace: Pace | None = None
    """Of `pace`, after the first steps, and of `epoch`."""


class Heartbeat(Wire):
    """That the training is alive, and how far it is. Rewritten every few seconds, uploaded every 15 s."""

    run: str
    attempt: Count
    time: Time
    pid: int
    host: str
    boot_id: str
    epochs_completed: Count
    epochs: Count
    batch: Count = 0
    batches: Count = 0
    state: State
    message: Text | None = None
    """Why it was interrupted or failed, in a sentence."""
    seconds_per_epoch: Seconds | None = None
    device: str | None = None
    pace: Pace | None = None
    trains_since: Time | None = None
    """When its first step began, Unix seconds; None before that."""


class CheckpointManifest(Wire):
    """Points at the newest complete checkpoint; replaced in one rename, or one PUT, after its files are there."""

    format: Literal[1] = 1
    run: str
    attempt: Count
    training_key: str
    epochs_completed: Count
    batches_completed: Count = 0
    """Batches of the next epoch that are behind it too: an interruption saves in the middle of an epoch."""
    epochs: Count
    last: Artifact
    best: Artifact | None = None
    seconds: Seconds
    """Wall seconds of training behind this checkpoint, over all attempts."""
    curves: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """What the user's own training has reported up to here, a value an epoch; Ultralytics' state holds its own."""

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The files that it names."""
        return (self.last,) if self.best is None else (self.last, self.best)

    @property
    def position(self) -> tuple[int, int]:
        """How far it is: completed epochs, then batches of the next one."""
        return self.epochs_completed, self.batches_completed

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(artifact.size for artifact in self.artifacts)


class Timings(Wire):
    """Wall seconds by stage; one entry an epoch where a list."""

    import_: Seconds = Field(default=0.0, alias="import")
    build: Seconds = 0.0
    scan: Seconds = 0.0
    calibration: Seconds = 0.0
    epoch_train: tuple[Seconds, ...] = ()
    epoch_validation: tuple[Seconds, ...] = ()
    epoch_save: tuple[Seconds, ...] = ()
    final_validation: Seconds = 0.0
    total: Seconds = 0.0
    installation: Seconds = 0.0
    """Of the project's requirements, before everything else; not in `total`."""


class TrainingResult(Wire):
    """What came out; written after the artifacts it names, so its presence means they are complete."""

    format: Literal[1] = 1
    run: str
    attempt: Count
    training_key: str
    fingerprint: str
    task: Task
    epochs: Count
    epochs_completed: Count
    stopped_early: bool = False
    """True when the training itself decided to stop (patience), not when it was interrupted."""
    model: Artifact
    extras: tuple[Artifact, ...] = ()
    exports: tuple[Export, ...] = ()
    failed_exports: dict[str, Text] = Field(default_factory=dict)
    """Why there is no file in a format that was asked for, by format."""
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]] = Field(default_factory=dict)
    curves: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """One value an epoch: losses and metrics by name, for the report."""
    causes: tuple[str, ...] = Field(default=(), max_length=100)
    """Why the model probably finds next to nothing, each with what to change; () where it does find something."""
    timings: Timings
    environment: dict[str, Any]
    speed: dict[str, Any] = Field(default_factory=dict)
    """The speed switches that were on, and why."""

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Every file of the result, the model first."""
        return (self.model, *self.extras, *(export.file for export in self.exports))


class Calibration(Wire):
    """The pace of a training on this machine, by its first steps."""

    format: Literal[2] = 2
    machine: str
    """What the machine is: processor, cores, memory; a calibration is valid for this machine only."""
    device: str
    model: str
    task: Task
    image_size: int
    batch: int
    gflops: float
    """Of one forward pass at `image_size`, as Ultralytics counts it."""
    parameters: int
    pace: Pace
    trial: float = 0.0
    """Of the seconds until it was ready, the trial of memory layouts that only a long training makes."""
    trial_steps: int = 0
    """From how many batches on a training makes that trial."""
    speed: dict[str, Any] = Field(default_factory=dict)
