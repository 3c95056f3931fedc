"""Every file below a dataset is used, or counted under a reason, or at fault."""

import pytest
from dataset_case import BOX, BOX_1, bitmap, class_folders, flat, pair, put, with_yaml

from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.snapshot import read_snapshot


def errors(root, **options):
    with pytest.raises(DatasetError) as caught:
        read_snapshot(root, **options)
    return [finding for finding in caught.value.findings if finding.severity == "error"]


def in_folders(root, images="images", labels="labels", form="{}.txt"):
    for index in range(16):
        put(root / images / f"p{index}.bmp", bitmap(index))
        put(root / labels / form.format(f"p{index}"), BOX)
    return root


def test_each_file_that_is_not_used_stands_under_a_reason(tmp_path):
    with_yaml(tmp_path)
    names = [
        ".DS_Store",
        "x.cache",
        "more/a.bmp",
        "more/a.txt",
        "clip.mp4",
        "notes.json",
        "a.xml",
        "old.gif",
        "README.txt",
    ]
    for name in names:
        put(tmp_path / name, b"x")
    text = "\n".join(read_snapshot(tmp_path).left_out)
    assert [name for name in names if name not in text] == []
    assert "data.yaml" not in text


@pytest.mark.parametrize(
    ("images", "labels", "form", "said"),
    [
        ("Images", "Labels", "{}.txt", "Labels/"),
        ("images", "annotations", "{}.txt", "annotations/"),
        ("images", "labels", "{}.TXT", ".TXT"),
        ("images", "labels", "{}.bmp.txt", "p0.bmp.txt"),
        ("img", "labels", "{}.txt", "labels/"),
        ("images", "labels_yolo/all", "{}.txt", "labels_yolo/all/"),
    ],
)
def test_labels_somewhere_else_are_one_error_that_says_where(tmp_path, images, labels, form, said):
    (fault,) = errors(in_folders(tmp_path, images, labels, form), classes=["car"])
    assert fault.code == "no-labels"
    assert said in fault.message


def test_some_labels_somewhere_else_are_an_error_too(tmp_path):
    in_folders(tmp_path)
    put(tmp_path / "images/cam/x.bmp", bitmap(500))
    put(tmp_path / "labels/x.txt", BOX)
    (fault,) = errors(tmp_path, classes=["car"])
    assert (fault.code, "labels/cam/x.txt" in fault.message) == ("label-elsewhere", True)


def test_names_that_a_labelling_tool_left_are_the_classes(tmp_path):
    in_folders(tmp_path / "beside")
    put(tmp_path / "beside/labels/classes.txt", "car\nbike\n")
    assert read_snapshot(tmp_path / "beside").classes == ("car", "bike")
    flat(tmp_path / "cvat", label=BOX_1)
    put(tmp_path / "cvat/obj.names", "car\nbike\n")
    assert read_snapshot(tmp_path / "cvat").classes == ("car", "bike")


def test_names_that_a_labelling_tool_left_among_the_labels_are_no_label(tmp_path):
    with_yaml(tmp_path)
    put(tmp_path / "labels/train/classes.txt", "thing\n")
    snapshot = read_snapshot(tmp_path)
    assert snapshot.warnings == ()
    assert "labels/train/classes.txt" in "\n".join(snapshot.left_out)


def test_pictures_that_would_be_trained_on_in_another_format_are_an_error(tmp_path):
    flat(tmp_path)
    put(tmp_path / "extra/logo.gif", b"GIF89a")
    assert read_snapshot(tmp_path, classes=["thing"]).images["train"] > 0
    put(tmp_path / "100.jfif", bitmap(3))
    put(tmp_path / "100.txt", BOX)
    assert [fault.code for fault in errors(tmp_path, classes=["thing"])] == ["unread-format"]


def test_a_repository_that_is_its_own_dataset_keeps_its_pictures_out(tmp_path):
    in_folders(tmp_path)
    for name in (
        "docs/screenshot.bmp",
        "venv/lib/python3/a.bmp",
        "runs/detect/predict/b.bmp",
        "requirements.txt",
    ):
        put(tmp_path / name, bitmap(900))
    put(tmp_path / "runs/detect/predict/labels/b.txt", BOX)
    put(tmp_path / "offload.toml", "")
    pair(tmp_path, "photos/1.BMP", 901)
    pair(tmp_path, "photos/2.jpeg.bmp", 902)
    snapshot = read_snapshot(tmp_path, classes=["car"])
    assert sum(snapshot.images.values()) == 18
    assert all(sample.label for sample in snapshot.samples)
    assert snapshot.warnings == ()


