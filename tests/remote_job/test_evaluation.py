"""Two models on the same images: the metric is Ultralytics', the interval a paired bootstrap's."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.remote_job.yolo.bootstrap import Detections, accuracy, paired


def drawn(seed, images=30, classes=3, skill=0.6):
    """Detections of a detector that is right with probability `skill`, more surely when it is right."""
    chance = np.random.default_rng(seed)
    objects = np.random.default_rng(7).integers(0, 3, (images, classes)).astype(float)
    rows = []
    for image in range(images):
        for label in range(classes):
            left = int(objects[image, label])
            for _ in range(int(objects[image, label]) + chance.integers(0, 2)):
                right = left > 0 and chance.random() < skill
                left -= right
                reached = chance.integers(1, 11) if right else 0
                rows.append((image, 0.4 * chance.random() + 0.5 * right, label, np.arange(10) < reached))
    image, confidence, label, hit = zip(*rows, strict=True)
    return Detections(np.array(image), np.array(confidence), np.array(label), np.array(hit), objects)


def test_a_model_is_not_different_from_itself():
    score = drawn(1).score()
    found = paired(score, score, 30, resamples=50)
    assert (found.low, found.high) == (0.0, 0.0)
    assert found.old == found.new > 0.1


def test_the_interval_holds_the_difference_and_sees_a_clear_one():
    found = paired(drawn(1, skill=0.4).score(), drawn(2, skill=0.9).score(), 30)
    assert 0 < found.low < found.new - found.old < found.high


def test_the_same_images_give_the_same_interval_again():
    old, new = drawn(1).score(), drawn(2).score()
    assert paired(old, new, 30) == paired(old, new, 30)


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 99))
def test_accuracy_of_weighted_images_is_that_of_the_images_repeated(correct, seed):
    flags = np.array(correct)
    counts = np.bincount(
        np.random.default_rng(seed).integers(0, len(flags), len(flags)), minlength=len(flags)
    )
    assert accuracy(flags)(counts.astype(float)) == pytest.approx(np.repeat(flags, counts).mean())


@pytest.mark.training
@pytest.mark.parametrize("seed", range(3))
def test_the_metric_is_that_of_ultralytics(seed):
    from ultralytics.utils.metrics import ap_per_class

    found = drawn(seed)
    truth = np.concatenate([np.repeat(np.arange(3), row.astype(int)) for row in found.objects])
    theirs = ap_per_class(found.hit, found.confidence, found.label, truth)[5].mean()
    assert found.score()(np.ones(30)) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.training
def test_two_models_are_compared_on_the_held_out_images(tmp_path):
    """Untrained ones: what counts is that both are shown the same images, and that other classes are refused."""
    from ultralytics import YOLO

    from gpu_offload.dataset.snapshot import read_snapshot
    from gpu_offload.dataset.split import SplitRule
    from gpu_offload.dataset.synthetic import generate
    from gpu_offload.dataset.tree import materialise

    generate(tmp_path / "shapes", images=12, size=64)
    names = ("circle", "square", "triangle")
    snapshot = read_snapshot(tmp_path / "shapes", classes=names, split=SplitRule(val=0.5))
    tree = materialise(snapshot, tmp_path / "tree")
    for name, labels in (("old", names), ("new", names), ("other", ("a", "b", "c"))):
        network = YOLO("yolov8n.yaml")
        network.model.names = dict(enumerate(labels))
        from ultralytics.nn.tasks import DetectionModel

        network.model = DetectionModel("yolov8n.yaml", nc=3, verbose=False)
        network.model.names = dict(enumerate(labels))
        network.model.args = {"task": "detect", "model": "yolov8n.yaml"}
        network.model.task = "detect"
        network.ckpt = {}
        network.save(tmp_path / f"{name}.pt")

    def run(old, new):
        command = [sys.executable, "-P", "-m", "gpu_offload.remote_job.yolo.evaluation"]
        command += [
            str(tmp_path / old),
            str(tmp_path / new),
            str(tree),
            "map50_95",
            "64",
            "4",
            str(tmp_path / "out"),
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run("old.pt", "new.pt")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out").read_text())
    assert (found["images"], found["split"], found["metric"]) == (snapshot.images["val"], "val", "map50_95")
    assert found["low"] <= found["new"] - found["old"] <= found["high"]
    assert "other classes" in run("other.pt", "new.pt").stderr
