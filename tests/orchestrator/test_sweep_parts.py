"""The decisions of a sweep: what is tried, what is pruned, what it may cost, and what the result is worth."""

import io
import json
import math
import statistics
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError
from registry_case import manifest_for
from sweep_case import report_of, trial_row

from gpu_offload.dataset.split import SplitRule, assign
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.index import mark_yanked
from gpu_offload.orchestrator.registry.manifest import Yank
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.settings.dimension import Choice, Range, parse_dimension
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import DatasetSettings, StoreSettings
from gpu_offload.orchestrator.sweep.command import Sweep
from gpu_offload.orchestrator.sweep.content import saved
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
from gpu_offload.orchestrator.sweep.facts import Facts, TrainingFacts, metric_in, value_in
from gpu_offload.orchestrator.sweep.gather import gather_sweep
from gpu_offload.orchestrator.sweep.pruning import Point, pruned_at
from gpu_offload.orchestrator.sweep.receipt import PlannedPlace, Receipt
from gpu_offload.orchestrator.sweep.record import TrainingRef, TrialEnd, TrialRecord, sweep_key
from gpu_offload.orchestrator.sweep.render import render_sweep
from gpu_offload.orchestrator.sweep.sampling import Tried, ask, importance
from gpu_offload.orchestrator.sweep.space import Space, words
from gpu_offload.orchestrator.sweep.start import Starter
from gpu_offload.orchestrator.sweep.statistics import differs, score_of


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("0.1..0.9", Range(0.1, 0.9)),
        ("8..64", Range(8, 64, whole=True)),
        ("log 1e-4..1e-1", Range(1e-4, 1e-1, log=True)),
        ("log 1 .. 1000", Range(1, 1000, log=True, whole=True)),
        ("0..1 step 0.25", Range(0, 1, step=0.25)),
        ("-5..5 step 5", Range(-5, 5, step=5, whole=True)),
        (["SGD", "AdamW"], Choice(("SGD", "AdamW"))),
        ([1, 1.0, True], Choice((1, 1.0, True))),
    ],
)
def test_a_dimension_is_what_it_says(text, dimension):
    assert parse_dimension(text) == dimension
    written = Space({"x": dimension}).as_written()["x"]
    assert parse_dimension(written) == dimension


@pytest.mark.parametrize(
    "text",
    ["", "abc", "1..", "9..1", "1..1", "log 0..1", "log 1..9 step 2", "0..1 step 2", "0..1 step 0", "nan..1",
     "1..1e999", 3, True, None, {"lr0": "0..1"}, ["one"], [], ["a", "a"], [["a"], ["b"]], [float("nan"), 1.0]],
)  # fmt: skip
def test_what_is_no_dimension_is_refused_with_a_remedy(text):
    with pytest.raises(PydanticCustomError) as refused:
        parse_dimension(text)
    assert refused.value.context["remedy"]


numbers = st.floats(1e-6, 1e6)
ranges = st.builds(
    lambda a, width, log: Range(a, a + width, log=log), numbers, st.floats(1e-3, 1e6), st.booleans()
)
wholes = st.builds(
    lambda a, width, log: Range(a, a + width, log=log, whole=True),
    st.integers(1, 50), st.integers(1, 50), st.booleans(),
)  # fmt: skip
choices = st.lists(
    st.one_of(st.text(max_size=5), st.integers(), st.booleans()), min_size=2, max_size=4, unique_by=repr
)
dimensions = st.one_of(ranges, wholes, choices.map(lambda values: Choice(tuple(values))))


