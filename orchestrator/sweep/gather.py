"""Gathers a sweep's report from the store."""

import time
from dataclasses import replace

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.registry.alias import alias_of
from gpu_offload.orchestrator.registry.manifest import CANDIDATE
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.settings.sections import StoreSettings
from gpu_offload.orchestrator.sweep.content import SweepReport, TrialReport, saved
from gpu_offload.orchestrator.sweep.facts import Facts, score_in
from gpu_offload.orchestrator.sweep.journal import SweepJournal, Trial
from gpu_offload.orchestrator.sweep.record import SweepRecord
from gpu_offload.orchestrator.sweep.sampling import Tried, importance
from gpu_offload.orchestrator.sweep.space import Space
from gpu_offload.orchestrator.sweep.statistics import score_of


def gather_sweep(
    store: ObjectStore, settings: StoreSettings, sweep: str, *, facts: Facts | None = None
) -> SweepReport:
    """Read a sweep, over or not. Raises JournalError if there is none, StoreError."""
    journal = SweepJournal(store)
    record = journal.sweep(sweep)
    known = facts or Facts(store, settings, record.created_at)
    found = journal.trials(sweep)
    _check(record, found)
    rows = [_trial(trial, record, known) for trial in found]
    trials = []
    for row in rows:
        seconds, usd = saved(row, rows)
        trials.append(replace(row, saved_seconds=seconds, saved_usd=usd))
    tried = [Tried(row.values, "complete", row.score.mean) for row in rows if row.score is not None]
    mattered = importance(Space.written(record.space, record.seeds, record.folds), tried, goal=record.goal)
    report = SweepReport(record, tuple(trials), mattered)
    return replace(report, candidate=_candidate(store, report))


def _check(record: SweepRecord, trials: list[Trial]) -> None:
    """Refuse documents that do not belong together. Raises JournalError."""
    try:
        space = Space.written(record.space, record.seeds, record.folds)
    except ValueError as error:
        raise JournalError(f"the space of {record.id} cannot be read ({error}): it was replaced") from error
    for trial in trials:
        if not trial.record.trainings or not space.holds(trial.record.values):
            raise JournalError(
                f"trial {trial.record.number} of {record.id} is not of its space: it was replaced"
            )


def _trial(trial: Trial, record: SweepRecord, known: Facts) -> TrialReport:
    facts = [known.of(ref, time.time()) for ref in trial.record.trainings]
    scores = {}
    for ref, one in zip(trial.record.trainings, facts, strict=True):
        if (value := score_in(one.metrics, record.metric)) is not None:
            scores[ref.seed, ref.fold] = value
    end = trial.end
    complete = end is not None and end.state == "complete" and len(scores) == len(facts)
    score = score_of(list(scores.values())) if complete else None
    sign = 1 if record.goal == "maximize" else -1
    # A trial has a model for each repetition, and its best one is proposed.
    best = max(scores, key=lambda repetition: sign * scores[repetition], default=None)
    versions = {(ref.seed, ref.fold): ref.version for ref in trial.record.trainings}
    begun = [one for one in facts if one.status != "new"]
    return TrialReport(
        number=trial.record.number,
        values=trial.record.values,
        state=end.state if end else "open",
        message=end.message if end else "",
        scores=scores,
        score=score,
        value=score.mean if score else end.value if end else None,
        best=versions[best] if best is not None else None,
        runs=tuple(one.run for one in begun if one.run is not None),
        versions=tuple(
            ref.version
            for ref, one in zip(trial.record.trainings, facts, strict=True)
            if one.status == "published"
        ),
        trainings=len(facts),
        known=sum(one.known for one in facts),
        epochs=sum(one.epochs for one in begun),
        of=sum(one.of for one in begun),
        where=", ".join(dict.fromkeys(one.where for one in begun if one.where)),
        seconds=sum(one.seconds for one in begun if not one.known),
        cost_usd=sum(one.cost_usd for one in facts),
    )


def _candidate(store: ObjectStore, report: SweepReport) -> str | None:
    """Return the best trial's version if it is the candidate."""
    best = report.best
    candidate = alias_of(store, CANDIDATE)
    if best is None or candidate is None or best.best != candidate.version:
        return None
    return candidate.version
