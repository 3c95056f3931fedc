"""Times of finished trainings, kept in the store; the estimate learns from them."""

import importlib.metadata
import itertools
import re
import time
from collections.abc import Iterator
from typing import Any

from pydantic import Field, ValidationError

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.newest_first import newest_first
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.estimate.posterior import HistoryKey, Ratio
from gpu_offload.remote_job.wire import Wire

TIMINGS = "timings/"
NEWEST = "timings/newest/"
"""Below it a listing begins with the newest (`newest_first`), so that older ones cost nothing."""
MOST_RECENT = 200
"""Most timings read: older ones say little about today's machines and releases."""

KEPT = "timings.json"
"""The timings that a release keeps, in one object: what has only web addresses cannot be listed."""
MOST_KEPT = 50

DAY_S = 86_400.0


class Work(Wire):
    """What was trained, as far as its time depends on it."""

    task: str
    model: str
    image_size: int
    batch: int
    epochs: int
    train_images: int
    val_images: int


class Timing(Wire):
    """A finished training; `predicted` is the uncorrected estimate.

    Both are seconds: of the training's process on a CPU, from launch to the instance's end on EC2, boot and set-up
    included. What follows them came later, and older records lack it.
    """

    format: int = 1
    run: str
    machine: str
    ultralytics: str
    dataset: str
    family: str
    predicted: float
    actual: float
    at: float = 0.0
    """When it ended, Unix seconds."""
    planned: Interval | None = None
    """The whole run in seconds, as the plan said."""
    forecast: Interval | None = None
    """The same, as it was revised after the training's first steps."""
    whole: float | None = None
    """The same, as it was."""
    left: tuple[float, float] | None = None
    """After the first steps: the seconds left as forecast, uncorrected, and as they were."""
    share: float = 1.0
    """Of the processor time it could have used, what the training got in its first steps."""
    stages: dict[str, float] = Field(default_factory=dict)
    """Seconds by stage."""
    installed: dict[str, float] = Field(default_factory=dict)
    """Seconds of installing, by what (`installation.Part`); `whole` and `planned` have them, `actual` and `predicted` not."""
    work: Work | None = None
    environment: dict[str, Any] = Field(default_factory=dict)

    @property
    def key(self) -> HistoryKey:
        """What it must share with another training to say something about it."""
        return HistoryKey(self.machine, self.ultralytics, self.dataset, self.family)


class KeptTimings(Wire):
    """What a release keeps of past trainings, the newest first."""

    format: int = 1
    timings: tuple[Timing, ...] = Field(default=(), max_length=MOST_KEPT)


def timing_key(at: float, run: str) -> str:
    """Return the key of a run's timing; `at` is in Unix seconds."""
    return f"{NEWEST}{newest_first(at, run)}.json"


def ultralytics_minor() -> str:
    """Return the minor version of Ultralytics: of the installed one, else of the one that a training's job installs."""
    try:
        version = importlib.metadata.version("ultralytics")
    except importlib.metadata.PackageNotFoundError:
        from gpu_offload.infra.instance.software import LOCK

        text = LOCK.read_text(encoding="utf-8") if LOCK.is_file() else ""
        found = re.search(r"^ultralytics==(\S+)", text, re.MULTILINE)
        version = found[1] if found else ""
    return ".".join(version.split(".")[:2])


def family_of(model: str) -> str:
    """Return a model's family: `yolo26-seg` for `weights/yolo26n-seg.pt`."""
    stem = model.rsplit("/", 1)[-1].split(".", 1)[0]
    base, dash, task = stem.partition("-")
    return base.rstrip("nsmlx") + dash + task


def timings(store: ObjectStore) -> Iterator[Timing]:
    """Yield the most recent timings, the oldest first; one that cannot be read is skipped."""
    try:
        recent = list(itertools.islice(store.list(NEWEST), MOST_RECENT))[::-1]
        if len(recent) < MOST_RECENT:  # those of before have other names
            recent = sorted(store.list(TIMINGS), key=lambda info: info.modified)[-MOST_RECENT:]
        for info in recent:
            body, _ = store.read(info.key)
            try:
                timing = Timing.model_validate_json(body)
            except ValidationError:
                continue
            at = timing.at or info.modified.timestamp()
            yield timing.model_copy(update={"at": at})
    except StoreError:
        return


def history(store: ObjectStore, now: float | None = None) -> Iterator[Ratio]:
    """Yield the ratios of past trainings, aged by `now` (Unix seconds)."""
    now = time.time() if now is None else now
    for timing in timings(store):
        age = max(0.0, now - timing.at) / DAY_S
        left = timing.left
        try:
            rest = Ratio(left[0], left[1]).log if left else None
            yield Ratio(
                timing.predicted,
                timing.actual,
                timing.key,
                age_days=age,
                rest=rest,
                installed=timing.installed,
            )
        except ValueError:
            continue