@settings(max_examples=10)
@given(st.dictionaries(st.sampled_from("abc"), dimensions, min_size=1), st.integers(0, 2**40), st.data())
def test_what_is_asked_is_in_the_space_new_and_the_same_for_every_driver(dims, seed, data):
    space = Space(dims)
    tried = []
    for _ in range(4):
        values = ask(space, tried, seed=seed, goal="maximize")
        assert values == ask(space, tried, seed=seed, goal="maximize")
        if values is None:
            assert space.size is not None
            assert len(tried) == space.size
            return
        assert repr(values) not in {repr(dict(one.values)) for one in tried}
        for name, dimension in dims.items():
            value = values[name]
            if isinstance(dimension, Choice):
                assert any(value is one or repr(value) == repr(one) for one in dimension.values)
            else:
                assert dimension.low <= value <= dimension.high
                assert isinstance(value, int) == dimension.whole
        state = data.draw(st.sampled_from(["running", "complete", "pruned", "failed"]))
        score = data.draw(st.floats(-1, 1)) if state == "complete" else None
        tried.append(Tried(values, state, score, ((1, 0.5),) if state == "pruned" else ()))


@pytest.mark.parametrize(
    "dimensions",
    [{"a": Choice((1, 2, 3)), "b": Choice(("x", "y"))}, {"a": Range(0.1, 0.5, step=0.1)}],
    ids=["lists", "steps"],
)
def test_a_sweep_of_few_values_tries_every_combination_once(dimensions):
    """Of steps, too, whose sums are not exact: 0.3 is the third, and not 0.30000000000000004 beside it."""
    space = Space(dimensions)
    tried = []
    while (values := ask(space, tried, seed=1, goal="minimize")) is not None:
        tried.append(Tried(values, "complete", float(values["a"])))
    assert sorted(map(repr, (dict(t.values) for t in tried))) == sorted(map(repr, space.combinations()))


def test_what_mattered_is_found():
    space = Space({"deaf": Range(0.0, 1.0), "heard": Range(0.0, 1.0)})
    points = [(i / 16, (i * 7 % 16) / 16) for i in range(16)]
    tried = [Tried({"heard": h, "deaf": d}, "complete", -((h - 0.3) ** 2)) for h, d in points]
    found = importance(space, tried, goal="maximize")
    assert next(iter(found)) == "heard"
    assert math.isclose(sum(found.values()), 1.0)
    assert importance(space, tried[:5], goal="maximize") == {}


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


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40))
def test_an_interval_holds_the_mean_and_shrinks_with_agreement(values):
    score = score_of(values)
    assert score.low <= score.mean <= score.high
    assert math.isclose(score.mean, statistics.fmean(values), abs_tol=1e-9)
    same = score_of([values[0]] * len(values))
    assert same.high - same.low <= max(1e-9, score.high - score.low)


def test_the_interval_is_students():
    score = score_of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert math.isclose(score.high - score.mean, 2.776 * math.sqrt(2.5) / math.sqrt(5), rel_tol=1e-3)
    assert score_of([1.0]).low is None
    assert math.isclose(score_of([0.0, 1.0] * 50).high - 0.5, 1.984 * 0.50252 / 10, rel_tol=1e-3)


def test_trials_are_compared_seed_by_seed():
    """A lead that is the same with every seed counts, however much the seeds differ."""
    seeds = {(n, None): n * 10.0 for n in range(5)}
    better = {key: value + 1 + 0.01 * key[0] for key, value in seeds.items()}
    assert differs(better, seeds) is True
    assert differs({key: value + (-1) ** key[0] for key, value in seeds.items()}, seeds) is False
    assert differs({(0, None): 1.0}, {(0, None): 2.0}) is None


# ------------------------------------------------------------------------------------------------- the decision


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


REF = TrainingRef(seed=0, fold=None, training_key="0" * 64, version="0" * 16)


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
    record = replace_limits(budget_usd=2.0)
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


