"""Reading a dataset: layouts, tasks, splits and every check."""

import os
from pathlib import Path

import pytest
from PIL import Image

from dataset.finding import DatasetError
from dataset.fingerprint import fingerprint
from dataset.layout import Layout
from dataset.snapshot import read_snapshot
from dataset.split import SplitRule
from dataset.task import Task

BOX = "0 0.5 0.5 0.2 0.2\n"
POLYGON = "0 0.1 0.1 0.9 0.1 0.5 0.9\n"
KEYBOARDS = Path(__file__).parent.parent.parent / "shared/datasets/keyboards/raw_dataset"


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


def test_an_empty_validation_split_is_an_error_with_a_remedy(tmp_path):
    fault = faults(flat(tmp_path, 1), classes=["thing"], split=SplitRule(val=0.01))
    assert "validation split is empty" in str(fault)
    assert "seed" in str(fault)
