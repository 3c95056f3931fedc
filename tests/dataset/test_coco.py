"""COCO's JSON files."""

import json
import tempfile

import pytest
from dataset_case import bitmap, put

from gpu_offload.dataset import absent_images, annotation_files, conversion, json_stream, label_rows
from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.fingerprint import fingerprint
from gpu_offload.dataset.layout import Layout
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.split import SplitRule
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.tree import materialise
from gpu_offload.dataset.tree_manifest import read_tree

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}]
TRIANGLE = [1, 1, 9, 1, 5, 9]


def coco(images, annotations=None, categories=CATEGORIES, **more):
    """A document with one 16 x 12 image for each name, and a box for each."""
    if annotations is None:
        annotations = [box(index, index) for index in range(len(images))]
    listed = [
        {"id": index, "file_name": name, "width": 16, "height": 12} for index, name in enumerate(images)
    ]
    document = {"info": {}, "images": listed, "annotations": annotations, "categories": categories, **more}
    return json.dumps(document, indent=1)


def box(number, image, category=18, bbox=(4, 3, 8, 6), **more):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(bbox),
        "iscrowd": 0,
        **more,
    }


def pictures(root, names):
    for shade, name in enumerate(names):
        put(root / name, bitmap(shade + 31 * len(name)))
    return names


def download(root, form="{part}2017/{index:012}.bmp", at="annotations/instances_{part}2017.json"):
    for part, count in (("train", 6), ("val", 3)):
        names = pictures(
            root, [form.format(part=part, index=index + 50 * (part == "val")) for index in range(count)]
        )
        put(root / at.format(part=part), coco([name.rpartition("/")[2] for name in names]))
    return root


def errors(root, **options):
    with pytest.raises(DatasetError) as caught:
        read_snapshot(root, **options)
    return [finding for finding in caught.value.findings if finding.severity == "error"]


@pytest.mark.parametrize(
    ("form", "at"),
    [
        ("{part}2017/{index}.bmp", "annotations/instances_{part}2017.json"),
        ("images/{part}/{index}.bmp", "annotations/{part}.json"),
        ("{part}/{index}.bmp", "{part}/_annotations.coco.json"),
        ("{index}.bmp", "{part}_annotations.json"),
    ],
)
def test_images_and_splits_are_those_of_the_files(tmp_path, form, at):
    snapshot = read_snapshot(download(tmp_path, form, at))
    assert (snapshot.layout, snapshot.task, snapshot.classes) == (Layout.COCO, Task.DETECT, ("car", "dog"))
    assert snapshot.images == {"train": 6, "val": 3, "test": 0}
    assert set(snapshot.labels.values()) == {b"1 0.5 0.5 0.5 0.5\n"}
    assert snapshot.warnings == ()


def test_the_training_tree_and_the_fingerprint_are_those_of_the_same_yolo_labels(tmp_path):
    snapshot = read_snapshot(download(tmp_path / "coco"))
    tree = read_tree(materialise(snapshot, tmp_path / "tree"))
    assert tree.fingerprint == fingerprint(snapshot)
    assert {
        (tree.directory / file.path).read_bytes() for file in tree.files() if file.path.endswith(".txt")
    } == {b"1 0.5 0.5 0.5 0.5\n"}
    assert not list((tmp_path / "coco").rglob("*.txt"))
    again = materialise(read_snapshot(tmp_path / "coco", cache=tmp_path / "cache"), tmp_path / "tree")
    assert read_tree(again) == tree


def test_the_form_of_the_json_does_not_change_the_fingerprint_but_its_content_does(tmp_path):
    root = download(tmp_path)
    before = fingerprint(read_snapshot(root))
    file = root / "annotations/instances_train2017.json"
    document = json.loads(file.read_text())
    document["annotations"].reverse()
    file.write_text(json.dumps(document))
    assert fingerprint(read_snapshot(root)) == before
    document["annotations"][0]["bbox"][0] = 3
    file.write_text(json.dumps(document))
    assert fingerprint(read_snapshot(root)) != before


def test_one_file_without_a_split_is_split_by_names(tmp_path):
    names = pictures(tmp_path, [f"images/{index}.bmp" for index in range(20)])
    put(tmp_path / "result.json", coco(names))
    snapshot = read_snapshot(tmp_path, split=SplitRule(val=0.3))
    assert min(snapshot.images["train"], snapshot.images["val"]) > 0
    assert read_snapshot(tmp_path / "result.json", split=SplitRule(val=0.3)).samples[:] == snapshot.samples[:]


