"""Why a model finds nothing, by what its training measured."""

import numpy as np
import pytest

from gpu_offload.remote_job.yolo.diagnosis import Effort, Objects, likely_causes

NAMES = {0: "key", 1: "thumb"}
BIG = Objects((0, 1), (200.0, 220.0), (0.5, 0.5))
LONG = Effort(epochs=100, batches=40, image_size=320, model="yolov8n.pt", from_scratch=False)


def effort(**changes):
    from dataclasses import replace

    return replace(LONG, **changes)


def test_a_training_without_a_fault_that_was_measured_has_no_cause():
    assert likely_causes(BIG, BIG, NAMES, LONG) == ()


@pytest.mark.parametrize(
    ("train", "val", "done", "cause"),
    [
        (Objects((), (), ()), BIG, LONG, "no training image shows a labelled object"),
        (BIG, Objects((), (), ()), LONG, "no validation image shows"),
        (Objects((0,), (200.0,), (0.5,)), BIG, LONG, "no training image shows thumb"),
        (Objects((0, 1), (44.0, 44.0), (0.15, 0.15)), BIG, effort(image_size=96), "training.image-size to 256"),
        (Objects((0, 1), (1.0, 0.5), (1.0, 1.0)), BIG, LONG, "2 of 2 labels cover less than 2 pixels"),
        (BIG, BIG, effort(epochs=3, batches=3), "9 batches"),
        (BIG, BIG, effort(val_losses=(5.0, 4.0, 3.0)), "still falling in epoch 100"),
        (BIG, BIG, effort(from_scratch=True, model="yolov8n.yaml"), 'training.model = "yolov8n.pt"'),
        (BIG, BIG, effort(from_scratch=True, model="cfg/my.yaml"), "training.init-from"),
    ],
)  # fmt: skip
def test_a_cause_is_named_by_what_was_measured(train, val, done, cause):
    assert cause in "; ".join(likely_causes(train, val, NAMES, done))


def test_objects_too_small_for_the_largest_image_size_are_to_be_cut_out():
    tiny = Objects((0, 1), (3.0, 3.0), (1.0, 1.0))
    assert "tiles" in "; ".join(likely_causes(tiny, BIG, NAMES, effort(image_size=1280)))


def test_the_shorter_side_of_a_box_is_measured_at_the_size_of_the_training():
    label = {"shape": (480, 640), "cls": np.array([[1.0]]), "bboxes": np.array([[0.5, 0.5, 0.1, 0.1]])}
    assert Objects.of([label], 320) == Objects([1], [48.0], [0.5])
    del label["shape"]
    assert Objects.of([label], 320) == Objects([1], [], [])
    assert likely_causes(Objects([0, 1], [], []), BIG, NAMES, LONG) == ()
