"""What a run did, what it cost and how it compares: one value, and the rows that every rendering shows.

Whatever a training, a branch or a cloud has written into it is untrusted; the renderers escape it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from gpu_offload.orchestrator.cost.bill import CPU_LABEL, Bill
from gpu_offload.orchestrator.output.units import human_duration, human_money
from gpu_offload.orchestrator.report.metrics import NAMES, display_order, named
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.record import Outcome, RunRecord
from gpu_offload.remote_job.result import ProgressEvent, TrainingResult

SHOWN_CANDIDATES = 8
Rows = list[tuple[str, ...]]
"""A table: the headings first."""


Phase = Literal["request", "set-up", "training", "ending"]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of an attempt, in Unix seconds."""

    attempt: int
    phase: Phase
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Report:
    """A run, finished or not, at `now` (Unix seconds). `events` are the trainings' own, by attempt."""

    run: RunRecord
    now: float
    bill: Bill
    attempts: tuple[ObservedAttempt, ...] = ()
    outcome: Outcome | None = None
    result: TrainingResult | None = None
    events: Mapping[int, tuple[ProgressEvent, ...]] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """`open`, `published`, `stopped` or `failed`."""
        return self.outcome.status if self.outcome else "open"

    @property
    def seconds(self) -> float:
        """From the beginning to the end, or until now."""
        return max(0.0, (self.outcome.at if self.outcome else self.now) - self.run.created_at)

    @property
    def title(self) -> str:
        """One line that says it all."""
        what = f"version {self.run.version}" if self.status == "published" else self.status
        return f"Run {self.run.id}: {what}, {human_duration(self.seconds)}, {human_money(self.bill.total)}"

    @property
    def curves(self) -> dict[str, tuple[float, ...]]:
        """Losses and metrics, a value an epoch: the result's, or those of the epochs so far."""
        if self.result is not None:
            return dict(self.result.curves)
        by_epoch: dict[int, dict[str, float]] = {}
        for number in sorted(self.events):
            for event in self.events[number]:
                if event.event == "epoch" and event.epoch:
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
            number, end = attempt.record.number, attempt.end.at if attempt.end else self.now
            events = self.events.get(number, ())
            launched = attempt.host.launched_at if attempt.host else attempt.record.created_at
            began = next((e.time for e in events if e.event in {"batch", "epoch"}), None)
            last = max((e.time for e in events if e.event in {"batch", "epoch"}), default=None)
            marks: list[tuple[Phase, float, float]] = [("request", attempt.record.created_at, launched)]
            if attempt.end is not None and attempt.end.reason == "refused":
                marks = [("request", attempt.record.created_at, end)]
            elif began is None or last is None:
                marks.append(("set-up", launched, end))
            else:
                marks += [("set-up", launched, began), ("training", began, last), ("ending", last, end)]
            found += [Span(number, phase, start, max(start, stop)) for phase, start, stop in marks]
        return tuple(found)

    @property
    def metrics(self) -> dict[str, float]:
        """The model's final metrics; see `named`."""
        return named(self.result.metrics) if self.result else {}

    def where_rows(self) -> Rows:
        """What was offered, the best first: offer, likely, at most, USD/h, basis."""
        rows: Rows = [("offer", "likely", "at most", "USD/h", "price from")]
        rows += [
            (
                c.offer.name,
                human_duration(c.seconds.likely),
                human_duration(c.seconds.high),
                f"{c.offer.usd_per_hour:.4f}",
                c.offer.price_basis,
            )
            for c in self.run.candidates[:SHOWN_CANDIDATES]
        ]
        return rows

    def estimate_rows(self) -> Rows:
        """Estimate against what it was."""
        estimate = self.run.estimate
        rows: Rows = [("", "low", "likely", "high", "actual", "")]
        verdict = "not over yet"
        if self.outcome is not None:
            inside = estimate.low <= self.seconds <= estimate.high
            ratio = f"{self.seconds / estimate.likely:.2f} of the likely time" if estimate.likely else ""
            verdict = ", ".join(x for x in (ratio, "inside" if inside else "outside the interval") if x)
        rows.append(
            (
                "the whole run",
                human_duration(estimate.low),
                human_duration(estimate.likely),
                human_duration(estimate.high),
                human_duration(self.seconds),
                verdict,
            )
        )
        if self.result is not None:
            took = human_duration(self.result.timings.total)
            rows.append(("the training alone", "", "", "", took, "the last attempt's process"))
        cpu = self.run.cpu_estimate
        if cpu is not None and self.run.candidates and self.run.candidates[0].offer.where != "cpu":
            rows.append(
                (
                    "the free CPU instead",
                    human_duration(cpu.low),
                    human_duration(cpu.likely),
                    human_duration(cpu.high),
                    "",
                    "not tried",
                )
            )
        return rows

    def cost_rows(self) -> Rows:
        """The bill, line by line; the last row is the sum of those above it, exactly."""
        rows: Rows = [("item", "quantity", "unit", "USD a unit", "USD", "")]
        rows += [
            (
                line.label,
                f"{line.quantity:.6g}",
                line.unit,
                f"{line.unit_price}",
                f"{line.usd:.6f}",
                line.note,
            )
            for line in self.bill.lines
        ]
        rows.append(("total", "", "", "", f"{self.bill.total:.6f}", ""))
        return rows

    def alternative_rows(self) -> Rows:
        """What else it could have cost."""
        total = self.bill.total
        rows: Rows = [("instead", "USD", "difference", "")]
        rows += [
            (
                a.label,
                f"{a.usd:.6f}",
                f"{'+' if a.usd >= total else '-'}{human_money(abs(a.usd - total))}",
                a.note,
            )
            for a in self.bill.alternatives
            # Where it ran is no alternative to where it ran.
            if not (a.label == CPU_LABEL and self.is_on_cpu)
        ]
        return rows

    @property
    def is_on_cpu(self) -> bool:
        """Whether every attempt was the free runner's, or this machine's."""
        return bool(self.attempts) and all(a.record.offer.where == "cpu" for a in self.attempts)

    def attempt_rows(self) -> Rows:
        """Every attempt, refusals included, with its reason."""
        rows: Rows = [("no.", "offer", "instance", "opened (UTC)", "lasted", "epochs", "end", "why")]
        for a in self.attempts:
            end = a.end
            lasted = (end.at if end else self.now) - a.record.created_at
            rows.append(
                (
                    str(a.record.number),
                    a.record.offer.name,
                    a.host.instance_id if a.host else "none",
                    datetime.fromtimestamp(a.record.created_at, UTC).strftime("%H:%M:%S"),
                    human_duration(max(0.0, lasted)),
                    f"{a.heartbeat.epochs_completed}/{a.heartbeat.epochs}" if a.heartbeat else "0",
                    end.reason if end else "open",
                    (end.message if end else "") or (a.heartbeat.message or "" if a.heartbeat else ""),
                )
            )
        return rows

    def metric_rows(self) -> Rows:
        """The model's final metrics."""
        return [("metric", "value"), *((name, f"{value:.4f}") for name, value in self.metrics.items())]

    def class_rows(self) -> Rows:
        """A row for each class, a column for each of its metrics."""
        per_class = self.result.per_class if self.result else {}
        names = sorted({name for values in per_class.values() for name in values}, key=display_order)
        return [
            ("class", *(NAMES.get(name, name) for name in names)),
            *(
                (label, *(f"{values[name]:.4f}" if name in values else "" for name in names))
                for label, values in sorted(per_class.items())
            ),
        ]

    def fact_rows(self) -> Rows:
        """What it was."""
        device = next((a.heartbeat.device for a in reversed(self.attempts) if a.heartbeat), None)
        facts = {
            "status": self.status
            + (f": {self.outcome.message}" if self.outcome and self.outcome.message else ""),
            "version": self.run.version,
            "training key": self.run.training_key,
            "dataset": self.run.fingerprint,
            "model": f"{self.run.spec.model}, {self.run.spec.epochs} epochs, {self.run.spec.image_size} px",
            "device": device or "unknown",
            "begun": clock(self.run.created_at),
            "commit": self.run.commit or "",
            "repository": self.run.repository or "",
        }
        return [("", ""), *((name, value) for name, value in facts.items() if value)]

    def json(self) -> dict[str, Any]:
        """Return everything as one JSON object; docs/report.md describes it."""
        return {
            "run": self.run.id,
            "status": self.status,
            "version": self.run.version,
            "training_key": self.run.training_key,
            "fingerprint": self.run.fingerprint,
            "why": self.run.why,
            "message": self.outcome.message if self.outcome else "",
            "seconds": round(self.seconds, 3),
            "estimate": self.run.estimate.json(),
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
                    "epochs_completed": a.heartbeat.epochs_completed if a.heartbeat else 0,
                    "device": a.heartbeat.device if a.heartbeat else None,
                }
                for a in self.attempts
            ],
            "timeline": [asdict(span) for span in self.spans],
            "metrics": dict(self.result.metrics) if self.result else {},
            "per_class": {k: dict(v) for k, v in self.result.per_class.items()} if self.result else {},
            "curves": {name: list(values) for name, values in self.curves.items()},
        }


def clock(at: float) -> str:
    """Write a time of day, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
