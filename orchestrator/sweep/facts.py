"""Reads a sweep's trainings from the store: how far each is, its metrics and its cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from gpu_offload.infra.store.errors import ObjectMissingError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.metrics import curve_name, label
from gpu_offload.orchestrator.registry.evidence import MAIN
from gpu_offload.orchestrator.registry.index import manifest_of
from gpu_offload.orchestrator.registry.manifest import Manifest
from gpu_offload.orchestrator.run.accounting import Accounting, read_bill
from gpu_offload.orchestrator.run.activity import activity_of
from gpu_offload.orchestrator.run.events import parse_events
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import RunRecord, run_key
from gpu_offload.orchestrator.settings.sections import StoreSettings
from gpu_offload.orchestrator.sweep.pruning import Point
from gpu_offload.orchestrator.sweep.record import TrainingRef

Status = Literal["new", "open", "published", "stopped", "failed"]


def metric_in(metrics: Mapping[str, float], configured: str | None) -> str | None:
    """Return the metric that trials are compared by: the configured one, the main one, or the only one."""
    names: tuple[str, ...] = (*MAIN, *(metrics if len(metrics) == 1 else ()))
    if configured:
        names = (configured,)
    return next((name for name in names if value_in(metrics, name) is not None), None)


def value_in(metrics: Mapping[str, float], name: str) -> float | None:
    """Return a metric's finite value by our name. Epochs report metrics by Ultralytics' names."""
    found = metrics.get(name)
    if found is None:
        found = next((value for key, value in metrics.items() if curve_name(key) == label(name)), None)
    return found if found is not None and math.isfinite(found) else None


def score_in(metrics: Mapping[str, float], configured: str | None) -> float | None:
    """Return the value that a training is compared by, None if it has none."""
    name = metric_in(metrics, configured)
    return value_in(metrics, name) if name is not None else None


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """The state of one training."""

    status: Status = "new"
    """Of its last run; `new` if it has none."""
    run: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 0
    """Completed, of `of`."""
    of: int = 0
    seconds: float = 0.0
    cost_usd: float = 0.0
    """Of its runs since the sweep began; earlier runs are not the sweep's cost."""
    limit_usd: float = 0.0
    """What an open run may still cost, beyond `cost_usd`; 0 for none."""
    where: str = ""
    message: str = ""
    cut: bool = False
    """Whether limits ended its last run; a later run continues it."""
    deadline_at: float = 0.0
    """When its last run had to end, Unix seconds."""
    max_cost_usd: float = 0.0
    known: bool = False
    """Whether it was published before the sweep began."""


class Facts:
    """Looks up trainings, and caches what cannot change any more."""

    def __init__(self, store: ObjectStore, settings: StoreSettings, since: float) -> None:
        self.store = store
        self._journal = Journal(store)
        self._accounting = Accounting(store, settings)
        self._since = since
        self._settled: dict[str, TrainingFacts] = {}

    def of(self, training: TrainingRef, now: float) -> TrainingFacts:
        """Return the state of a training at `now`, Unix seconds."""
        key = training.training_key
        if key in self._settled:
            return self._settled[key]
        runs = self._journal.runs_of(key)
        ours = [run for run in runs if run.created_at >= self._since]
        cost, limit, booked = self._cost(ours, now)
        manifest = manifest_of(self.store, training.version)
        if manifest is not None:
            facts = _published(manifest, cost, known=not ours)
            if booked:
                self._settled[key] = facts
            return replace(facts, limit_usd=limit)
        if not runs:
            return TrainingFacts()
        return replace(self._unpublished(runs[-1], now), cost_usd=cost, limit_usd=limit)

    def _cost(self, runs: Sequence[RunRecord], now: float) -> tuple[float, float, bool]:
        """Return what runs have cost, what open ones may still cost, and whether all bills are final."""
        cost = limit = 0.0
        booked = True
        for run in runs:
            bill = read_bill(self.store, run.id)
            # A written bill is final.
            if bill is not None:
                cost += float(bill.total)
                continue
            booked = False
            documents = self._journal.read(run.id)
            so_far = float(self._accounting.known_bill(run, documents, now=now).total)
            cost += so_far
            limit += max(0.0, run.max_cost_usd - so_far) if documents.outcome is None else 0.0
        return cost, limit, booked

    def _unpublished(self, run: RunRecord, now: float) -> TrainingFacts:
        documents = self._journal.read(run.id)
        last = documents.attempts[-1] if documents.attempts else None
        end = last.end if last else None
        is_cut = documents.outcome is not None and documents.outcome.cut
        return TrainingFacts(
            status=documents.outcome.status if documents.outcome else "open",
            run=run.id,
            epochs=documents.checkpoint.epochs_completed if documents.checkpoint else 0,
            of=run.spec.epochs,
            seconds=activity_of(self.store, run, documents, now).seconds,
            where=(last.record.offer.instance_type or last.record.offer.where) if last else "",
            message=documents.outcome.message if documents.outcome else "",
            # A run that ended before its first attempt would be begun again without end.
            cut=end is not None and (end.reason in {"expired", "overrun"} or is_cut),
            deadline_at=run.deadline_at,
            max_cost_usd=run.max_cost_usd,
        )

    def curve(self, run: str, metric: str | None, work: Path) -> tuple[Point, ...]:
        """Return the values of a run's epochs, from the folder `work` if it trains on this machine, else from the store."""
        try:  # the next training removes the folders of runs that are over
            lines = (work / run / "progress.jsonl").read_bytes().splitlines()
        except OSError:
            lines = self._lines(run)
        best: dict[int, Point] = {}
        for event in parse_events(lines):
            if event.event != "epoch" or not event.epoch or not event.metrics:
                continue
            value = score_in(event.metrics, metric)
            if value is not None and event.epoch not in best:
                best[event.epoch] = Point(event.time, event.epoch, value)
        return tuple(best[epoch] for epoch in sorted(best))

    def _lines(self, run: str) -> list[bytes]:
        lines: list[bytes] = []
        for attempt in self._journal.attempts(run):
            try:
                key = run_key(run, f"attempts/{attempt.record.number}/progress.jsonl")
                lines += self.store.read(key)[0].splitlines()
            except ObjectMissingError:
                continue
        return lines


def _published(manifest: Manifest, cost_usd: float, *, known: bool) -> TrainingFacts:
    return TrainingFacts(
        status="published",
        run=manifest.run,
        metrics=manifest.metrics,
        epochs=manifest.epochs_completed,
        of=manifest.epochs,
        seconds=manifest.seconds.actual,
        cost_usd=cost_usd,
        where=manifest.where,
        known=known,
    )
