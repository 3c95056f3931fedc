"""Reading a dataset: layouts, tasks, splits and every check."""

import os
from pathlib import Path

import pytest
from PIL import Image

from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.fingerprint import fingerprint
from gpu_offload.dataset.layout import Layout
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.split import SplitRule
from gpu_offload.dataset.task import Task

BOX = "0 0.5 0.5 0.2 0.2\n"
POLYGON = "0 0.1 0.1 0.9 0.1 0.5 0.9\n"
KEYBOARDS = Path(__file__).parents[3] / "shared/datasets/keyboards/raw_dataset"


def draw(path, shade=0, size=(32, 24), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade % 256, shade // 256, 7)).save(path, **options)


def flat(root, count=20, label=BOX):
    for index in range(count):
        draw(root / f"{index:03}.png", index)
        (root / f"{index:03}.txt").write_text(label)
    return root


def codes(findings):
    return {finding.code for finding in findings}


def faults(root, **options):
    with pytest.raises(DatasetError) as caught:
        read_snapshot(root, **options)
    return caught.value


def test_a_flat_folder_is_read_with_its_labels_and_split_by_name(tmp_path):
    snapshot = read_snapshot(flat(tmp_path), classes=["thing"])
    assert (snapshot.layout, snapshot.task, snapshot.classes) == (Layout.FLAT, Task.DETECT, ("thing",))
    assert [sample.image for sample in snapshot.samples] == sorted(f"{i:03}.png" for i in range(20))
    first = snapshot.samples[0]
    assert (first.label, first.width, first.height, first.class_index) == ("000.txt", 32, 24, None)
    assert first.size == (tmp_path / "000.png").stat().st_size + len(BOX)
    assert sum(snapshot.images.values()) == 20
    assert snapshot.bytes == sum(sample.size for sample in snapshot.samples)
    assert snapshot.warnings == ()


def test_adding_an_image_moves_no_other_to_another_split(tmp_path):
    before = read_snapshot(flat(tmp_path), classes=["thing"])
    draw(tmp_path / "new.png", 999)
    (tmp_path / "new.txt").write_text(BOX)
    after = read_snapshot(tmp_path, classes=["thing"])
    splits = {sample.image: sample.split for sample in after.samples}
    assert all(splits[sample.image] == sample.split for sample in before.samples)
    assert fingerprint(after) != fingerprint(before)


@pytest.mark.skipif(not KEYBOARDS.is_dir(), reason="the keyboards dataset is not beside this repository")
def test_the_keyboards_are_clean(tmp_path):
    cache = tmp_path / "cache"
    snapshot = read_snapshot(KEYBOARDS, classes=["finger", "thumb", "marker"], cache=cache)
    assert sum(snapshot.images.values()) == 377
    assert snapshot.warnings == ()
    assert fingerprint(
        read_snapshot(KEYBOARDS, classes=["finger", "thumb", "marker"], cache=cache)
    ) == fingerprint(snapshot)


def test_every_offender_is_named_with_its_line_and_a_remedy(tmp_path):
    flat(tmp_path)
    (tmp_path / "003.txt").write_text(BOX + "0 0.5 0.5 1.5 0.2\n7 0.5 0.5 0.1 0.1\n")
    (tmp_path / "005.txt").write_text("0 0.5 zwei 0.1 0.1\n0 0.5\n0 nan 0.5 0.5 0.5\n-1 0.5 0.5 0.5 0.5\n")
    (tmp_path / "007.png").write_bytes((tmp_path / "007.png").read_bytes()[:-20])
    fault = faults(tmp_path, classes=["thing"])
    text = str(fault)
    for where in [
        "003.txt:2:",
        "003.txt:3:",
        "005.txt:1:",
        "005.txt:2:",
        "005.txt:3:",
        "005.txt:4:",
        "007.png:",
    ]:
        assert where in text
    assert codes(fault.findings) == {"out-of-range", "unknown-class", "malformed-label", "truncated-image"}
    assert all(";" in finding.message for finding in fault.findings if finding.code != "malformed-label")


def test_faults_are_found_again_with_a_warm_cache(tmp_path):
    root = flat(tmp_path / "data")
    (root / "003.txt").write_text("0 0.5 0.5 1.5 0.2\n")
    (root / "004.txt").write_text("9 0.5 0.5 0.5 0.2\n")
    os.utime(root / "003.txt", (1, 1))
    options = {"classes": ["thing"], "cache": tmp_path / "cache"}
    assert faults(root, **options).findings == faults(root, **options).findings


def test_a_symlink_is_refused(tmp_path):
    root = flat(tmp_path / "data")
    draw(tmp_path / "outside.png", 4000)
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "folder").symlink_to(tmp_path)
    assert [(f.path, f.code) for f in faults(root).findings if f.severity == "error"] == [
        ("folder", "symlink"),
        ("link.png", "symlink"),
    ]


