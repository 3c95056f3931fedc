"""One vocabulary of metrics, for the registry, the report, the summary and the command line."""

import dataclasses

import pytest
from report_case import report_in

from gpu_offload.orchestrator.github.section import SummaryContext
from gpu_offload.orchestrator.github.summary import next_step
from gpu_offload.orchestrator.lifecycle.train_report import TrainReport, trained_text
from gpu_offload.orchestrator.output.markdown import is_numeric
from gpu_offload.orchestrator.output.metrics import class_table, curve_name, named
from gpu_offload.orchestrator.output.units import human_number
from gpu_offload.orchestrator.registry.listing import Listing
from gpu_offload.orchestrator.registry.manifest import IndexEntry
from gpu_offload.orchestrator.report.markdown import charts
from gpu_offload.remote_job.yolo import metrics as published_names

CLASSIFIED = {"metrics/accuracy_top1": 0.75, "metrics/accuracy_top5": 1.0, "fitness": 0.875}
CLASSIFIED |= {published_names.ALIASES[name]: CLASSIFIED[name] for name in list(CLASSIFIED)[:2]}


def test_what_a_classification_publishes_is_named_once_and_first():
    assert named(CLASSIFIED) == {"top-1 accuracy": 0.75, "top-5 accuracy": 1.0}


def test_images_of_a_class_are_counted_without_decimals():
    table = class_table({"cat": {"accuracy": 1.0, "images": 3.0}, "dog": {"accuracy": 0.0, "images": 0.0}})
    assert table == [("class", "top-1 accuracy", "images"), ("cat", "1.0000", "3"), ("dog", "0.0000", "0")]


def test_every_metric_that_our_trainings_publish_has_a_place_in_the_order():
    metrics = dict.fromkeys(published_names.ALIASES.values(), 0.5)
    names = list(named({**metrics, "a_custom": 0.1}))
    assert names[0] == "mAP50"
    assert names[-1] == "a_custom"


def test_the_score_of_a_classification_is_in_the_list_of_models_and_at_the_end_of_a_training():
    entry = IndexEntry(version="v", created_at=0, sha256="0" * 64, size=1, metrics=CLASSIFIED)
    listed = Listing((entry,), {"stable": "v"}).text()
    assert "top-1 accuracy" in listed
    assert "0.750" in listed
    report = TrainReport("trained", "v", "run", "key", "0" * 64, CLASSIFIED, 1.0, None, 0.0)
    assert "top-1 accuracy 0.750" in trained_text(report)


@pytest.mark.simulator
def test_the_curve_of_a_classification_is_drawn(tmp_path):
    report = with_result(tmp_path, curves={"train/loss": (1.0, 0.5), "metrics/accuracy_top1": (0.5, 0.75)})
    assert any("top-1 accuracy by epoch" in chart for chart in charts(report))


def test_curves_of_boxes_and_masks_have_names_of_their_own():
    names = [curve_name(f"metrics/mAP50({part})") for part in "BMP"]
    assert names == ["mAP50", "mask mAP50", "pose mAP50"]
    assert curve_name("train/box_loss") == "train box loss"


def test_huge_and_tiny_numbers_are_short_and_say_something():
    values = (0.0, -0.0, 0.371, 1e300, 123456789012345.678, 4e-5, -1e-300, 999_999.0)
    shown = [human_number(value) for value in values]
    assert shown == ["0.000", "0.000", "0.371", "1e+300", "1.235e+14", "4e-05", "-1e-300", "999999.000"]
    assert is_numeric(shown), "they stand in columns of numbers"


def test_metrics_of_the_users_own_are_shown_as_they_are():
    own = {"val/f1": 0.5, "AUC": 0.9, "fitness": 3.0}
    assert named(own) == own
    assert curve_name("val_f1") == "val_f1"


@pytest.mark.simulator
def test_a_small_loss_is_not_taken_for_a_model_that_learnt_nothing(tmp_path):
    small = with_result(tmp_path, metrics={"log_loss": 0.001})
    assert "next to nothing" not in next_step(small, SummaryContext())
    assert "next to nothing" in next_step(
        with_result(tmp_path, metrics={"accuracy": 0.001}), SummaryContext()
    )


def with_result(folder, **changes):
    report = report_in(folder)
    return dataclasses.replace(report, result=report.result.model_copy(update=changes))