def test_an_empty_outline_is_none(tmp_path):
    names = pictures(tmp_path, [f"{index}.bmp" for index in range(20)])
    put(tmp_path / "all.json", coco(names, [box(index, index, segmentation=[[]]) for index in range(20)]))
    assert read_snapshot(tmp_path).task is Task.DETECT


def test_only_train_means_that_a_part_is_held_back(tmp_path):
    names = pictures(tmp_path, [f"train/{index}.bmp" for index in range(20)])
    put(tmp_path / "train/_annotations.coco.json", coco([name[6:] for name in names]))
    snapshot = read_snapshot(tmp_path)
    assert snapshot.images["val"] > 0
    assert {finding.code for finding in snapshot.warnings} == {"split-made"}


def outlines(root, segmentation, **options):
    names = pictures(root, [f"train/{index}.bmp" for index in range(20)])
    annotations = [box(index, index, segmentation=segmentation) for index in range(20)]
    put(root / "train/_annotations.coco.json", coco([name[6:] for name in names], annotations))
    return read_snapshot(root, **options)


def test_polygons_mean_segmentation_unless_boxes_are_asked_for(tmp_path):
    assert outlines(tmp_path, [TRIANGLE]).task is Task.SEGMENT
    assert set(outlines(tmp_path, [TRIANGLE], task=Task.DETECT).labels.values()) == {b"1 0.5 0.5 0.5 0.5\n"}


@pytest.mark.parametrize("segmentation", [[], [[4, 3, 12, 3, 12, 9, 4, 9]]])
def test_polygons_that_are_the_boxes_themselves_are_none(tmp_path, segmentation):
    assert outlines(tmp_path, segmentation).task is Task.DETECT


def test_several_parts_become_one_outline(tmp_path):
    snapshot = outlines(tmp_path, [TRIANGLE, [10, 1, 14, 1, 12, 4]])
    (row,) = next(iter(snapshot.labels.values())).decode().splitlines()
    assert len(row.split()) == 1 + 2 * (3 + 3 + 1 + 1)


def test_crowds_are_left_out_and_counted(tmp_path):
    names = pictures(tmp_path, [f"{index}.bmp" for index in range(20)])
    annotations = [box(index, index) for index in range(20)] + [
        box(99, 0, iscrowd=1, segmentation={"counts": "x"})
    ]
    put(tmp_path / "all.json", coco(names, annotations))
    snapshot = read_snapshot(tmp_path)
    assert snapshot.labels["0.txt"].count(b"\n") == 1
    assert any("crowd" in line for line in snapshot.left_out)


def test_images_without_objects_are_background_and_undescribed_ones_are_reported(tmp_path):
    names = pictures(tmp_path, [f"{index}.bmp" for index in range(20)])
    put(tmp_path / "all.json", coco(names[:-1], [box(index, index) for index in range(18)]))
    snapshot = read_snapshot(tmp_path)
    assert snapshot.labels["18.txt"] == b""
    assert [finding.code for finding in snapshot.warnings] == ["undescribed-image"]


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (box(7, 99), "image_id"),
        (box(7, 0, category=1), "category_id"),
        (box(7, 0, bbox=(1, 2, 3)), "bbox"),
        (box(7, 0, bbox=("a", 2, 3, 4)), "bbox"),
        (box(7, 0, bbox=(4, 3, -2, 6)), "negative"),
        (box(7, 0, bbox=(4, 3, 80, 6)), "coordinate"),
        (box(7, 0, bbox=(float("nan"), 3, 8, 6)), "bbox"),
        (box(7, [0]), "image_id"),
        (box(7, 0, segmentation=[[1, 2, 3]]), "segmentation"),
        ([], "object"),
    ],
)
def test_a_fault_is_named_by_file_line_and_id(tmp_path, annotation, said):
    names = pictures(tmp_path, [f"{index}.bmp" for index in range(20)])
    text = coco(names, [box(index, index) for index in range(20)] + [annotation])
    put(tmp_path / "all.json", text)
    (fault,) = errors(tmp_path)
    last = text.rindex("[" if annotation == [] else "{", 0, text.index('"categories"'))
    assert (fault.path, fault.line) == ("all.json", text.count("\n", 0, last) + 1)
    assert said in fault.message
    assert annotation == [] or "annotation 7" in fault.message


