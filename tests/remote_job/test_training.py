"""Real, small trainings: to the end, interrupted, killed, and resumed to the same bytes."""

import hashlib
import json
import pickle
import shutil
import signal
from pathlib import Path

import pytest
from remote_job_case import (
    PATIENCE_S,
    Poison,
    epochs,
    heartbeat,
    interrupt,
    make_spec,
    make_tree,
    manifest,
    module,
    read_events,
    run_module,
    stderr,
    stopping_at,
    wait_for,
)

from gpu_offload.dataset.task import Task
from gpu_offload.dataset.tree_manifest import read_tree
from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.files import sha256_of
from gpu_offload.remote_job.files.artifact import describe
from gpu_offload.remote_job.files.checkpoint import CheckpointMismatchError
from gpu_offload.remote_job.interruption import InterruptedTrainingError, Interruption
from gpu_offload.remote_job.result import (
    LEARNT_NOTHING,
    CheckpointManifest,
    Heartbeat,
    ProgressEvent,
    TrainingResult,
)
from gpu_offload.remote_job.spec import Weights
from gpu_offload.remote_job.train import train

pytestmark = [
    pytest.mark.training,
    pytest.mark.usefixtures("same_environment"),
    # Ultralytics and torch warn as they like; what is ours is held to by the other tests.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("detect"))


@pytest.fixture(scope="module")
def whole(tree, tmp_path_factory):
    """An uninterrupted training, and its output folder."""
    output = tmp_path_factory.mktemp("whole")
    return train(make_spec(tree, output, exports=("onnx",))), output


def test_a_result_says_what_came_out_and_how_long_it_took(whole):
    result, output = whole
    assert TrainingResult.model_validate_json((output / "result" / "result.json").read_bytes()) == result
    assert (result.epochs, result.epochs_completed, result.stopped_early) == (3, 3, False)
    assert result.metrics["map50"] == result.metrics["metrics/mAP50(B)"]
    assert len(result.curves["train/box_loss"]) == len(result.curves["val/box_loss"]) == 3
    assert len(result.timings.epoch_train) == len(result.timings.epoch_validation) == 3
    assert all(seconds > 0 for seconds in (*result.timings.epoch_train, *result.timings.epoch_validation))
    assert result.timings.build > 0
    assert {
        "python",
        "torch",
        "ultralytics",
        "processor",
        "cores",
        "memory_bytes",
    } <= result.environment.keys()
    assert set(result.per_class) <= {"circle", "square", "triangle"}
    assert (result.metrics["map50"] >= LEARNT_NOTHING) == (not result.causes)
    assert all("validation image" not in cause for cause in result.causes)
    model = output / "result" / "model.pt"
    assert (model.stat().st_size, sha256_of(model)) == (result.model.size, result.model.sha256)
    assert {"results.csv", "predictions.png"} <= {extra.name for extra in result.extras}
    [export] = result.exports
    assert (export.format, export.file) == ("onnx", describe(output / "result" / "model.onnx"))
    assert (export.agreement >= 0.99, export.images, result.failed_exports) == (True, 4, {})


def test_the_model_is_an_ordinary_ultralytics_model_without_our_paths(whole, tree):
    from ultralytics import YOLO

    _, output = whole
    path = output / "result" / "model.pt"
    model = YOLO(path)
    assert list(model.names.values()) == ["circle", "square", "triangle"]
    image = next((tree / "images" / "val").iterdir())
    assert len(model.predict(image, imgsz=64, verbose=False, save=False)) == 1
    assert str(output).encode() not in path.read_bytes()


def test_a_training_that_is_found_finished_is_not_trained_again(whole, tree):
    result, output = whole
    before = len(epochs(output))
    assert train(make_spec(tree, output)) == result
    assert len(epochs(output)) == before


def test_interrupted_twice_in_the_middle_of_epochs_it_ends_with_the_same_bytes(
    whole, tree, tmp_path, monkeypatch
):
    spec = make_spec(tree, tmp_path)
    interrupt(monkeypatch, spec, 2, 2)
    assert (manifest(tmp_path).epochs_completed, manifest(tmp_path).batches_completed) == (1, 2)
    batches = manifest(tmp_path)
    interrupt(monkeypatch, spec, 3, read_last_batch(tmp_path))
    assert manifest(tmp_path).epochs_completed == 2
    assert batches.seconds < manifest(tmp_path).seconds
    result = train(spec)
    assert result.model.sha256 == whole[0].model.sha256
    assert result.metrics == whole[0].metrics
    assert result.curves == whole[0].curves
    assert epochs(tmp_path) == [1, 2, 3]


def read_last_batch(output):
    """Return how many batches an epoch has."""
    return next(e.batches for e in read_events(output / "progress.jsonl") if e.event == "batch")


def test_killed_in_the_middle_of_epoch_2_it_repeats_that_epoch_and_ends_with_the_same_bytes(
    whole, tree, tmp_path
):
    output = tmp_path / "output"
    spec = make_spec(tree, output)
    with module(spec, tmp_path) as process:
        wait_for(process, lambda event: event["event"] == "batch" and event["epoch"] == 2)
        process.send_signal(signal.SIGKILL)
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    assert not (output / "result" / "result.json").exists()
    assert manifest(output).epochs_completed >= 1
    code, events = run_module(spec, tmp_path)
    assert code == 0, stderr(tmp_path)
    for event in events:
        ProgressEvent.model_validate(event)
    assert [event["event"] for event in events][-1] == "finished"
    assert sorted(set(epochs(output))) == [1, 2, 3]
    assert len(epochs(output)) <= 4
    result = TrainingResult.model_validate_json((output / "result" / "result.json").read_bytes())
    assert result.epochs_completed == 3
    assert result.model.sha256 == whole[0].model.sha256


def test_a_look_ahead_changes_nothing_and_may_fail(whole, tree, tmp_path, monkeypatch):
    """The estimate looks at validation and other modes between two steps; without that the model is the same to the bit."""
    from gpu_offload.remote_job.yolo import preview

    def fails(_trainer, _first):
        raise RuntimeError("a dataset of another kind")

    monkeypatch.setattr(preview, "loading", fails)
    result, output = whole
    assert any(event.pace for event in read_events(output / "progress.jsonl"))
    assert train(make_spec(tree, tmp_path / "output")).model.sha256 == result.model.sha256


def test_without_validation_in_each_epoch_plots_are_drawn_once_at_the_end(tree, tmp_path, monkeypatch):
    """Ultralytics draws them in the last epoch's validation, too, which the end's replace."""
    from gpu_offload.remote_job.yolo.callbacks import Callbacks

    end, drawn = Callbacks.on_fit_epoch_end, []

    def counted(callbacks, trainer):
        end(callbacks, trainer)
        drawn.append(len(list(trainer.save_dir.glob("val_batch*"))))

    monkeypatch.setattr(Callbacks, "on_fit_epoch_end", counted)
    result = train(make_spec(tree, tmp_path, epochs=1, hyperparameters={"val": False, "plots": True}))
    assert drawn == [0]
    assert any(Path(extra.name).name.startswith("val_batch") for extra in result.extras)


def test_a_training_that_died_after_its_last_epoch_is_only_finished(whole, tree, tmp_path):
    result, output = whole
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    shutil.rmtree(copy / "result")
    before = len(epochs(copy))
    again = train(make_spec(tree, copy))
    assert len(epochs(copy)) == before
    assert again.model.sha256 == result.model.sha256
    assert again.metrics == result.metrics
    assert again.epochs_completed == 3


def test_a_damaged_newest_checkpoint_costs_one_epoch(whole, tree, tmp_path):
    result, output = whole
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    shutil.rmtree(copy / "result")
    next((copy / "checkpoint").glob("epoch-0003-*.pt")).write_bytes(b"damaged")
    again = train(make_spec(tree, copy))
    assert epochs(copy)[-1] == 3
    assert again.model.sha256 == result.model.sha256
    assert "is damaged and was skipped" in (copy / "log.txt").read_text()


def test_another_training_is_refused_in_the_same_folder(whole, tree):
    _, output = whole
    with pytest.raises(CheckpointMismatchError):
        train(make_spec(tree, output, training_key="another"))


def test_a_poisoned_checkpoint_is_refused_and_not_executed(whole, tree, tmp_path):
    copy, marker = tmp_path / "copy", tmp_path / "executed"
    shutil.copytree(whole[1], copy)
    shutil.rmtree(copy / "result")
    payload = pickle.dumps(Poison(marker))
    found = manifest(copy)
    (copy / "checkpoint" / found.last.name).write_bytes(payload)
    last = found.last.model_copy(update={"size": len(payload), "sha256": hashlib.sha256(payload).hexdigest()})
    for path in (copy / "checkpoint").glob("*.json"):
        path.write_text(found.model_copy(update={"last": last}).model_dump_json())
    with pytest.raises(Exception, match="not a training state that can be read safely"):
        train(make_spec(tree, copy))
    assert not marker.exists()
    assert heartbeat(copy).state == "failed"


def test_a_training_starts_from_the_weights_of_another(whole, tree, tmp_path):
    result, output = whole
    model = output / "result" / "model.pt"
    start = Weights(sha256=result.model.sha256, path=str(model))
    for name, changes in {"definition": {}, "weights": {"model": "model.pt"}}.items():
        train(make_spec(tree, tmp_path / name, epochs=1, weights=start, **changes))
        assert "Transferred" in (tmp_path / name / "log.txt").read_text()


@pytest.mark.parametrize("task", [Task.SEGMENT, Task.POSE, Task.CLASSIFY])
def test_every_task_is_trained_and_resumed(tmp_path, monkeypatch, task):
    tree = make_tree(tmp_path, task, images=18)
    spec = make_spec(tree, tmp_path / "output", epochs=2)
    interrupt(monkeypatch, spec, 2, 1)
    result = train(spec)
    assert result.epochs_completed == 2
    plain = {"segment": "mask_map50", "pose": "pose_map50", "classify": "accuracy"}[task]
    assert plain in result.metrics
    assert "predictions.png" in {extra.name for extra in result.extras}
    if task is Task.CLASSIFY:
        assert set(result.per_class) == {"circle", "square", "triangle"}


def test_another_machine_carries_on_from_the_store(whole, tree, tmp_path, monkeypatch):
    url = tmp_path / "store"
    store = open_store(f"file:{url}")
    first = make_spec(tree, tmp_path / "first", store=url)
    with stopping_at(monkeypatch, 2, 3) as interruption, pytest.raises(InterruptedTrainingError):
        train(first, store=store, interruption=interruption)
    left = CheckpointManifest.model_validate_json(store.read("runs/run-1/checkpoint/manifest.json")[0])
    assert (left.epochs_completed, left.batches_completed) == (1, 3)
    beat = Heartbeat.model_validate_json(store.read("runs/run-1/attempts/1/heartbeat.json")[0])
    assert beat.state == "interrupted"
    second = make_spec(tree, tmp_path / "second", store=url, attempt=2)
    result = train(second, store=store)
    assert epochs(tmp_path / "second") == [2, 3]
    assert result.model.sha256 == whole[0].model.sha256
    assert store.stat("runs/run-1/result/model.pt").size == result.model.size
    assert json.loads(store.read("runs/run-1/result/result.json")[0])["attempt"] == 2
    third = make_spec(tree, tmp_path / "third", store=url, attempt=3)
    assert train(third, store=store).model == result.model
    assert epochs(tmp_path / "third") == []


def test_a_dataset_comes_from_the_store_as_an_archive(tree, tmp_path):
    from gpu_offload.dataset.archive import pack

    store = open_store(f"file:{tmp_path / 'store'}")
    pack(tree, tmp_path / "dataset.tar")
    store.upload("datasets/d.tar", tmp_path / "dataset.tar")
    spec = make_spec(tree, tmp_path / "output", epochs=1)
    reference = spec.dataset.model_copy(update={"tree": None, "archive": "datasets/d.tar"})
    train(spec.model_copy(update={"dataset": reference}), store=store)
    assert read_tree(tmp_path / "output" / "dataset").fingerprint == spec.dataset.fingerprint


def test_interrupted_in_a_validation_it_repeats_only_the_validation(whole, tree, tmp_path, monkeypatch):
    from gpu_offload.remote_job.yolo.trainer import SteadyTrainer

    spec = make_spec(tree, tmp_path)
    interruption = Interruption()
    validate = SteadyTrainer.validate

    def ask(trainer):
        if trainer.epoch == 1:
            interruption.request("in the validation")
        return validate(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(SteadyTrainer, "validate", ask)
        with pytest.raises(InterruptedTrainingError):
            train(spec, interruption=interruption)
    assert manifest(tmp_path).epochs_completed == 1
    assert manifest(tmp_path).batches_completed == read_last_batch(tmp_path)
    assert train(spec).model.sha256 == whole[0].model.sha256
