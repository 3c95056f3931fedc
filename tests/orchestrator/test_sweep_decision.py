"""What a sweep does next, what it prunes and what it may spend."""

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_case import REF, record_of

from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.settings.sections import StoreSettings
from gpu_offload.orchestrator.sweep.decision import (
    Complete,
    Fail,
    Idle,
    NewTrial,
    Over,
    StartTraining,
    StopRun,
    SweepView,
    TrainingView,
    TrialView,
    allowance,
    next_move,
    reserve,
)
from gpu_offload.orchestrator.sweep.facts import Facts, TrainingFacts
from gpu_offload.orchestrator.sweep.pruning import Point, pruned_at
from gpu_offload.orchestrator.sweep.record import TrialEnd, TrialRecord
from gpu_offload.orchestrator.sweep.start import Starter


def curve(*values, at=0.0):
    return [Point(at + epoch, epoch, value) for epoch, value in enumerate(values, 1)]


def test_a_trial_that_is_worse_at_the_first_comparison_is_pruned_there():
    curves = {1: curve(*[0.5] * 9), 2: curve(0.4, 0.4, at=100.0), 3: curve(0.6, 0.6, 0.6, at=200.0)}
    pruned = pruned_at(curves, 2, epochs=9, goal="maximize")
    assert pruned is not None
    assert pruned.epoch == 1
    assert pruned_at(curves, 3, epochs=9, goal="maximize") is None
    assert pruned_at(curves, 1, epochs=9, goal="maximize") is None
    assert pruned_at(curves, 3, epochs=9, goal="minimize") is not None


def test_the_last_epoch_prunes_nothing():
    curves = {1: curve(0.9), 2: curve(0.1, at=5.0)}
    assert pruned_at(curves, 2, epochs=1, goal="maximize") is None


@given(st.lists(st.lists(st.floats(0, 1), max_size=9), min_size=1, max_size=6))
def test_a_verdict_rests_on_what_came_before_it(found):
    curves = {n: curve(*values, at=100.0 * n) for n, values in enumerate(found, 1)}
    for number in curves:
        verdict = pruned_at(curves, number, epochs=9, goal="maximize")
        earlier = {n: c for n, c in curves.items() if n <= number}
        assert verdict == pruned_at(earlier, number, epochs=9, goal="maximize")
        first = min(curves)
        assert number != first or verdict is None


def sweep(*trials, **changes):
    given_ = {"most_trials": 3, "parallel": 2, "now": 0.0, "deadline_at": 100.0}
    return SweepView(trials=trials, **given_ | changes)


def trial(number, *trainings, end=None):
    return TrialView(number, trainings, end)


NEW = TrainingView(TrainingFacts())


BUSY = TrainingView(TrainingFacts(status="open", run="r"), busy=True, reserved_usd=0.1)


PUBLISHED = TrainingView(TrainingFacts(status="published", run="r", cost_usd=0.05))


OPEN = TrainingView(TrainingFacts(status="open", run="r", limit_usd=0.3))


FAILED = TrainingView(TrainingFacts(status="failed", run="r", message="it diverged"))


def ended(number, state):
    return TrialEnd(number=number, state=state, at=0.0)


@pytest.mark.parametrize(
    ("view", "move"),
    [
        (sweep(), NewTrial(1)),
        (sweep(trial(1, NEW)), StartTraining(1, 0)),
        (sweep(trial(1, OPEN)), StartTraining(1, 0)),
        (sweep(trial(1, BUSY)), NewTrial(2)),
        (sweep(trial(1, BUSY), trial(2, BUSY)), Idle()),
        (sweep(trial(1, BUSY, NEW)), NewTrial(2)),
        (sweep(trial(1, BUSY, NEW), prune=False), StartTraining(1, 1)),
        (sweep(trial(1, PUBLISHED, NEW)), StartTraining(1, 1)),
        (sweep(trial(1, PUBLISHED, PUBLISHED)), Complete(1)),
        (sweep(trial(1, FAILED)), Fail(1, "it diverged")),
        (sweep(trial(1, replace(FAILED, by_sweep=True))), StartTraining(1, 0)),
        (sweep(trial(1, OPEN, end=ended(1, "pruned"))), StopRun(1, 0, "r")),
        (sweep(trial(1, BUSY, end=ended(1, "pruned"))), NewTrial(2)),
        (sweep(trial(1, NEW), now=100.0), Over("deadline")),
        (sweep(trial(1, BUSY), now=100.0), Idle()),
        (sweep(exhausted=True), Over("failed")),
        (sweep(trial(1, PUBLISHED, end=ended(1, "complete")), exhausted=True), Over("complete")),
        (sweep(*(trial(n, FAILED, end=ended(n, "failed")) for n in (1, 2, 3)), most_trials=9), Over("failed")),
    ],
)  # fmt: skip
def test_what_comes_next(view, move):
    assert next_move(view) == move


