"""A few real steps: what they measure, and that they leave nothing behind."""

import errno
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from remote_job_case import PATIENCE_S, ROOT, make_spec, make_tree

from gpu_offload.dataset.task import Task
from gpu_offload.remote_job.result import Calibration
from gpu_offload.remote_job.spec import SpecError

pytestmark = [
    pytest.mark.usefixtures("same_environment"),
    pytest.mark.filterwarnings("default"),  # Ultralytics and torch warn as they like
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("calibration"))


@pytest.mark.training
@pytest.mark.parametrize(
    ("task", "epochs", "close_mosaic", "mosaic", "expected"),
    [
        (Task.DETECT, 10, 10, 1.0, (False, True)),
        (Task.DETECT, 11, 10, 1.0, (True, True)),
        (Task.DETECT, 3, 0, 1.0, (True, False)),
        (Task.POSE, 100, 10, 0.0, (False, True)),
        (Task.CLASSIFY, 100, 10, 1.0, (False, True)),
    ],
)
def test_only_modes_that_the_training_has_are_measured(task, epochs, close_mosaic, mosaic, expected):
    from gpu_offload.remote_job.yolo.pacing import modes

    arguments = SimpleNamespace(epochs=epochs, close_mosaic=close_mosaic, mosaic=mosaic, rect=False)
    assert modes(task, arguments) == expected
    arguments.rect = True
    assert modes(task, arguments) == (False, True)


@pytest.mark.training
def test_the_command_prints_one_document_and_nothing_else(tree, tmp_path):
    spec = make_spec(
        tree,
        tmp_path / "output",
        model="yolov8n.yaml",
        epochs=20,
        hyperparameters={"close_mosaic": 10, "plots": True},
    )
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gpu_offload.remote_job", "--calibrate", str(tmp_path / "spec.json")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = Calibration.model_validate_json(done.stdout)
    assert (found.model, found.task, found.image_size, found.batch) == ("yolov8n.yaml", Task.DETECT, 64, 4)
    pace = found.pace
    assert 0 < pace.plain.batch < 60
    assert 0 < pace.mosaic.batch < 60
    assert pace.mosaic.steps >= 3
    assert 0 < pace.optimizer < 60
    assert 0 < pace.validation < 10
    assert pace.ready > 1
    assert 0 < pace.share <= 1
    assert 2_900_000 < found.parameters < 3_200_000
    assert 0.05 < found.gflops < 0.12
    assert list((tmp_path / "output").iterdir()) == []


@pytest.mark.training
def test_a_classification_is_measured_without_mosaic(tmp_path):
    from gpu_offload.remote_job.calibration.calibrate import calibrate

    tree = make_tree(tmp_path, Task.CLASSIFY, images=15)
    found = calibrate(make_spec(tree, tmp_path / "output", epochs=50))
    assert found.pace.mosaic is None
    assert found.pace.plain.batch > 0


def test_what_cannot_be_trained_cannot_be_measured(tree, tmp_path):
    from gpu_offload.remote_job.calibration.calibrate import calibrate

    with pytest.raises(SpecError, match="of one's own"):
        calibrate(make_spec(tree, tmp_path / "output", entrypoint="module:train"))
    with pytest.raises(SpecError, match="image_size"):
        calibrate(make_spec(tree, tmp_path / "output", image_size=65))


@pytest.mark.training
def test_a_look_at_a_checkpoint_leaves_nothing_where_the_disk_is_full(tmp_path, monkeypatch):
    """What it leaves would take the room of the checkpoint that comes next."""
    from gpu_offload.remote_job.yolo import best_model, preview, trainer_state

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    for module in (best_model, trainer_state):
        monkeypatch.setattr(module, "capture", lambda *_arguments: {"format": 1})
    monkeypatch.setattr(os, "fsync", full)
    trainer = SimpleNamespace(bench=SimpleNamespace(checkpoints=SimpleNamespace(folder=tmp_path)), epoch=0)
    with pytest.raises(OSError, match="No space"):
        preview.saving(trainer, batches=1)
    assert list(tmp_path.iterdir()) == []