def test_faults_of_images_categories_and_the_file(tmp_path):
    names = pictures(tmp_path, [f"{index}.bmp" for index in range(20)])
    put(tmp_path / "all.json", coco([*names, "gone.bmp"]))
    assert [(f.code, "gone.bmp" in f.message) for f in errors(tmp_path)] == [("missing-path", True)]
    put(tmp_path / "all.json", coco(names, categories=[{"id": 18, "name": "a"}, {"id": 18, "name": "b"}]))
    assert [f.code for f in errors(tmp_path)] == ["malformed-annotations"]
    put(tmp_path / "all.json", coco(names)[:-40])
    assert [f.code for f in errors(tmp_path)] == ["malformed-annotations"]
    put(tmp_path / "all.json", coco([]))
    (fault,) = errors(tmp_path)
    assert "COCO" in fault.message


def test_an_image_of_another_size_than_was_annotated_is_an_error(tmp_path):
    root = download(tmp_path)
    put(root / "train2017/000000000000.bmp", bitmap(5, (32, 24)))
    assert [(f.path, f.code) for f in errors(root)] == [("train2017/000000000000.bmp", "size-mismatch")]


def test_captions_and_keypoints_of_cocos_own_download_are_not_taken_for_boxes(tmp_path):
    root = download(tmp_path)
    put(
        root / "annotations/captions_train2017.json", coco([], [{"id": 1, "image_id": 1, "caption": "a dog"}])
    )
    assert any("captions_train2017.json" in line for line in read_snapshot(root).left_out)


def test_annotations_of_two_formats_are_doubted(tmp_path):
    root = download(tmp_path)
    put(root / "train2017/000000000000.xml", "<annotation><object><name>x</name></object></annotation>")
    assert [fault.code for fault in errors(root)] == ["doubtful-layout"]


def test_yolo_labels_go_before_a_json_file(tmp_path):
    names = pictures(tmp_path, [f"{index}.bmp" for index in range(20)])
    for name in names:
        put(tmp_path / name.replace(".bmp", ".txt"), "0 0.5 0.5 0.2 0.2\n")
    put(tmp_path / "all.json", coco(names))
    assert read_snapshot(tmp_path).layout is Layout.FLAT


def test_more_objects_of_one_image_than_are_trained_are_one_error(tmp_path, monkeypatch):
    """As in a label file; the rest of them is not read."""
    monkeypatch.setattr(conversion, "MAX_ROWS", 3)
    names = pictures(tmp_path, ["a.bmp", "b.bmp"])
    put(tmp_path / "all.json", coco(names, [box(number, 0) for number in range(6)] + [box(6, 1)]))
    (found,) = errors(tmp_path)
    assert found.code == "huge-file"
    assert found.path == "all.json"


def test_a_file_of_lists_in_lists_is_refused_before_they_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "MAX_LISTS", 1_000)
    names = pictures(tmp_path, ["a.bmp"])
    deep = [[[[0]]]] * 400
    put(tmp_path / "all.json", coco(names, x=deep))
    assert any("lists and objects" in found.message for found in errors(tmp_path))