@settings(max_examples=60)
@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.booleans(), st.floats(0.1, 2.0), st.randoms()
)
def test_every_sweep_ends_within_its_limits(parallel, most, repetitions, prune, budget, random):
    """Played to its end: never more at once than allowed, no training twice, no dollar above the budget."""
    trials, started, blocked = [], [], False
    for _ in range(400):
        view = sweep(*trials, most_trials=most, parallel=parallel, prune=prune)
        assert view.busy <= parallel
        assert view.committed_usd <= budget + 1e-9
        move = next_move(view)
        if blocked and isinstance(move, StartTraining | NewTrial):
            move = Idle() if view.busy else Over("budget")
        match move:
            case Over():
                assert not view.busy
                return
            case NewTrial(number):
                trials.append(trial(number, *[NEW] * repetitions))
            case StartTraining(number, index):
                high = random.choice([0.05, 0.2])
                allowed = allowance(budget, view.committed_usd, 1.0)
                if allowed < high:
                    blocked = True
                    continue
                started.append((number, index))
                _put(trials, number, index, replace(BUSY, reserved_usd=reserve(allowed, high)))
            case Complete(number):
                trials[number - 1] = replace(trials[number - 1], end=ended(number, "complete"))
            case Fail(number, _):
                trials[number - 1] = replace(trials[number - 1], end=ended(number, "failed"))
            case StopRun():
                raise AssertionError("nothing was pruned")
            case Idle():
                busy = [(t.number, i) for t in trials for i, one in enumerate(t.trainings) if one.busy]
                assert busy
                number, index = random.choice(busy)
                was = trials[number - 1].trainings[index]
                cost = random.uniform(0, was.reserved_usd)
                kind = PUBLISHED if random.random() < 0.8 else FAILED
                _put(trials, number, index, replace(kind, facts=replace(kind.facts, cost_usd=cost)))
                blocked = False
    raise AssertionError("it never ended")


def _put(trials, number, index, training):
    one = trials[number - 1]
    trainings = (*one.trainings[:index], training, *one.trainings[index + 1 :])
    trials[number - 1] = replace(one, trainings=trainings)


@pytest.mark.parametrize(
    ("facts", "limit", "reserved"),
    [
        (TrainingFacts(), 0.25, 0.25),
        (TrainingFacts(status="failed", cost_usd=0.5, cut=True), 0.25, 0.75),
        (TrainingFacts(status="open", cost_usd=0.5, limit_usd=0.125, max_cost_usd=0.375), 0.375, 0.625),
    ],
    ids=["new", "cut before", "open"],
)
def test_what_earlier_runs_of_a_training_cost_stays_spent_while_another_one_works(facts, limit, reserved):
    option = SimpleNamespace(where="ec2", cost_high=0.125)
    report = SimpleNamespace(decision=SimpleNamespace(option=option, why=""), already_trained=None)
    limits = SimpleNamespace(max_cost_usd=1.0, deadline=timedelta(hours=1), on_overrun="warn")
    trainings = SimpleNamespace(
        settings=SimpleNamespace(limits=limits, training=SimpleNamespace(seed=0)),
        on="ec2",
        plan=lambda *_, **__: SimpleNamespace(report=report),
        fold_text=lambda _: None,
    )
    record = record_of(budget_usd=2.0)
    trial = TrialRecord(number=1, values={"lr0": 0.5}, at=0.0, trainings=(REF,))
    starter = Starter(record, trainings, ())
    start = starter.start_of(trial, REF, facts, committed_usd=0.5, now=record.opened_at, cpu_busy=False)
    assert start.reserved_usd == reserved
    assert f"limits.max-cost-usd={limit}" in start.arguments


def test_what_an_open_run_has_cost_does_not_count_twice(tmp_path):
    facts = Facts(open_store(f"file:{tmp_path}"), StoreSettings(), 0.0)
    facts._journal = SimpleNamespace(read=lambda _: SimpleNamespace(outcome=None))
    facts._accounting = SimpleNamespace(known_bill=lambda *_, **__: SimpleNamespace(total=0.25))
    run = SimpleNamespace(id="r-1", max_cost_usd=1.0)
    assert facts._cost([run], 0.0) == (0.25, 0.75, False)
