"""A training's progress in words: a line an epoch, and the time left."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from gpu_offload.orchestrator.output.units import human_number
from gpu_offload.remote_job.result import ProgressEvent


def epoch_line(event: ProgressEvent, *, width: int = 76) -> str:
    """Return an epoch's loss and as many metrics as fit on a line, the main ones first."""
    seconds = event.seconds or 0.0
    line = f"epoch {event.epoch}/{event.epochs}  {seconds:.{1 if seconds < 10 else 0}f} s"
    losses = [value for name, value in (event.losses or {}).items() if not name.startswith("val/")]
    loss = sum(losses)
    parts = [f"loss {human_number(loss, 2 if loss < 10 else 1)}"] if losses else []
    shown = {k: v for k, v in (event.metrics or {}).items() if not is_hidden(k)}
    several = len({name[-3:] for name in shown if PART.search(name)}) > 1
    # A narrow line may have room for the first one only.
    names = sorted(shown, key=lambda name: "mAP" not in name)
    parts += [f"{metric_label(name, part=several)} {human_number(shown[name])}" for name in names]
    for part in parts:
        if len(line) + 2 + len(part) > width:
            break
        line += f"  {part}"
    return line


def is_hidden(name: str) -> bool:
    """Whether a metric is left out of an epoch's line: learning rates, validation losses, Ultralytics' fitness."""
    return name.startswith(("lr/", "fitness")) or (name.startswith("val/") and "loss" in name)


PART = re.compile(r"\((B|M|P)\)$")
SHORT = {"precision": "P", "recall": "R", "accuracy_top1": "top-1", "accuracy_top5": "top-5"}
"""As Ultralytics' own tables write them."""
PARTS = {"B": "box", "M": "mask", "P": "pose"}
"""What a metric of Ultralytics is about, by the letter at the end of its name."""


def metric_label(name: str, *, part: bool) -> str:
    """Return a metric's short name: `metrics/mAP50(M)` is `mask mAP50` if `part`, else `mAP50`."""
    short = PART.sub("", name.removeprefix("metrics/"))
    short = SHORT.get(short, short)
    letter = PART.search(name)
    return f"{PARTS[letter[1]]} {short}" if part and letter else short


AFTER = {"final": "exporting", "export": "drawing predictions"}
"""What a training does after a stage of its end."""


def closing_stage(event: ProgressEvent) -> str | None:
    """Return what a training does after its last epoch, None before it."""
    if event.event == "epoch" and event.epoch and event.epoch == event.epochs:
        return "final validation"
    return AFTER.get(event.stage or "") if event.event == "stage" else None


@dataclass(frozen=True, slots=True)
class Revised:
    """A training's time left by its own steps; `text` is for a log, and empty where it says nothing new."""

    text: str
    seconds: float


Revise = Callable[[ProgressEvent], Revised | None]
"""Returns what an event says about the time left."""


def unrevised(_event: ProgressEvent) -> None:
    """Say nothing about the time left."""


class TimeLeft:
    """How far a training is and how long it still takes: the estimate first, then what its steps or epochs took."""

    def __init__(self, likely_seconds: float | None) -> None:
        self._likely = likely_seconds
        self._first: float | None = None
        self._start_share = 0.0
        self._share = 0.0
        self._now = 0.0
        self._end: float | None = None

    def revise(self, seconds: float) -> None:
        """Take in how long it still takes from the last event on."""
        self._end = self._now + seconds

    def update(self, event: ProgressEvent) -> float | None:
        """Take an event in; return the share that is done, 0 to 1, None when the event says nothing of it."""
        if event.event not in {"batch", "pace", "epoch"} or not event.epoch or not event.epochs:
            return None
        whole = event.epoch if event.event == "epoch" else event.epoch - 1
        part = (event.batch or 0) / event.batches if event.event != "epoch" and event.batches else 0.0
        self._share, self._now = min(1.0, (whole + part) / event.epochs), event.time
        if self._first is None:
            self._first, self._start_share = event.time, self._share
        return self._share

    def text(self) -> str:
        """Return the time left, in words."""
        seconds = self.seconds()
        if seconds is None:
            return ""
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s left" if minutes else f"{rest} s left"

    def seconds(self) -> float | None:
        """Return the seconds left, None while nothing is known."""
        if self._end is not None:
            return max(0.0, self._end - self._now)
        if self._first is None:
            return self._likely
        elapsed, done = self._now - self._first, self._share - self._start_share
        measured = elapsed / done * (1 - self._share) if done > 0 else None
        if self._likely is None or measured is None:
            return measured if self._likely is None else self._likely * (1 - self._share)
        # The estimate counts like a tenth of the training that was seen; soon the training speaks for itself.
        trust = done / (done + 0.1)
        return trust * measured + (1 - trust) * self._likely * (1 - self._share)
