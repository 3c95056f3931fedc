"""Judges a sweep by what is outside of it: the journal's runs, the models, the bills, the instances that lived."""

from collections import Counter
from itertools import combinations

from chaos_processes import bill_faults

from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.run.accounting import read_bill
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import run_key
from gpu_offload.orchestrator.sweep.statistics import differs
from gpu_offload.remote_job.result import ProgressEvent


def epochs_of(store):
    """Return how often each epoch was trained, by training key and epoch, as the attempts themselves reported it.

    An attempt on this machine goes on with the file of the one before, so an epoch is known by its time, too.
    """
    journal, found = Journal(store), set()
    for run in journal.run_ids():
        key = journal.run(run).training_key
        for attempt in journal.attempts(run):
            name = run_key(run, f"attempts/{attempt.record.number}/progress.jsonl")
            lines = store.read(name)[0].splitlines() if any(store.list(name)) else []
            events = [ProgressEvent.model_validate_json(line) for line in lines]
            found |= {(key, event.epoch, event.time) for event in events if event.event == "epoch"}
    return Counter((key, epoch) for key, epoch, _ in found)


def sweep_faults(store, report, *, trainings, epochs, lives=None, lost=0):
    """Return which promises a finished sweep broke.

    `lives` are the instances that lived, by the simulated cloud; so many of them (`lost`) ended in the middle of an epoch.
    """
    broken, journal = [], Journal(store)
    runs = list(journal.run_ids())
    published = [run for run in runs if journal.outcome(run) and journal.outcome(run).status == "published"]
    keys = [journal.run(run).training_key for run in published]
    if len(keys) != trainings or len(set(keys)) != trainings:
        broken.append(f"{len(published)} runs published {len(set(keys))} of {trainings} trainings")
    if len(publish.versions(store)) != trainings:
        broken.append(f"{len(publish.versions(store))} models are listed")
    trained = epochs_of(store)
    wanted = {(key, epoch) for key in keys for epoch in range(1, epochs + 1)}
    # An instance that is lost takes what it has not sent yet along: its checkpoints come before its progress.
    if set(trained) != wanted and not (lost and set(trained) < wanted):
        broken.append(f"the epochs {sorted(trained)} were trained")
    if (surplus := sum(trained.values()) - len(trained)) > lost:
        broken.append(f"{surplus} epochs were trained again, and {lost} instances were lost")
    bill = sum(float(read_bill(store, run).total) for run in runs)
    if (
        abs(bill - report["cost_usd"]) > 1e-6
        or abs(bill - sum(t["cost_usd"] for t in report["trials"])) > 1e-5
    ):
        broken.append(f"the bills say ${bill}, the sweep ${report['cost_usd']}")
    if journal.open_ids():
        broken.append(f"{journal.open_ids()} are open")
    return broken + (bill_faults(store, lives) if lives is not None else [])


def ranking_faults(one, other):
    """Return the pairs of trials that two sweeps of the same values rank differently by more than seeds do."""
    broken, tables = [], [_scores(report) for report in (one, other)]
    for first, second in combinations(tables[0], 2):
        certain = [differs(table[first], table[second]) for table in tables]
        means = [_mean(table[first]) - _mean(table[second]) for table in tables]
        if all(certain) and means[0] * means[1] < 0:
            broken.append(f"{first} and {second} are ranked differently")
    return broken


def largest_difference(one, other):
    """Return by how much the same training differs at most between two sweeps."""
    first, second = _scores(one), _scores(other)
    shared = [(value, key) for value in first for key in first[value] if key in second.get(value, {})]
    return max((abs(first[value][key] - second[value][key]) for value, key in shared), default=0.0)


def _scores(report):
    return {
        str(trial["values"]): {(s["seed"], s["fold"]): s["value"] for s in trial["scores"]}
        for trial in report["trials"]
    }


def _mean(scores):
    return sum(scores.values()) / len(scores)