def test_a_link_to_itself_hides_nothing_of_its_folder(tmp_path):
    flat(tmp_path)
    (tmp_path / "000").symlink_to("000")
    snapshot = read_snapshot(tmp_path, classes=["thing"])
    assert (len(snapshot.samples), snapshot.warnings) == (20, ())


def test_an_empty_validation_split_is_an_error_with_a_remedy(tmp_path):
    fault = faults(flat(tmp_path, 1), classes=["thing"], split=SplitRule(val=0.01))
    assert "validation split is empty" in str(fault)
    assert "seed" in str(fault)


def yaml_dataset(root, text="train: images/train\nval: images/val\nnames: [thing]\n", label=BOX):
    for split in ("train", "val"):
        for index in range(4):
            draw(root / f"images/{split}/{index}.png", index + 100 * (split == "val"))
            (root / f"labels/{split}").mkdir(parents=True, exist_ok=True)
            (root / f"labels/{split}/{index}.txt").write_text(label)
    (root / "data.yaml").write_text(text)
    return root


def test_a_data_yaml_gives_its_own_split(tmp_path):
    root = yaml_dataset(tmp_path)
    for path in (root, root / "data.yaml"):
        snapshot = read_snapshot(path)
        assert (snapshot.layout, snapshot.classes) == (Layout.YAML, ("thing",))
        assert snapshot.images == {"train": 4, "val": 4, "test": 0}
        assert all(f"images/{sample.split}/" in sample.image for sample in snapshot.samples)
        assert all(sample.label.startswith(f"labels/{sample.split}/") for sample in snapshot.samples)


def test_a_data_yaml_may_list_its_images_in_texts(tmp_path):
    root = yaml_dataset(tmp_path, "train: train.txt\nval: [lists/val.txt, images/val]\nnames: [thing]\n")
    (root / "train.txt").write_text("./images/train/0.png\nimages/train/1.png\n")
    (root / "lists").mkdir()
    (root / "lists/val.txt").write_text("images/train/2.png\n")
    snapshot = read_snapshot(root)
    assert {sample.image: sample.split for sample in snapshot.samples} == {
        "images/train/0.png": "train",
        "images/train/1.png": "train",
        "images/train/2.png": "val",
        **{f"images/val/{index}.png": "val" for index in range(4)},
    }
    assert all(sample.label is not None for sample in snapshot.samples)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("/etc/passwd.png", "outside-path"),
        ("../secret.png", "outside-path"),
        ("images/train/../../../secret.png", "outside-path"),
        ("nowhere.png", "missing-path"),
        ("data.yaml", "no-image"),
        ("link/0.png", "symlink"),
        ("images/link.png", "symlink"),
    ],
)
def test_a_listed_image_cannot_lead_outside(tmp_path, line, code):
    root = yaml_dataset(tmp_path / "data", "train: train.txt\nval: images/val\nnames: [thing]\n")
    draw(tmp_path / "secret.png")
    (root / "link").symlink_to(root / "images/train")
    (root / "images/link.png").symlink_to(tmp_path / "secret.png")
    (root / "train.txt").write_text(f"images/train/0.png\n{line}\n")
    assert ("train.txt", 2, code) in [(f.path, f.line, f.code) for f in faults(root).findings]