def alternating(root):
    """Objects of 20 images in turn, two each, with a triangle and a quadrangle."""
    names = pictures(root, [f"{index}.bmp" for index in range(20)])
    shapes = ([TRIANGLE], [[2, 2, 9, 1, 9, 9, 2, 5]])
    objects = [
        box(number, number % 20, segmentation=shapes[number // 20], category=(18, 3)[number // 20])
        for number in range(40)
    ]
    put(root / "all.json", coco(names, objects))
    return root


@pytest.mark.parametrize("task", [Task.DETECT, Task.SEGMENT])
def test_labels_that_are_too_many_for_the_memory_are_the_same_in_a_temporary_file(
    tmp_path, monkeypatch, task
):
    root = alternating(tmp_path)
    kept = read_snapshot(root, task=task)
    monkeypatch.setattr(label_rows, "IN_MEMORY", 10)
    filed = read_snapshot(root, task=task)
    assert filed.labels == kept.labels
    assert [row[:1] for row in filed.labels["7.txt"].splitlines()] == [b"1", b"0"]
    assert fingerprint(filed) == fingerprint(kept)
    assert read_tree(materialise(filed, tmp_path.parent / f"{tmp_path.name}-tree")).images["train"]


def test_a_temporary_folder_without_room_is_said_in_words(tmp_path, monkeypatch):
    root = alternating(tmp_path)
    monkeypatch.setattr(label_rows, "IN_MEMORY", 10)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    (fault,) = errors(root)
    assert fault.code == "no-space"
    assert "TMPDIR" in fault.message


def test_a_file_that_no_commit_can_hold_may_hold_more(tmp_path, monkeypatch):
    """COCO 2017 has 448 MB; a stranger's pull request can bring files of a hundred."""
    root = alternating(tmp_path)
    for module, limit in (
        (json_stream, "MAX_ELEMENTS"),
        (json_stream, "MAX_LISTS"),
        (conversion, "MAX_OBJECTS"),
    ):
        monkeypatch.setattr(module, limit, 30)
        assert any("more than 30" in fault.message for fault in errors(root))
    monkeypatch.setattr(conversion, "MAX_COORDINATES", 30)
    monkeypatch.setattr(json_stream, "COMMITTED", 1_000)
    assert read_snapshot(root).images["train"]
    monkeypatch.setattr(json_stream, "MAX_BYTES", 2_000)
    (fault,) = errors(root)
    assert "larger than" in fault.message


def test_categories_far_behind_the_images_still_make_a_coco_file(tmp_path, monkeypatch):
    monkeypatch.setattr(annotation_files, "_NEAR", 100)
    names = pictures(tmp_path, [f"{index}.bmp" for index in range(20)])
    text = coco(names)
    at = text.index('"categories"')
    put(tmp_path / "all.json", text[:at] + " " * (3 << 20) + text[at:])
    assert read_snapshot(tmp_path).layout is Layout.COCO
    put(
        tmp_path / "huge.json",
        b'"shapes"' + bytes(2 << 20) + b'"imagePath" "images" "annotations"' + bytes(2 << 20),
    )
    assert any("huge.json" in line for line in read_snapshot(tmp_path).left_out)


def test_an_object_without_a_polygon_among_those_with_one_is_said(tmp_path):
    """Detection is learnt then; a mask in run lengths is no polygon."""
    names = pictures(tmp_path, [f"{index}.bmp" for index in range(20)])
    masks = {3: {"counts": "abc", "size": [12, 16]}}
    put(
        tmp_path / "all.json",
        coco(names, [box(index, index, segmentation=masks.get(index, [TRIANGLE])) for index in range(20)]),
    )
    snapshot = read_snapshot(tmp_path)
    (said,) = snapshot.warnings
    assert (snapshot.task, said.code, said.path) == (Task.DETECT, "mixed-labels", "all.json")
    assert "annotation 3, a mask in run lengths" in said.message
    assert read_snapshot(tmp_path, task=Task.DETECT).warnings == ()


def test_images_that_are_not_there_are_one_fault_for_each_file(tmp_path):
    root = download(tmp_path)
    for picture in (root / "train2017").iterdir():
        picture.unlink()
    (fault,) = errors(root)
    assert (fault.path, fault.code) == ("annotations/instances_train2017.json", "missing-path")
    assert "6 images" in fault.message
    put(root / "train2017.zip", "PK")
    assert ["unpack train2017.zip" in fault.message for fault in errors(root)] == [True]


def test_very_many_missing_images_are_not_counted_to_their_end(tmp_path, monkeypatch):
    monkeypatch.setattr(absent_images, "MAX_ABSENT", 3)
    names = pictures(tmp_path, ["a.bmp", "b.bmp"])
    put(tmp_path / "all.json", coco([*names, *(f"gone{index}.bmp" for index in range(9))]))
    (fault,) = errors(tmp_path)
    assert "more than 3" in fault.message


def test_a_file_without_categories_is_one_fault(tmp_path):
    names = pictures(tmp_path, [f"{index}.bmp" for index in range(20)])
    put(tmp_path / "all.json", coco(names, categories=[]))
    assert [fault.code for fault in errors(tmp_path)] == ["no-classes"]
    with pytest.raises(DatasetError) as caught:
        read_snapshot(tmp_path)
    assert len(caught.value.findings) == 1


def test_a_file_in_utf_16_is_known_and_said_to_be_so(tmp_path):
    """PowerShell's > writes it."""
    names = pictures(tmp_path, [f"{index}.bmp" for index in range(20)])
    put(tmp_path / "all.json", coco(names, info={"x": "x" * (1 << 20)}).encode("utf-16"))
    (fault,) = errors(tmp_path)
    assert (fault.path, "save it as UTF-8" in fault.message) == ("all.json", True)


def test_a_file_that_begins_with_its_images_is_known(tmp_path):
    names = pictures(tmp_path, [f"train/{index}.bmp" for index in range(20)])
    document = json.loads(coco(names))
    del document["info"]
    put(tmp_path / "all.json", json.dumps(document))
    assert read_snapshot(tmp_path).layout is Layout.COCO
