"""Pictures of what a model finds: labels and predictions side by side, with every name below a picture."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.split import SplitRule
from gpu_offload.dataset.synthetic import generate
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.tree import materialise
from gpu_offload.dataset.tree_manifest import read_tree
from gpu_offload.remote_job.pace.ending import PICTURED
from gpu_offload.remote_job.yolo import pictures
from gpu_offload.remote_job.yolo.pictures import PicturedObject

NAMES = ("circle", "square")


@pytest.fixture
def tree(tmp_path):
    """Return a function that makes the training tree of a task."""

    def made(task):
        generate(tmp_path / "data", images=12, size=64, task=task)
        named = () if task in {Task.CLASSIFY, Task.POSE} else ("circle", "square", "triangle")
        snapshot = read_snapshot(tmp_path / "data", classes=named, task=task, split=SplitRule(val=0.5))
        return read_tree(materialise(snapshot, tmp_path / "tree"))

    return made


@pytest.mark.parametrize("task", list(Task))
def test_labels_of_every_task_are_read(tree, task):
    info = tree(task)
    shapes = [shape for sample in pictures.chosen(info) for shape in pictures.labelled(info, sample)]
    assert shapes
    assert all(0 <= shape.index < len(info.classes) and shape.confidence is None for shape in shapes)
    points = [point for shape in shapes for point in (*shape.outline, *shape.keypoints)]
    assert all(-0.02 <= value <= 1.02 for point in points for value in point)
    assert bool(points) == (task is not Task.CLASSIFY)
    assert any(shape.keypoints for shape in shapes) == (task is Task.POSE)
    assert any(len(shape.outline) > 4 for shape in shapes) == (task is Task.SEGMENT)


def test_a_label_with_a_byte_order_mark_is_read(tree):
    info = tree(Task.DETECT)
    sample = pictures.chosen(info)[0]
    path = info.directory / sample.label.path
    path.write_text("\ufeff" + path.read_text())
    assert pictures.labelled(info, sample)


def test_held_out_pictures_with_labels_are_drawn_first(tree):
    drawn = pictures.chosen(tree(Task.DETECT))
    assert 0 < len(drawn) <= PICTURED
    assert {sample.split for sample in drawn} == {"val"}
    labelled = [sample.label is not None for sample in drawn]
    assert labelled == sorted(labelled, reverse=True)


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ([], "nothing"),
        ([PicturedObject(0), PicturedObject(1), PicturedObject(0)], "2 circle, square"),
        (
            [PicturedObject(1, confidence=0.914), PicturedObject(1, confidence=0.5)],
            "square 0.91, square 0.50",
        ),
    ],
)
def test_a_caption_counts_labels_and_says_how_sure_each_prediction_is(shapes, text):
    assert pictures.caption(shapes, NAMES) == text


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("label: circle", ["label: circle"]),
        ("model: circle 0.92, square 0.81", ["model: circle", "0.92, square..."]),
        ("model: " + "x" * 10**6, ["model:", "xxxxxxxxxxxx..."]),
        ("", []),
    ],
)
def test_a_caption_has_two_lines_at_most_and_is_cut_where_it_does_not_fit(text, lines):
    assert pictures.caption_lines(text, lambda line: len(line) <= 15) == lines


def test_results_of_ultralytics_become_shapes():
    boxes = SimpleNamespace(
        cls=np.array([1.0]), conf=np.array([0.75]), xyxyn=np.array([[0.25, 0.25, 0.5, 0.75]])
    )
    found = SimpleNamespace(probs=None, masks=None, keypoints=None, boxes=boxes)
    corners = ((0.25, 0.25), (0.5, 0.25), (0.5, 0.75), (0.25, 0.75))
    assert pictures.predicted(found) == [PicturedObject(1, corners, (), 0.75)]
    classified = SimpleNamespace(probs=SimpleNamespace(top1=1, top1conf=0.5))
    assert pictures.predicted(classified) == [PicturedObject(1, confidence=0.5)]


def test_a_sheet_draws_outlines_and_leaves_the_rest_of_a_picture_as_it_is(tmp_path):
    Image.new("RGB", (640, 320), "black").save(tmp_path / "black.png")
    square = PicturedObject(0, ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)), confidence=0.9)
    page = pictures.sheet([(tmp_path / "black.png", [], [square])] * 3, NAMES)
    high = pictures.TILE + pictures.CAPTION + pictures.GAP
    assert page.size == (2 * pictures.TILE + 3 * pictures.GAP, 3 * high + pictures.GAP)
    inside = page.crop((344, 92, 648, 240))  # the first prediction, without its caption
    colours = {colour for _, colour in inside.getcolors(1 << 16)}
    assert colours - {(255, 255, 255)} == {(0, 0, 0), (230, 25, 75)}
