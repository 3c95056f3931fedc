"""Classification trees: which folders are classes, which are splits, and what is neither."""

import pytest
from dataset_case import bitmap, class_folders, put

from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.layout import split_named
from gpu_offload.dataset.snapshot import read_snapshot


def codes(root, **options):
    with pytest.raises(DatasetError) as caught:
        read_snapshot(root, **options)
    return [finding.code for finding in caught.value.findings if finding.severity == "error"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAINING", "train2017", "train_set", "trainset", "train-images")),
        *((name, "val") for name in ("val", "valid", "Validation", "dev", "eval", "evaluation", "val2017", "validation_data")),
        *((name, "test") for name in ("test", "Testing", "test2014", "test_set", "holdout")),
        *((name, None) for name in ("training_wheels", "valley", "tester", "trains", "evaluate", "validator", "2017", "")),
    ],
)  # fmt: skip
def test_splits_are_known_by_their_usual_names(name, split):
    assert split_named(name) == split


@pytest.mark.parametrize(
    "parts", [("Train", "Valid", "TEST"), ("training", "validation", "testing"), ("train2017", "val2017")]
)
def test_splits_are_those_of_the_folders_however_they_are_spelt(tmp_path, parts):
    class_folders(tmp_path, parts, count=2)
    snapshot = read_snapshot(tmp_path)
    assert snapshot.classes == ("cat", "dog")
    assert [number for number in snapshot.images.values() if number] == [4] * len(parts)


def test_leftovers_of_operating_systems_and_tools_are_no_class(tmp_path):
    class_folders(tmp_path, ("train", "val"), count=2)
    for name in ("__MACOSX/train/dog/._0.bmp", "__MACOSX/x.png", ".ipynb_checkpoints/a.png", "node_modules/a/b.png",
                 "venv/pyvenv.cfg", "venv/a.png", "runs/detect/train/a.png", "train/@eaDir/0.png", "Thumbs.db"):  # fmt: skip
        put(tmp_path / name, bitmap(900))
    snapshot = read_snapshot(tmp_path)
    assert snapshot.classes == ("cat", "dog")
    text = "\n".join(snapshot.left_out)
    assert all(
        name in text for name in ("__MACOSX/", "venv/", "runs/", "node_modules/", "@eaDir/", "Thumbs.db")
    )


@pytest.mark.parametrize(
    "name", ["train", "val2017", "mask", "runs", "fold0", "images", "labels", "Annotations", "predictions"]
)
def test_a_class_that_is_named_like_something_else_is_doubted(tmp_path, name):
    class_folders(tmp_path, names=("dog", "cat", name), count=4)
    assert codes(tmp_path) == ["doubtful-classes"]
    named = read_snapshot(tmp_path, classes=sorted(["dog", "cat", name]))
    assert named.classes == tuple(sorted(["dog", "cat", name]))


def test_splits_beside_other_folders_are_doubted(tmp_path):
    class_folders(tmp_path, ("train", "val", "copy/train"), count=2)
    assert codes(tmp_path) == ["doubtful-classes"]


def test_folds_and_splits_below_classes_are_doubted(tmp_path):
    class_folders(tmp_path / "folds", ("fold0", "fold1"), count=2)
    assert "doubtful-classes" in codes(tmp_path / "folds")
    for name in ("dog", "cat"):
        class_folders(tmp_path / "below" / name, names=("train", "val"), count=2)
    assert "doubtful-classes" in codes(tmp_path / "below")


def test_the_folder_above_a_dataset_names_the_one_to_take(tmp_path):
    class_folders(tmp_path / "chest", ("train", "val"), count=2)
    with pytest.raises(DatasetError, match="chest"):
        read_snapshot(tmp_path)


def test_a_split_without_pictures_is_an_error_but_test_may_be_empty(tmp_path):
    class_folders(tmp_path, ("train", "val"), count=2)
    (tmp_path / "test").mkdir()
    assert [finding.code for finding in read_snapshot(tmp_path).warnings] == ["empty-split"]
    for file in (tmp_path / "val").rglob("*.bmp"):
        file.unlink()
    assert codes(tmp_path) == ["empty-split"]


def test_without_a_folder_for_validation_a_part_of_train_is_held_back(tmp_path):
    class_folders(tmp_path, ("train", "test"), count=10)
    snapshot = read_snapshot(tmp_path)
    assert snapshot.images["test"] == 20
    assert min(snapshot.images["train"], snapshot.images["val"]) > 0
    assert "split-made" in {finding.code for finding in snapshot.warnings}


@pytest.mark.parametrize("ending", ["jfif", "gif", "pgm", "tga", "heif2000"])
def test_pictures_in_a_format_that_is_not_read_are_one_error_for_each_format(tmp_path, ending):
    class_folders(tmp_path, count=4)
    for index in range(3):
        put(tmp_path / f"bird/{index}.{ending}", bitmap(index))
    if ending == "heif2000":
        assert any(f"bird/0.{ending}" in line for line in read_snapshot(tmp_path).left_out)
    else:
        assert codes(tmp_path) == ["unread-format"]


def test_classes_that_differ_in_case_between_splits_are_an_error(tmp_path):
    class_folders(tmp_path, ("train",), ("dog", "cat"), 2)
    class_folders(tmp_path, ("val",), ("Dog", "cat"), 2)
    assert codes(tmp_path) == ["name-clash"]


def test_texts_and_json_beside_classes_do_not_hide_them(tmp_path):
    class_folders(tmp_path)
    put(tmp_path / "requirements.txt", "torch\n")
    put(tmp_path / "cat/about.txt", "cats\n")
    put(tmp_path / "names.json", '{"0": "cat"}')
    snapshot = read_snapshot(tmp_path)
    assert snapshot.classes == ("cat", "dog")
    assert all(
        any(name in line for line in snapshot.left_out)
        for name in ("requirements.txt", "cat/about.txt", "names.json")
    )


def test_pictures_in_no_class_folder_are_one_fault_for_each_folder(tmp_path):
    """ILSVRC comes with all validation pictures in one folder."""
    class_folders(tmp_path, ("train", "val"), count=2)
    for index in range(30):
        put(tmp_path / f"val/{index}.bmp", bitmap(300 + index))
        put(tmp_path / f"train/{index}.bmp", bitmap(400 + index))
    assert codes(tmp_path) == ["no-class"] * 2


def test_test_pictures_without_classes_are_left_out(tmp_path):
    """As those of competitions; among class folders they would be a mistake."""
    class_folders(tmp_path, ("train",), count=20)
    for index in range(30):
        put(tmp_path / f"test/{index}.bmp", bitmap(300 + index))
    snapshot = read_snapshot(tmp_path)
    assert [finding.code for finding in snapshot.warnings] == ["split-made", "no-class"]
    assert any(line.startswith("30 x") and "test/" in line for line in snapshot.left_out)
    put(tmp_path / "test/cat/a.bmp", bitmap(500))
    assert codes(tmp_path) == ["no-class"]


def test_pictures_in_folders_of_splits_alone_have_no_classes(tmp_path):
    for index in range(40):
        put(tmp_path / f"train/{index}.bmp", bitmap(index))
    assert codes(tmp_path) == ["no-labels"]


def test_classes_that_differ_only_in_case_are_said_once(tmp_path):
    class_folders(tmp_path, names=("Cat", "cat", "dog"), count=4)
    assert codes(tmp_path) == ["name-clash"]
    class_folders(tmp_path / "split", ("train",), names=("Cat", "dog"), count=4)
    class_folders(tmp_path / "split", ("val",), names=("cat", "dog"), count=4)
    assert "name-clash" in codes(tmp_path / "split")
