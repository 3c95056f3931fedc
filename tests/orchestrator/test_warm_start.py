"""A training that continues a published version: from which, for how long, and when it begins anew instead."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_case import manifest_for

from gpu_offload.infra.store.errors import CorruptObjectError
from gpu_offload.orchestrator.plan.project import PlanningError
from gpu_offload.orchestrator.plan.warm_start import find_start, is_version
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.manifest import model_key
from gpu_offload.orchestrator.report.rows import overfitting
from gpu_offload.orchestrator.settings.sections import TrainingSettings

A, B = "a" * 16, "b" * 16
NAMES = ("circle", "square")
SNAPSHOT = SimpleNamespace(task="detect", classes=NAMES)
SETTINGS = TrainingSettings(epochs=20, init_from="stable")


@pytest.fixture
def start(store, tmp_path):
    """Where a training starts, by default of data that is new."""

    def found(settings=SETTINGS, snapshot=SNAPSHOT, recipe="e" * 64):
        (tmp_path / "cache").mkdir(exist_ok=True)
        return find_start(settings, store, snapshot, tmp_path / "cache", recipe)

    return found


def publish_now(store, tmp_path, version=A, **facts):
    model = tmp_path / "model.pt"
    model.write_bytes(version.encode() * 100)
    manifest = manifest_for(model, version).model_copy(update={"classes": NAMES, **facts})
    publish.publish(store, manifest, model, note=lambda _: None)
    return manifest


def test_it_continues_stable_with_fewer_epochs_and_stops_early(store, start, tmp_path):
    stable = publish_now(store, tmp_path)
    found = start()
    assert (found.version, found.warm_starts, found.training.epochs) == (A, 1, 10)
    assert found.weights.sha256 == stable.model.sha256
    assert Path(found.weights.path).read_bytes() == A.encode() * 100
    assert found.training.hyperparameters == {"patience": 5}
    assert "10 epochs in place of 20" in found.note


@pytest.mark.parametrize("name", ["1.0.0", "v1.0.0", A])
def test_a_version_is_continued_by_any_of_its_names(store, start, tmp_path, name):
    publish_now(store, tmp_path)
    assert start(SETTINGS.model_copy(update={"init_from": name})).version == A


def test_the_configuration_decides_over_epochs_and_patience(store, start, tmp_path):
    publish_now(store, tmp_path)
    update = {"warm_epochs": 3, "hyperparameters": {"patience": 50}}
    training = start(SETTINGS.model_copy(update=update)).training
    assert (training.epochs, training.hyperparameters) == (3, {"patience": 50})


def test_without_a_stable_version_it_begins_from_scratch_and_says_so(start):
    found = start()
    assert (found.weights, found.version, found.training) == (None, None, SETTINGS)
    assert "from scratch, not from stable" in found.note


@pytest.mark.parametrize("name", ["2.0.0", "0" * 16])
def test_a_version_that_is_named_and_not_there_is_refused(store, start, tmp_path, name):
    publish_now(store, tmp_path)
    with pytest.raises(PlanningError, match=rf"training\.init-from: .*{name}"):
        start(SETTINGS.model_copy(update={"init_from": name}))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"classes": ("circle", "triangle")}, "classes changed"),
        ({"classes": ("square", "circle")}, "classes changed"),
        ({"task": "classify"}, "task is classify"),
        ({"base_model": "yolov8s.yaml"}, "model is yolov8s.yaml"),
        ({"warm_starts": 5}, "begins anew"),
    ],
)
def test_it_begins_from_scratch_where_a_version_is_no_start(store, start, tmp_path, facts, said):
    publish_now(store, tmp_path, **facts)
    found = start()
    assert (found.weights, found.warm_starts, found.training.epochs) == (None, 0, 20)
    assert said in found.note


def test_own_code_continues_its_own_models_and_no_others(store, start, tmp_path):
    publish_now(store, tmp_path, base_model="mine:train")
    own = SETTINGS.model_copy(update={"entrypoint": "mine:train"})
    assert start(own).version == A
    assert "model is mine:train" in start().note
    assert "model is mine:train" in start(own.model_copy(update={"entrypoint": "mine:other"})).note


def test_the_same_data_keeps_its_parent_after_stable_moved_to_its_own_version(store, start, tmp_path):
    """Else a training would continue itself, again and again."""
    publish_now(store, tmp_path)
    first = start()
    publish_now(
        store,
        tmp_path,
        B,
        created_at=200.0,
        init_from=A,
        warm_starts=1,
        recipe="e" * 64,
        weights_sha256=first.weights.sha256,
    )
    assert publish.alias_of(store, "stable").version == B
    again = start()
    assert (again.version, again.weights.sha256, again.warm_starts) == (A, first.weights.sha256, 1)
    assert again.training == first.training
    assert start(recipe="f" * 64).version == B


def test_what_was_trained_from_scratch_before_is_not_trained_again(store, start, tmp_path):
    publish_now(store, tmp_path, training_key="e" * 64)
    found = start()
    assert (found.weights, found.training) == (None, SETTINGS)


def test_weights_that_are_not_what_the_manifest_says_are_refused(store, start, tmp_path):
    publish_now(store, tmp_path)
    store.put(model_key(A), b"poisoned" * 200)
    with pytest.raises(CorruptObjectError):
        start()


@pytest.mark.parametrize("name", ["scratch", "yolov8n.pt", "store:models/x/model.pt", "1.2", "latest"])
def test_other_names_are_no_versions(name):
    assert not is_version(name)


def losses(own, held_out):
    return {"train/box_loss": tuple(own), "val/box_loss": tuple(held_out), "metrics/mAP50(B)": tuple(own)}


def test_a_validation_loss_that_rises_while_the_other_falls_is_over_fitting():
    falling = [10.0 - epoch for epoch in range(8)]
    said = overfitting(losses(falling, [5, 4, 3, 3.1, 3.3, 3.5, 3.6, 3.9]))
    assert "lowest in epoch 3 of 8" in said
    assert "30%" in said
    assert overfitting(losses(falling, falling)) is None
    assert overfitting(losses([3.0] * 8, [5, 4, 3, 3.1, 3.3, 3.5, 3.6, 3.9])) is None
    assert overfitting(losses(falling, [5, 4, 3, 3.01, 3.02, 3.01, 3.05, 3.04])) is None


@given(
    st.dictionaries(
        st.sampled_from(["train/loss", "val/loss", "train/lr", "metrics/x"]),
        st.lists(st.floats(0, 100), max_size=12).map(tuple),
    )
)
def test_curves_of_any_kind_and_length_are_read(curves):
    overfitting(curves)
