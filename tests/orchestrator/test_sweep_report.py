"""What the result of a sweep is worth: scores, intervals, receipt and report."""

import io
import json
import math
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_case import manifest_for
from sweep_case import REF, record_of, report_of, trial_row

from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.index import mark_yanked
from gpu_offload.orchestrator.registry.manifest import Yank
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.settings.dimension import Range
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import DatasetSettings, StoreSettings
from gpu_offload.orchestrator.sweep.command import Sweep
from gpu_offload.orchestrator.sweep.content import saved
from gpu_offload.orchestrator.sweep.facts import metric_in, value_in
from gpu_offload.orchestrator.sweep.gather import gather_sweep
from gpu_offload.orchestrator.sweep.receipt import PlannedPlace, Receipt
from gpu_offload.orchestrator.sweep.record import TrialEnd, TrialRecord, sweep_key
from gpu_offload.orchestrator.sweep.render import render_sweep
from gpu_offload.orchestrator.sweep.space import Space
from gpu_offload.orchestrator.sweep.statistics import differs, score_of


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


def test_a_receipt_counts_by_the_scarcer_of_money_and_time():
    record = record_of(trials=100, budget_usd=2.0, deadline_s=3600.0)
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
    record = record_of(space={"lr0": "0.1..0.9", "kind": ("a", "b")})
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