def test_pointers_of_git_lfs_are_one_fault_with_the_command(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 12345\n"
    for index in range(12):
        put(tmp_path / f"{index}.jpg", pointer)
        put(tmp_path / f"{index}.txt", BOX)
    (fault,) = errors(tmp_path, classes=["thing"])
    assert (fault.code, "git lfs pull" in fault.message, "12 files" in fault.message) == (
        "lfs-pointer",
        True,
        True,
    )
    with_yaml(tmp_path / "yaml", pointer)
    (fault,) = errors(tmp_path / "yaml")
    assert fault.code == "lfs-pointer"


@pytest.mark.process
def test_a_submodule_that_is_not_checked_out_names_the_command(tmp_path):
    put(
        tmp_path / ".gitmodules",
        '[submodule "data"]\n\tpath = sets/data\n\turl = https://example.invalid/x.git\n',
    )
    (tmp_path / "sets/data").mkdir(parents=True)
    (fault,) = errors(tmp_path / "sets/data")
    assert (fault.code, "submodule update --init sets/data" in fault.message) == ("empty-submodule", True)


def test_a_data_yaml_below_a_link_is_one_fault(tmp_path):
    with_yaml(tmp_path / "real")
    (tmp_path / "ds").mkdir()
    for name in ("images", "labels"):
        (tmp_path / "ds" / name).symlink_to(tmp_path / "real" / name)
    put(tmp_path / "ds/data.yaml", "train: images/train\nval: images/val\nnames: [thing]\n")
    assert [(fault.code, fault.line) for fault in errors(tmp_path / "ds")] == [("symlink", 1), ("symlink", 2)]


@pytest.mark.parametrize("train", ["images/train", "train.txt"])
def test_labels_behind_a_link_are_one_fault(tmp_path, train):
    with_yaml(tmp_path / "ds", f"train: {train}\nval: images/val\nnames: [thing]\n")
    put(tmp_path / "ds/train.txt", "".join(f"images/train/{index}.bmp\n" for index in range(4)))
    (tmp_path / "ds/labels").rename(tmp_path / "elsewhere")
    (tmp_path / "ds/labels").symlink_to(tmp_path / "elsewhere")
    assert [(fault.path, fault.code) for fault in errors(tmp_path / "ds")] == [("labels", "symlink")]


def test_keypoints_without_a_shape_are_not_taken_for_polygons(tmp_path):
    flat(tmp_path / "seen", label="0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 1\n")
    assert [fault.code for fault in errors(tmp_path / "seen", classes=["a"])] == ["no-keypoints"]
    flat(tmp_path / "hidden", label="0 0.5 0.5 0.2 0.2 0.4 0.4 1 0.6 0.6 0\n")
    assert [fault.code for fault in errors(tmp_path / "hidden", classes=["a"])] == ["no-keypoints"]


def test_two_lists_of_classes_that_differ_are_an_error(tmp_path):
    for part, names in (("a", "car\n"), ("b", "bike\n")):
        for index in range(8):
            pair(tmp_path, f"{part}/{index}.bmp", index + 100 * (part == "b"))
        put(tmp_path / part / "classes.txt", names)
    assert [fault.code for fault in errors(tmp_path)] == ["class-mismatch"]


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "a" + "\nsize 100\n"
STUDIO = '[{"annotations": [{"result": [{"original_width": 16, "original_height": 12, "value": {"rotation": 0}}]}]}]'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train/_annotations.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\n", "CSV"),
        ("boxes.csv", "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n", "CSV"),
        (
            "train/metadata.jsonl",
            '{"file_name": "p0.bmp", "objects": {"bbox": [[1, 2, 3, 4]]}}\n',
            "Hugging Face",
        ),
        ("export.json", STUDIO, "Label Studio"),
        (
            "ann/p0.bmp.json",
            '{"objects": [{"geometryType": "rectangle", "points": {"exterior": []}}]}',
            "Supervisely",
        ),
        ("det_train.json", '[{"name": "p0", "labels": [{"category": "car", "box2d": {}}]}]', "BDD100K"),
        ("all.json", POINTER, "git lfs pull"),
        ("train/p0.xml", POINTER, "git lfs pull"),
    ],
)
def test_annotations_that_are_not_read_are_named(tmp_path, name, content, said):
    for index in range(16):
        put(tmp_path / f"train/p{index}.bmp", bitmap(index))
    put(tmp_path / name, content)
    (fault,) = errors(tmp_path)
    assert said in fault.message
    assert name in fault.message


def test_a_table_says_nothing_of_images_that_have_classes_or_other_annotations(tmp_path):
    table = "path,xmin,ymin,xmax,ymax\n"
    put(class_folders(tmp_path / "classes", count=20) / "boxes.csv", table)
    put(in_folders(tmp_path / "labels") / "boxes.csv", table)
    for folder in ("classes", "labels"):
        assert any("boxes.csv" in line for line in read_snapshot(tmp_path / folder).left_out)


@pytest.mark.parametrize("name", ["coco128.zip", "data/train-00000-of-00002.parquet", "train.tfrecord"])
def test_an_archive_in_place_of_images_is_named(tmp_path, name):
    put(tmp_path / name, b"PK")
    (fault,) = errors(tmp_path)
    assert (fault.code, name in fault.message) == ("no-images", True)


@pytest.mark.parametrize("name", ["classes.txt", "list.txt"])
def test_a_pointer_of_git_lfs_names_no_classes_and_no_images(tmp_path, name):
    if name == "classes.txt":
        in_folders(tmp_path)
    else:
        with_yaml(tmp_path, "train: list.txt\nval: images/val\nnames: [thing]\n")
    put(tmp_path / name, POINTER)
    assert [fault.code for fault in errors(tmp_path)] == ["lfs-pointer"]


def test_masks_without_labels_are_no_background(tmp_path):
    """They would teach that the objects are none."""
    in_folders(tmp_path)
    for index in range(16):
        put(tmp_path / f"masks/p{index}.png", bitmap(100 + index))
    snapshot = read_snapshot(tmp_path, classes=["car"])
    assert (sum(snapshot.images.values()), snapshot.warnings) == (16, ())
    assert any(line.startswith("16 x picture of masks") for line in snapshot.left_out)


def test_labels_of_pictures_that_are_not_read_are_no_second_finding(tmp_path):
    in_folders(tmp_path)
    for index in range(4):
        put(tmp_path / f"images/q{index}.jfif", b"x")
        put(tmp_path / f"labels/q{index}.txt", BOX)
    with pytest.raises(DatasetError) as caught:
        read_snapshot(tmp_path, classes=["car"])
    assert [finding.code for finding in caught.value.findings] == ["unread-format"]