def test_a_best_model_that_was_yanked_is_no_candidate_and_no_error(tmp_path):
    model, said = tmp_path / "model.pt", io.StringIO()
    model.write_bytes(b"weights")
    store = open_store(f"file:{tmp_path / 'store'}")
    rules = publish.Rules(moves_aliases=False)
    publish.publish(store, manifest_for(model, "v1"), model, note=lambda _: None, rules=rules)
    mark_yanked(store, "v1", Yank(at=0.0, by="", why="it sees keys everywhere"))
    configured = Settings(dataset=DatasetSettings(path="x"), root=tmp_path)
    found = Sweep(configured, store, Console(said), ())._proposed(report_of(trial_row(1, 0.5)))
    assert found is None
    assert "it sees keys everywhere" in " ".join(said.getvalue().split())


# -------------------------------------------------------------------------------------- settings, folds, figures


def test_values_become_words_of_the_command_line():
    assert words({"lr0": 0.001, "model": "a.yaml", "cos_lr": True}, base_seed=7, seed=2, fold="1/5") == [
        "training.hyperparameters.cos_lr=true",
        "training.hyperparameters.lr0=0.001",
        'training.model="a.yaml"',
        "training.seed=9",
        "dataset.split.fold=1/5",
    ]


@given(
    st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=60), st.integers(2, 6), st.floats(0, 0.5)
)
def test_folds_validate_every_image_once_and_never_test_images(names, parts, test):
    splits = {
        n: [assign(n, SplitRule(seed=3, test=test, fold=(k, parts))) for k in range(1, parts + 1)]
        for n in names
    }
    for found in splits.values():
        assert found == ["test"] * parts or (found.count("val") == 1 and found.count("train") == parts - 1)


def test_a_rule_without_a_fold_is_described_as_before():
    assert SplitRule().description() == {"seed": 0, "val": 0.2, "test": 0.0}
    rule = SplitRule(seed=2, fold=(2, 5))
    assert SplitRule.of(rule.description()) == rule
    with pytest.raises(ValueError, match="fold"):
        SplitRule(fold=(6, 5))


def test_an_epochs_metric_is_found_by_our_name():
    epoch = {"metrics/mAP50-95(B)": 0.4, "metrics/mAP50(B)": 0.6}
    assert value_in(epoch, "map50_95") == 0.4
    assert metric_in(epoch, None) == "map50_95"
    assert metric_in({"val/f1": 0.5}, None) == "val/f1"
    assert metric_in({"f1": 0.5, "g": 0.5}, None) is None


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_is_no_finite_number_is_none(odd):
    """It would rank above everything, and JSON has no word for it."""
    assert value_in({"score": odd}, "score") is None
    assert metric_in({"map50_95": odd, "map50": 0.5}, None) == "map50"


def test_no_more_trials_are_promised_than_there_are_combinations():
    space = Space.written({"model": ["a.yaml", "b.yaml"], "batch": ["4", "8"]}, 1, 1)
    assert [space.at_most(wanted) for wanted in (None, 3, 9)] == [4, 3, 4]
    assert Space.written({"lr0": "0.1..0.9"}, 1, 1).at_most(50) == 50


def test_a_receipt_counts_by_the_scarcer_of_money_and_time():
    record = replace_limits(trials=100, budget_usd=2.0, deadline_s=3600.0)
    cpu = PlannedPlace("this CPU", True, Interval(60, 120, 240), 0.0, 0.0, 1)
    rented = PlannedPlace("g4dn.xlarge", True, Interval(100, 200, 400), 0.05, 0.1, 4)
    space = Space({"lr0": Range(0.1, 0.9)}, seeds=2)
    on_cpu = Receipt(record, space, (cpu,), 0, 0.0, now=record.opened_at)
    assert (on_cpu.buys(), on_cpu.buys(upper=True)) == (15, 7)
    on_gpu = Receipt(record, space, (rented,), 3, 0.5, now=record.opened_at)
    assert (on_gpu.buys(), on_gpu.buys(upper=True)) == (15, 7)
    assert "15 more trials" in " ".join(on_gpu.text().split())
    assert "15 trials" in " ".join(on_cpu.text().split())
    assert "No place" in Receipt(record, space, (), 0, 0.0, now=0.0).text()
    document = json.loads(json.dumps(on_gpu.json(), allow_nan=False))
    assert document["buys"] == {"likely": 15, "at_least": 7}
    assert [place["name"] for place in document["places"]] == ["g4dn.xlarge"]