def test_without_val_a_part_of_train_is_held_back(tmp_path):
    snapshot = read_snapshot(
        yaml_dataset(tmp_path, "train: images\nnames: [thing]\n"), split=SplitRule(val=0.5)
    )
    assert snapshot.images["val"] > 0
    assert codes(snapshot.warnings) == {"split-made"}


@pytest.mark.parametrize("layout", ["data.yaml", "class folders"])
def test_folds_divide_the_training_images_where_none_are_for_validation(tmp_path, layout):
    if layout == "data.yaml":
        yaml_dataset(tmp_path, "train: images\nnames: [thing]\n")
    else:
        folders(tmp_path, ("train",))
    validated = [
        [
            s.image
            for s in read_snapshot(tmp_path, split=SplitRule(fold=(part, 2))).samples
            if s.split == "val"
        ]
        for part in (1, 2)
    ]
    images = {sample.image for sample in read_snapshot(tmp_path).samples}
    assert sorted(validated[0] + validated[1]) == sorted(images)


def test_the_same_folder_as_train_and_val_is_a_leak_and_a_warning(tmp_path):
    root = yaml_dataset(tmp_path, "train: images/train\nval: images/train\nnames: [thing]\n")
    snapshot = read_snapshot(root)
    assert snapshot.images == {"train": 4, "val": 4, "test": 0}
    assert [finding.code for finding in snapshot.warnings] == ["leak"]
    assert len([f for f in faults(root, task=Task.SEGMENT).findings if f.code == "wrong-task"]) == 4
    (root / "labels/train/0.txt").unlink()
    assert ["1 of 4" in f.message for f in read_snapshot(root).warnings if f.code == "no-label"] == [True]


def test_pose_is_known_by_its_keypoint_shape(tmp_path):
    text = "train: images/train\nval: images/val\nnames: [thing]\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\n"
    snapshot = read_snapshot(yaml_dataset(tmp_path, text, "0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 1\n"))
    assert (snapshot.task, snapshot.keypoint_shape, snapshot.flip_idx) == (Task.POSE, (2, 3), (1, 0))


def test_polygons_mean_segmentation_unless_detection_is_asked_for(tmp_path):
    flat(tmp_path, label=POLYGON)
    assert read_snapshot(tmp_path).task is Task.SEGMENT
    detect = read_snapshot(tmp_path, task=Task.DETECT)
    assert detect.task is Task.DETECT
    assert fingerprint(detect) != fingerprint(read_snapshot(tmp_path))


def test_labels_of_the_wrong_kind_are_an_error(tmp_path):
    flat(tmp_path)
    assert len([f for f in faults(tmp_path, task=Task.SEGMENT).findings if f.code == "wrong-task"]) == 20
    assert codes(faults(tmp_path, task=Task.CLASSIFY).findings) >= {"no-class"}
    assert "kpt_shape" in str(faults(tmp_path, task=Task.POSE))


def test_a_mix_of_boxes_and_polygons_is_detection_with_a_warning(tmp_path):
    flat(tmp_path)
    (tmp_path / "003.txt").write_text(POLYGON)
    snapshot = read_snapshot(tmp_path, classes=["thing"])
    assert snapshot.task is Task.DETECT
    assert codes(snapshot.warnings) == {"mixed-labels"}


def folders(root, parts=("",), count=15):
    for part in parts:
        for kind, name in enumerate(("dog", "cat")):
            for index in range(count):
                draw(root / part / name / f"{index}.png", 1000 * kind + index + 200 * len(part))
    return root


def test_class_folders_are_classes_in_alphabetical_order(tmp_path):
    snapshot = read_snapshot(folders(tmp_path))
    assert (snapshot.layout, snapshot.task, snapshot.classes) == (
        Layout.FOLDERS,
        Task.CLASSIFY,
        ("cat", "dog"),
    )
    assert {(s.image.split("/")[0], s.class_index) for s in snapshot.samples} == {("cat", 0), ("dog", 1)}
    assert min(snapshot.images["train"], snapshot.images["val"]) > 0
    assert all(sample.label is None for sample in snapshot.samples)


