"""A run's report as one value: outcome, time, cost, metrics.

Text in it that a training, a branch or a cloud wrote is untrusted; the renderers escape it.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from gpu_offload.orchestrator.cost.bill import Bill
from gpu_offload.orchestrator.output.metrics import named
from gpu_offload.orchestrator.run.activity import run_seconds
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.record import Outcome, RunRecord
from gpu_offload.remote_job.result import ProgressEvent, TrainingResult
from gpu_offload.remote_job.wire import YEAR_9999

Phase = Literal["request", "set-up", "training", "ending"]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of an attempt, in Unix seconds."""

    attempt: int
    phase: Phase
    start: float
    end: float


SHORTEST_S = 1e-3
"""Shortest span that is drawn: Mermaid counts in milliseconds."""

LARGEST = sys.float_info.max / 8
"""The largest value that is drawn."""


def drawable(spans: Sequence[Span]) -> list[Span]:
    """Return the spans that a timeline draws: clipped to what a date can name, and those of no length left out."""
    clipped = [
        replace(span, start=max(0.0, span.start), end=min(YEAR_9999, span.end))
        for span in spans
        if not math.isnan(span.start + span.end)
    ]
    return [span for span in clipped if span.end - span.start >= SHORTEST_S]


def is_drawable(values: Sequence[float]) -> bool:
    """Whether a curve can be drawn: the distances of its values are finite, and what is added to them, too."""
    return all(abs(value) <= LARGEST for value in values)


@dataclass(frozen=True, slots=True)
class Before:
    """The version that was published before this one, to compare with."""

    version: str
    metrics: Mapping[str, float]
    semver: str | None = None

    @property
    def name(self) -> str:
        """Its number, or its digits where it has none."""
        return self.semver or self.version


@dataclass(frozen=True, slots=True)
class Report:
    """A run, finished or not. `events` are the trainings' own, by attempt."""

    run: RunRecord
    now: float
    """Unix seconds; where nothing works on an open run any more, when that began."""
    bill: Bill
    attempts: tuple[ObservedAttempt, ...] = ()
    outcome: Outcome | None = None
    result: TrainingResult | None = None
    events: Mapping[int, tuple[ProgressEvent, ...]] = field(default_factory=dict)
    before: Before | None = None
    semver: str | None = None
    picture: bytes | None = None
    """A PNG of predictions on held-out pictures; see `report.picture`."""

    candidate: str | None = None
    """Why the version is not `stable`; None where it is, or was."""
    yanked: str | None = None
    """Why the version was yanked; None where it was not."""
    is_idle: bool = False
    """Whether nothing works on an open run: its process was stopped or killed."""

    @property
    def status(self) -> str:
        """`open`, `published`, `stopped` or `failed`."""
        return self.outcome.status if self.outcome else "open"

    @property
    def name(self) -> str:
        """The version's number, or its digits where it has none."""
        return self.semver or self.run.version

    @property
    def seconds(self) -> float:
        """The run's time; see `run.activity`."""
        return run_seconds(self.run, self.attempts, self.until)

    @property
    def installing(self) -> float:
        """The part of that time in which the job and the training installed software."""
        return self.run.installed_s + (self.result.timings.installation if self.result else 0.0)

    @property
    def until(self) -> float:
        """The run's end, or now, in Unix seconds."""
        return self.outcome.at if self.outcome else self.now

    @property
    def curves(self) -> dict[str, tuple[float, ...]]:
        """Losses and metrics, a value an epoch: the result's, or those of the epochs so far."""
        if self.result is not None:
            return dict(self.result.curves)
        by_epoch: dict[int, dict[str, float]] = {}
        for number in sorted(self.events):
            for event in self.events[number]:
                if event.event == "epoch" and event.epoch:
                    # A resumed attempt repeats the epoch after its checkpoint: the later one counts.
                    by_epoch[event.epoch] = {**(event.losses or {}), **(event.metrics or {})}
        names = list(dict.fromkeys(name for values in by_epoch.values() for name in values))
        return {
            name: tuple(by_epoch[e][name] for e in sorted(by_epoch) if name in by_epoch[e]) for name in names
        }

    @property
    def spans(self) -> tuple[Span, ...]:
        """The timeline: what each attempt spent its time with."""
        found: list[Span] = []
        for attempt in self.attempts:
            # An attempt on a CPU is closed by the process that has published its model.
            number, end = attempt.record.number, min(attempt.end.at, self.until) if attempt.end else self.now
            # A training that resumes here goes on with the progress file of the attempt before it.
            times = [
                event.time
                for event in self.events.get(number, ())
                if event.event in {"batch", "epoch"} and event.time >= attempt.record.created_at
            ]
            launched = attempt.host.launched_at if attempt.host else attempt.record.created_at
            marks: list[tuple[Phase, float, float]] = [("request", attempt.record.created_at, launched)]
            if attempt.end is not None and attempt.end.reason == "refused":
                marks = [("request", attempt.record.created_at, end)]
            elif not times:
                marks.append(("set-up", launched, end))
            else:
                began, last = times[0], max(times)
                marks += [("set-up", launched, began), ("training", began, last), ("ending", last, end)]
            found += [Span(number, phase, start, max(start, stop)) for phase, start, stop in marks]
        return tuple(found)

    @property
    def metrics(self) -> dict[str, float]:
        """The model's final metrics; see `named`."""
        return named(self.result.metrics) if self.result else {}

    @property
    def is_on_cpu(self) -> bool:
        """Whether every attempt was the free runner's, or this machine's."""
        return bool(self.attempts) and all(a.record.offer.where == "cpu" for a in self.attempts)

    def json(self) -> dict[str, Any]:
        """Return everything as one JSON object; docs/report.md describes it."""
        return {
            "run": self.run.id,
            "status": self.status,
            "idle": self.is_idle,
            "version": self.run.version,
            "candidate": self.candidate,
            "yanked": self.yanked,
            "causes": list(self.result.causes) if self.result else [],
            "training_key": self.run.training_key,
            "fingerprint": self.run.fingerprint,
            "why": self.run.why,
            "message": self.outcome.message if self.outcome else "",
            "seconds": self.seconds,
            "estimate": self.run.estimate.json(),
            "installing": {
                "estimate": self.run.installation.json() if self.run.installation else None,
                "seconds": round(self.installing, 3),
            },
            "cpu_estimate": self.run.cpu_estimate.json() if self.run.cpu_estimate else None,
            "cost": self.bill.json(),
            "attempts": [
                {
                    "number": a.record.number,
                    "offer": a.record.offer.name,
                    "instance": a.host.instance_id if a.host else None,
                    "opened_at": a.record.created_at,
                    "launched_at": a.host.launched_at if a.host else None,
                    "ended_at": a.end.at if a.end else None,
                    "reason": a.end.reason if a.end else None,
                    "message": a.end.message if a.end else "",
                    "epochs_completed": a.epochs_completed,
                    "device": a.heartbeat.device if a.heartbeat else None,
                }
                for a in self.attempts
            ],
            "timeline": [asdict(span) for span in self.spans],
            "metrics": dict(self.result.metrics) if self.result else {},
            "per_class": {k: dict(v) for k, v in self.result.per_class.items()} if self.result else {},
            "curves": {name: list(values) for name, values in self.curves.items()},
        }