def replace_limits(**changes):
    return report_of().record.model_copy(update=changes)


def test_a_report_ranks_trials_and_names_those_that_do_not_differ():
    report = report_of(
        trial_row(1, 0.5, spread=0.1), trial_row(2, 0.52, spread=-0.1), trial_row(3, 0.1), trial_row(4, None)
    )
    assert [t.number for t in report.ranked] == [2, 1, 3, 4]
    assert report.equals == (1,)
    document = report.json()
    assert document["ranking"] == [2, 1, 3]
    assert math.isclose(document["cost_usd"], sum(t["cost_usd"] for t in document["trials"]))


def test_a_tie_is_no_lead():
    text = render_sweep(report_of(trial_row(1, 0.5), trial_row(2, 0.5), trial_row(3, 0.1)), "text")
    assert "Trial 2 scored exactly the same" in " ".join(text.split())
    assert "lead" not in text


@pytest.mark.parametrize("form", ["text", "markdown", "html", "json"])
def test_every_rendering_has_the_trials_and_escapes_what_it_did_not_write(form):
    report = report_of(trial_row(1, 0.5, kind="<script>alert(1)</script>"), trial_row(2, 0.25))
    text = render_sweep(report, form, width=200)
    assert "0.25" in text
    assert "0.5" in text
    if form in {"html", "markdown"}:
        assert "<script" not in text
    if form == "html":
        assert text.count("<polyline") == 2
    assert render_sweep(report_of(), form)


@pytest.mark.parametrize(
    ("document", "field", "value"),
    [
        ("sweep", "space", {"lr0": [], "kind": ["a", "b"]}),
        ("sweep", "space", {"lr0": "0.1..0.9", "other": ["a", "b"]}),
        ("trials/1", "values", {}),
        ("trials/1", "values", {"lr0": "x", "kind": "a"}),
        ("trials/1", "values", {"lr0": float("inf"), "kind": "a"}),
        ("trials/1", "values", {"lr0": 10**400, "kind": "a"}),
        ("trials/1", "trainings", []),
        ("trials/1.end", "value", float("nan")),
    ],
)
def test_documents_of_a_sweep_that_do_not_fit_are_an_error_that_says_so(tmp_path, document, field, value):
    """Forged ones, in a store that others can write to."""
    record = report_of().record.model_copy(update={"space": {"lr0": "0.1..0.9", "kind": ("a", "b")}})
    found = {
        "sweep": record,
        "trials/1": TrialRecord(number=1, values={"lr0": 0.5, "kind": "a"}, at=1, trainings=(REF,)),
        "trials/1.end": TrialEnd(number=1, state="complete", at=2, value=0.5),
    }
    store = open_store(f"file:{tmp_path}")
    for name, one in found.items():
        store.put(sweep_key(record.id, f"{name}.json"), one.model_dump_json().encode())
    assert len(gather_sweep(store, StoreSettings(), record.id).trials) == 1
    forged = found[document].model_dump(mode="json") | {field: value}
    store.put(sweep_key(record.id, f"{document}.json"), json.dumps(forged).encode())
    with pytest.raises(JournalError):
        gather_sweep(store, StoreSettings(), record.id)


def test_pruning_saves_the_epochs_that_were_left_and_the_repetitions():
    pruned = replace(
        trial_row(1, None), state="pruned", epochs=2, of=10, seconds=20.0, cost_usd=0.02, trainings=3
    )
    complete = replace(trial_row(2, 0.5), seconds=300.0, trainings=3)
    seconds, usd = saved(pruned, [pruned, complete])
    assert math.isclose(seconds, 80 + 2 * 100)
    assert math.isclose(usd, 0.28)
    assert saved(complete, [pruned, complete]) == (0.0, 0.0)