def test_split_folders_of_a_classification_tree_are_kept(tmp_path):
    snapshot = read_snapshot(folders(tmp_path, ("train", "val", "test"), 3))
    assert snapshot.images == {"train": 6, "val": 6, "test": 6}
    assert all(sample.image.startswith(sample.split) for sample in snapshot.samples)
    assert snapshot.classes == ("cat", "dog")


def test_the_settings_may_repeat_the_classes_but_not_contradict_them(tmp_path):
    folders(tmp_path)
    assert codes(read_snapshot(tmp_path, classes=["dog", "cat"]).warnings) == {"class-order"}
    assert codes(faults(tmp_path, classes=["dog", "bird"]).findings) == {"class-mismatch"}


def test_classes_txt_names_the_classes_of_a_flat_folder(tmp_path):
    flat(tmp_path, label="1 0.5 0.5 0.2 0.2\n")
    (tmp_path / "classes.txt").write_text("one\ntwo\n")
    assert read_snapshot(tmp_path).classes == ("one", "two")
    (tmp_path / "classes.txt").write_text("one\n\ntwo\n")
    fault = faults(tmp_path).findings[0]  # is `two` class 1 or 2?
    assert (fault.code, fault.path, fault.line) == ("malformed-classes", "classes.txt", 2)


def test_classes_without_names_are_numbered_with_a_warning(tmp_path):
    snapshot = read_snapshot(flat(tmp_path, label="2 0.5 0.5 0.2 0.2\n"))
    assert snapshot.classes == ("0", "1", "2")
    assert codes(snapshot.warnings) == {"no-classes"}


def test_images_without_labels_are_background_but_not_all_of_them(tmp_path):
    flat(tmp_path)
    (tmp_path / "003.txt").unlink()
    (tmp_path / "004.txt").write_text("")
    snapshot = read_snapshot(tmp_path, classes=["thing"])
    assert snapshot.samples[3].label is None
    (finding,) = snapshot.warnings
    assert (finding.code, "1 of 20" in finding.message, "003.png" in finding.message) == (
        "no-label",
        True,
        True,
    )
    for path in tmp_path.glob("*.txt"):
        path.unlink()
    assert codes(faults(tmp_path, classes=["thing"]).findings) == {"no-labels"}


def test_a_label_without_an_image_is_a_warning_whatever_it_holds(tmp_path):
    flat(tmp_path)
    (tmp_path / "notes.txt").write_text("buy milk\n")
    (tmp_path / "README.txt").write_text("hello\n")
    snapshot = read_snapshot(tmp_path, classes=["thing"])
    assert [(finding.path, finding.code) for finding in snapshot.warnings] == [("notes.txt", "no-image")]


def test_the_same_image_twice_is_a_warning_and_a_leak_across_splits(tmp_path):
    flat(tmp_path, 40)
    snapshot = read_snapshot(tmp_path, classes=["thing"])
    by_split = {split: [s.image for s in snapshot.samples if s.split == split] for split in ("train", "val")}
    for copy, original in [
        (by_split["train"][0], by_split["train"][1]),
        (by_split["val"][0], by_split["train"][2]),
    ]:
        (tmp_path / copy).write_bytes((tmp_path / original).read_bytes())
    findings = read_snapshot(tmp_path, classes=["thing"]).warnings
    assert sorted(finding.code for finding in findings) == ["duplicate-image", "leak"]


@pytest.mark.parametrize(
    "names", [("A.png", "a.png"), ("é.png", "e\u0301.png"), ("Straße.png", "STRASSE.png")]
)
def test_names_that_some_file_system_confuses_are_an_error(tmp_path, names):
    flat(tmp_path)
    for shade, name in enumerate(names):
        draw(tmp_path / name, 500 + shade)
    if not set(names) <= {path.name for path in tmp_path.iterdir()}:
        pytest.skip("this file system does not tell the names apart")
    assert "name-clash" in codes(faults(tmp_path, classes=["thing"]).findings)


def test_folders_that_some_file_system_confuses_are_an_error(tmp_path):
    folders(tmp_path)
    draw(tmp_path / "CAT/x.png", 7)
    assert "name-clash" in codes(faults(tmp_path).findings)


