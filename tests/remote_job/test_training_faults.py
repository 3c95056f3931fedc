"""Small trainings that go wrong: poisoned inputs, faulty specs, a loss that is NaN, too little memory."""

import pickle
import shutil

import pytest
from remote_job_case import Poison, make_spec, make_tree

from gpu_offload.errors import OffloadError
from gpu_offload.infra.store.files import sha256_of
from gpu_offload.remote_job.spec import SpecError, Weights
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


def test_poisoned_weights_are_refused_and_not_executed(tree, tmp_path):
    import torch

    marker, path = tmp_path / "executed", tmp_path / "start.pt"

    torch.save({"model": Poison(marker), "ema": None}, path)
    start = Weights(sha256=sha256_of(path), path=str(path))
    for model in ("start.pt", "yolov8n.yaml"):
        with pytest.raises(Exception, match="outside the supported Ultralytics checkpoint format"):
            train(make_spec(tree, tmp_path / f"from-{model}", model=model, weights=start))
    assert not marker.exists()


def test_a_poisoned_label_cache_is_removed_and_not_executed(tree, tmp_path):
    marker, copy = tmp_path / "executed", tmp_path / "tree"
    shutil.copytree(tree, copy)
    (copy / "labels" / "train.cache").write_bytes(pickle.dumps(Poison(marker)))
    (copy / "labels" / "val.cache").write_bytes(pickle.dumps(Poison(marker)))
    train(make_spec(copy, tmp_path / "output", epochs=1))
    assert not marker.exists()


def test_every_fault_of_a_spec_is_told_at_once(tree, tmp_path):
    spec = make_spec(
        tree, tmp_path, image_size=65, hyperparameters={"lr": 1, "epochs": 2}, model="yolo11n.pt"
    )
    with pytest.raises(SpecError) as caught:
        train(spec)
    assert len(caught.value.faults) == 4
    with pytest.raises(SpecError, match="lr0"):
        train(make_spec(tree, tmp_path, hyperparameters={"lr0": "fast"}))


def spoil(monkeypatch, times):
    """Make the loss NaN at the end of epoch 2, so many times."""
    import torch

    from gpu_offload.remote_job.yolo.callbacks import Callbacks

    left = [times]
    end = Callbacks.on_train_epoch_end

    def spoiled(callbacks, trainer):
        end(callbacks, trainer)
        if trainer.epoch == 1 and left[0]:
            left[0] -= 1
            trainer.loss = torch.tensor(float("nan"))

    monkeypatch.setattr(Callbacks, "on_train_epoch_end", spoiled)


def test_a_nan_goes_back_to_the_last_checkpoint(tree, tmp_path, monkeypatch):
    spoil(monkeypatch, 1)
    result = train(make_spec(tree, tmp_path))
    assert result.epochs_completed == 3
    assert "going back to the checkpoint (1)" in (tmp_path / "log.txt").read_text()


def test_a_nan_that_returns_again_and_again_ends_the_training_with_advice(tree, tmp_path, monkeypatch):
    from gpu_offload.remote_job.yolo.resume import DivergedError

    spoil(monkeypatch, 9)
    with pytest.raises(DivergedError, match="lower the learning rate"):
        train(make_spec(tree, tmp_path))


@pytest.mark.parametrize("fits", [2, 0])
def test_a_batch_beyond_the_memory_is_halved_and_a_training_that_never_fits_says_what_to_do(
    tree, tmp_path, monkeypatch, fits
):
    from ultralytics.nn.tasks import BaseModel

    plain = BaseModel.loss

    def limited(self, batch, preds=None):
        if self.training and len(batch["img"]) > fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return plain(self, batch, preds)

    monkeypatch.setattr(BaseModel, "loss", limited)
    spec = make_spec(tree, tmp_path, epochs=1)
    if fits:
        train(spec)
        assert f"batch={fits}" in (tmp_path / "log.txt").read_text()
        return
    with pytest.raises(OffloadError, match=r"training\.image-size"):
        train(spec)


def lacks(monkeypatch, where, fits, *, after=0):
    """Let memory suffice for batches of `fits` images in the optimizer's step, a validation, or a step after some epochs."""
    import torch
    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.nn.tasks import BaseModel

    plain, step = BaseModel.predict, BaseTrainer.optimizer_step

    def full(images, *, trainer=None):
        if images > fits and (trainer is None or trainer.epoch >= after):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    def predict(self, x, *args, **kwargs):
        if where == "validation" and not self.training:
            full(len(x))
        return plain(self, x, *args, **kwargs)

    def optimizer_step(self):
        if where == "step":
            full(self.batch_size, trainer=self)
        return step(self)

    monkeypatch.setattr(BaseModel, "predict", predict)
    monkeypatch.setattr(BaseTrainer, "optimizer_step", optimizer_step)


def test_what_lacks_memory_in_a_thread_of_a_loader_is_understood():
    from gpu_offload.remote_job.yolo import gpu_memory

    said = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB."
    text = (
        f"Caught OutOfMemoryError in pin memory thread for device 0.\nOriginal Traceback:\n  raise\n{said}\n"
    )
    assert gpu_memory.said(RuntimeError(text)) == said
    assert gpu_memory.said(RuntimeError("CUDA error: out of memory\nCUDA kernel errors")) is not None
    assert gpu_memory.said(RuntimeError("shape '[4]' is invalid")) is None


def test_a_step_beyond_the_memory_halves_the_batch_too(tree, tmp_path, monkeypatch):
    lacks(monkeypatch, "step", 2)
    result = train(make_spec(tree, tmp_path, epochs=1))
    assert result.epochs_completed == 1
    assert "batch=2" in (tmp_path / "log.txt").read_text()


def test_memory_that_no_longer_suffices_after_whole_epochs_costs_none_of_them(tree, tmp_path, monkeypatch):
    lacks(monkeypatch, "step", 2, after=2)
    result = train(make_spec(tree, tmp_path))
    assert result.epochs_completed == 3
    log = (tmp_path / "log.txt").read_text()
    assert "Resuming after 2 of 3 epochs" in log
    assert "batch=2" in log


def test_a_validation_beyond_the_memory_goes_on_in_smaller_batches(tree, tmp_path, monkeypatch):
    import torch

    train(make_spec(tree, tmp_path / "whole", epochs=1))
    lacks(monkeypatch, "validation", 2)
    train(make_spec(tree, tmp_path / "smaller", epochs=1))
    whole, smaller = (
        torch.load(tmp_path / name / "result" / "model.pt", weights_only=False)["model"].state_dict()
        for name in ("whole", "smaller")
    )
    assert all(torch.equal(whole[name], smaller[name]) for name in whole)
    lacks(monkeypatch, "validation", 0)
    with pytest.raises(OffloadError, match=r"training\.batch"):
        train(make_spec(tree, tmp_path / "never", epochs=1))
