"""Hyperparameters: what is passed on and what is refused, all faults at once."""

import pytest

from gpu_offload.remote_job import hyperparameters


def test_ultralytics_own_settings_are_passed_on():
    assert hyperparameters.faults({"lr0": 0.01, "mosaic": 0.5, "workers": 0, "plots": False}) == []


def test_an_unknown_name_is_answered_with_the_likely_one():
    (fault,) = hyperparameters.faults({"warmup_epoch": 1})
    assert "did you mean warmup_epochs" in fault


def test_all_faults_are_reported_at_once():
    faults = hyperparameters.faults({"epochs": 3, "imgsz": 64, "nonsense_x": 1, "lr0": 0.1})
    assert len(faults) == 3
    assert "training.epochs" in faults[0]
    assert "training.image-size" in faults[1]


def test_what_is_ours_is_something_that_ultralytics_has():
    assert hyperparameters.OURS.keys() <= hyperparameters.known() | {"save_dir"}


@pytest.mark.filterwarnings("default")  # importing Ultralytics warns as it likes
@pytest.mark.training
def test_values_are_checked_by_ultralytics():
    faults = hyperparameters.value_faults({"lr0": "fast", "mosaic": 7, "plots": True})
    assert len(faults) == 2