@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"a\nb.png", b"a\x1b[31m.png", b"a\\b.png"])
def test_a_name_that_could_do_harm_is_refused_and_shown_harmlessly(tmp_path, name):
    flat(tmp_path)
    (tmp_path / "003.png").rename(tmp_path / os.fsdecode(name))
    fault = faults(tmp_path, classes=["thing"])
    assert "unsafe-name" in codes(fault.findings)
    text = str(fault)
    assert all(character.isprintable() or character == "\n" for character in text)
    text.encode()


def test_content_that_does_not_match_its_name_is_a_warning(tmp_path):
    flat(tmp_path)
    (tmp_path / "003.png").rename(tmp_path / "003.jpg")
    assert codes(read_snapshot(tmp_path, classes=["thing"]).warnings) == {"wrong-extension"}


def test_two_images_with_one_label_are_a_warning(tmp_path):
    flat(tmp_path)
    draw(tmp_path / "003.bmp", 900)
    assert codes(read_snapshot(tmp_path, classes=["thing"]).warnings) == {"shared-label"}


def test_what_is_no_file_is_an_error_and_never_waited_for(tmp_path):
    flat(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    assert [(f.path, f.code) for f in faults(tmp_path).findings if f.severity == "error"] == [
        ("pipe.png", "no-file")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    flat(tmp_path)
    (tmp_path / "003.png").chmod(0)
    assert "unreadable-file" in codes(faults(tmp_path).findings)


def test_a_place_without_a_dataset_is_an_error(tmp_path):
    assert codes(faults(tmp_path / "nowhere").findings) == {"missing-path"}
    found = faults(tmp_path).findings
    assert codes(found) == {"no-images"}
    assert f"{tmp_path}; " in found[0].message


@pytest.mark.process
def test_importing_the_package_loads_neither_pillow_nor_yaml():
    import subprocess
    import sys

    code = "import gpu_offload.dataset.snapshot, gpu_offload.dataset.tree, sys; print({'PIL', 'yaml', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_pillow_format_is_checked_as_well(tmp_path):
    flat(tmp_path)
    draw(tmp_path / "a.tif", 900)
    draw(tmp_path / "b.jp2", 901)
    draw(tmp_path / "c.jpg", 902)
    snapshot = read_snapshot(tmp_path, classes=["thing"])
    assert {s.image: (s.width, s.height) for s in snapshot.samples}["a.tif"] == (32, 24)


def test_samples_behave_like_a_tuple(tmp_path):
    samples = read_snapshot(flat(tmp_path)).samples
    assert list(samples) == list(samples[:]) == [samples[index] for index in range(len(samples))]
    assert samples[-1] == list(samples)[-1]
    with pytest.raises(IndexError):
        samples[len(samples)]


def test_a_description_under_another_name_is_not_passed_over(tmp_path):
    root = yaml_dataset(tmp_path)
    (root / "data.yaml").rename(root / "things.yaml")
    fault = faults(root, classes=["thing"])
    assert codes(f for f in fault.findings if f.severity == "error") == {"doubtful-layout"}
    assert "things.yaml" in str(fault)
    assert read_snapshot(root / "things.yaml").images == {"train": 4, "val": 4, "test": 0}
    (root / "things.yaml").write_text("train: elsewhere/images\nnames: [other]\n")
    assert read_snapshot(root, classes=["thing"], split=SplitRule(val=0.5)).layout is Layout.FLAT


def test_split_folders_without_a_data_yaml_are_not_passed_over_in_silence(tmp_path):
    root = yaml_dataset(tmp_path)
    (root / "data.yaml").unlink()
    snapshot = read_snapshot(root, classes=["thing"], split=SplitRule(val=0.5))
    assert (snapshot.layout, codes(snapshot.warnings)) == (Layout.FLAT, {"split-ignored"})


@pytest.mark.parametrize(
    "row",
    ["Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n",
     "2753 2408 2861 2385 2888 2468 2805 2502 plane 0 1\n"],
)  # fmt: skip
def test_rows_of_another_form_are_not_called_keypoints(tmp_path, row):
    """KITTI's and DOTA's labels."""
    flat(tmp_path, label=row)
    assert codes(faults(tmp_path, classes=["car"]).findings) == {"malformed-label"}
