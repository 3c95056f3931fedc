"""The file that Ultralytics' platform exports, a JSON object a line."""

import json

import pytest
from dataset_case import bitmap, put

from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.layout import Layout
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.task import Task

HEAD = {"type": "dataset", "task": "detect", "name": "x", "class_names": {"0": "cat", "1": "dog"}}
BOXES = {"boxes": [[1, 0.5, 0.5, 0.25, 0.5]]}
SEGMENTS = {"segments": [[0, 0.1, 0.1, 0.9, 0.1, 0.5, 0.9]]}


def image(index, split, annotations, **more):
    return {"type": "image", "file": f"{index}.bmp", "url": "https://example.invalid/x", "width": 16, "height": 12,
            "split": split, "annotations": annotations, **more}  # fmt: skip


def export(root, head=HEAD, annotations=BOXES, form="images/{}/{}.bmp"):
    records = []
    for split, first in (("train", 0), ("val", 10)):
        for index in range(first, first + 4):
            put(root / form.format(split, index), bitmap(index))
            records.append(image(index, split, annotations))
    return write(root, head, records)


def write(root, head, records):
    put(root / "set.ndjson", "\n".join(map(json.dumps, [head, *records])) + "\n")
    return root


def errors(root):
    with pytest.raises(DatasetError) as caught:
        read_snapshot(root)
    return [finding for finding in caught.value.findings if finding.severity == "error"]


@pytest.mark.parametrize("form", ["images/{}/{}.bmp", "{}/{}.bmp", "images/{1}.bmp", "{1}.bmp"])
def test_images_are_found_and_splits_and_classes_are_those_of_the_file(tmp_path, form):
    snapshot = read_snapshot(export(tmp_path, form=form))
    assert (snapshot.layout, snapshot.task, snapshot.classes) == (Layout.NDJSON, Task.DETECT, ("cat", "dog"))
    assert snapshot.images == {"train": 4, "val": 4, "test": 0}
    assert set(snapshot.labels.values()) == {b"1 0.5 0.5 0.25 0.5\n"}


def test_segments_are_polygons(tmp_path):
    snapshot = read_snapshot(export(tmp_path, HEAD | {"task": "segment"}, SEGMENTS))
    assert (snapshot.task, set(snapshot.labels.values())) == (Task.SEGMENT, {b"0 0.1 0.1 0.9 0.1 0.5 0.9\n"})


def test_a_box_alone_is_no_background_of_a_segmentation(tmp_path):
    export(tmp_path, HEAD | {"task": "segment"}, SEGMENTS)
    with (tmp_path / "set.ndjson").open("a") as file:
        file.write(json.dumps(image(0, "train", BOXES)) + "\n")
    assert [(fault.code, fault.line) for fault in errors(tmp_path)] == [("wrong-task", 10)]


@pytest.mark.parametrize("task", ["obb", "depth", "pose", "classify", "semantic"])
def test_other_tasks_are_refused_by_name(tmp_path, task):
    (fault,) = errors(export(tmp_path, HEAD | {"task": task}))
    assert (fault.line, task in fault.message) == (1, True)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (image(0, "holdout", BOXES), "split"),
        (image(0, "train", {"boxes": [[7, 0.5, 0.5, 0.2, 0.2]]}), "class 7"),
        (image(0, "train", {"boxes": [[0, 0.5, 0.5, 1.5, 0.2]]}), "coordinate"),
        (image(0, "train", {"boxes": [[0, 0.5, "x", 0.5, 0.2]]}), "list"),
        (image(0, "train", {"boxes": [[0, 0.5, 0.5, 0.5, 0.2, 0.1]]}), "numbers"),
        (image(0, "train", [[0, 0.5, 0.5, 0.2, 0.2]]), "annotations"),
        (image(0, "train", {"boxes": {"0": [0, 0.5, 0.5, 0.2, 0.2]}}), "boxes must be a list"),
        ({"type": "image"}, "file"),
        ([], "object"),
    ],
)
def test_a_fault_is_named_by_its_line(tmp_path, record, said):
    export(tmp_path)
    with (tmp_path / "set.ndjson").open("a") as file:
        file.write(json.dumps(record) + "\n")
    (fault,) = errors(tmp_path)
    assert (fault.path, fault.line, said in fault.message) == ("set.ndjson", 10, True)


def test_images_that_are_elsewhere_are_one_fault_and_nothing_is_downloaded(tmp_path):
    export(tmp_path)
    for index in (0, 1, 10):
        next(tmp_path.rglob(f"{index}.bmp")).unlink()
    (fault,) = errors(tmp_path)
    assert (fault.code, "3 images" in fault.message, "url" in fault.message) == ("missing-path", True, True)
