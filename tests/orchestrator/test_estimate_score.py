"""How well past estimates held: scores, the plot, what is shared, and the commands that show them."""

import json
import math
import re

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.infra.store.folder import FolderStore
from gpu_offload.orchestrator.cli import offload
from gpu_offload.orchestrator.estimate.history import DAY_S, Timing, Work, history, timings
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.estimate.posterior import HistoryKey, Ratio, predict, shared_mean
from gpu_offload.orchestrator.estimate.score import (
    history_json,
    history_text,
    plot_text,
    score,
    scores,
    shared_line,
)


def timing(**changes) -> Timing:
    given_ = {
        "run": "0123456789ab-1",
        "machine": "cpu-2",
        "ultralytics": "8.4",
        "dataset": "secret-project/pictures",
        "family": "yolov8",
        "predicted": 100.0,
        "actual": 110.0,
        "at": 1_000_000.0,
        "planned": Interval(70, 100, 140),
        "forecast": Interval(100, 112, 125),
        "whole": 115.0,
        "left": (90.0, 99.0),
        "stages": {"training": 80.0},
        "work": Work(
            task="detect",
            model="yolov8n.yaml",
            image_size=160,
            batch=16,
            epochs=5,
            train_images=95,
            val_images=25,
        ),
    }
    return Timing(**given_ | changes)


def test_a_score_counts_errors_bias_and_what_was_inside():
    found = score(
        [(Interval(80, 100, 120), 110), (Interval(80, 100, 120), 130), (Interval(80, 100, 120), 100)]
    )
    assert (found.count, found.inside) == (3, 2)
    assert found.error == pytest.approx(0.1)
    assert found.bias == pytest.approx(0.1)
    assert score([]) is None


def test_an_estimate_of_next_to_nothing_is_not_scored():
    assert score([(Interval(0.0, 1e-12, 1e5), 1e300)]) is None


def test_plan_and_first_steps_are_scored_apart_and_old_records_are_left_out():
    found = scores([timing(), timing(whole=150.0), timing(planned=None, forecast=None, whole=None)])
    assert (found["plan"].count, found["plan"].inside) == (2, 1)
    assert (found["after the first steps"].count, found["after the first steps"].inside) == (2, 1)


def test_the_history_shows_every_training_and_fits_the_width():
    text = history_text([timing(), timing(run="0123456789ab-2", whole=170.0)])
    assert "0123456789ab-2" in text
    assert [re.split(r"\s{2,}", line)[3:6:2] for line in text.splitlines()[1:3]] == [
        ["yes", "yes"],
        ["no", "no"],
    ]
    assert max(map(len, text.splitlines())) <= 80
    assert "no training" in history_text([])


@given(st.floats(0.01, 100), st.floats(0.01, 1), st.floats(1, 100))
def test_a_plot_shows_interval_estimate_and_outcome_whatever_they_are(ratio, low, high):
    one = timing(forecast=Interval(100 * low, 100, 100 * high), whole=100 * ratio)
    line = plot_text([one]).splitlines()[1]
    assert "x" in line
    assert len(line) <= 61


def test_what_is_shared_names_no_project_run_or_day():
    text = json.dumps(shared_line(timing()))
    for private in ("secret-project", "0123456789ab", "1000000"):
        assert private not in text
    assert json.loads(text)["work"]["image_size"] == 160


def test_an_old_record_counts_less_than_a_new_one():
    key = HistoryKey("cpu-2", "8.4", "pictures", "yolov8")
    old, new = Ratio(100, 150, key, age_days=360), Ratio(100, 100, key)
    weighted = predict("cpu", [old.log, new.log], [old.weight, new.weight])
    assert abs(weighted.mean) < abs(predict("cpu", [old.log, new.log]).mean) / 3


def test_other_kinds_of_training_on_the_machine_move_the_first_estimate_of_a_new_kind():
    known = [HistoryKey("cpu-2", "8.4", name, "yolov8") for name in ("a", "b", "c")]
    past = [Ratio(100, 140, key) for key in known for _ in range(3)]
    new = HistoryKey("cpu-2", "8.4", "d", "yolo11")
    mean = shared_mean(past, new)
    assert 0.05 < mean < math.log(1.4)
    assert predict("cpu-prior", prior=mean).quantile(0.5) == pytest.approx(mean)
    assert shared_mean(past, HistoryKey("g4dn.xlarge", "8.4", "d", "yolo11")) == 0


def test_history_reads_old_and_new_records_and_skips_damaged_ones(tmp_path):
    store = FolderStore(tmp_path)
    old = {name: getattr(timing(), name) for name in
           ("run", "machine", "ultralytics", "dataset", "family", "predicted", "actual")}  # fmt: skip
    store.put("timings/old.json", json.dumps({"format": 1, **old}).encode())
    store.put("timings/new.json", timing().model_dump_json().encode())
    store.put("timings/damaged.json", b"{")
    assert len(list(timings(store))) == 2
    found = {round(ratio.age_days): ratio for ratio in history(store, now=1_000_000 + 10 * DAY_S)}
    assert found[10].rest == pytest.approx(math.log(99 / 90))
    assert sum(ratio.rest is None for ratio in found.values()) <= 1


def test_the_commands_print_history_and_lines_to_share(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "offload.toml").write_text(
        f'[dataset]\npath = "pictures"\n[store]\nurl = "file:{tmp_path}/store"\n'
    )
    FolderStore(tmp_path / "store").put("timings/new.json", timing().model_dump_json().encode())
    shown = CliRunner().invoke(offload, ["estimate", "history", "-C", str(tmp_path), "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.output) == history_json([timing()])
    shared = CliRunner().invoke(offload, ["estimate", "share", "-C", str(tmp_path)])
    assert shared.exit_code == 0
    assert json.loads(shared.stdout) == json.loads(json.dumps(shared_line(timing())))
