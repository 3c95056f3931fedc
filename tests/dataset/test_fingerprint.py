"""What changes a fingerprint, and what must not."""

import os
import shutil
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gpu_offload.dataset.fingerprint import fingerprint
from gpu_offload.dataset.layout import Layout
from gpu_offload.dataset.samples import Sample
from gpu_offload.dataset.snapshot import Snapshot, read_snapshot
from gpu_offload.dataset.split import SplitRule
from gpu_offload.dataset.task import Task

BOX = "0 0.5 0.5 0.2 0.2\n"
CLASSES = ("thing", "other")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for index in range(12):
        Image.new("RGB", (16, 16), (index, 0, 0)).save(root / f"{index:02}.png")
        (root / f"{index:02}.txt").write_text(BOX)
    return root


def fingerprint_at(root, **options):
    return fingerprint(read_snapshot(root, **({"classes": CLASSES} | options)))


def test_place_time_order_and_bystanders_do_not_matter(root, tmp_path):
    before = fingerprint_at(root)
    copy = tmp_path / "elsewhere" / "copy"
    copy.mkdir(parents=True)
    for path in sorted(root.iterdir(), reverse=True):
        shutil.copyfile(path, copy / path.name)
        os.utime(copy / path.name, (1, 1))
    (copy / "labels.cache").write_bytes(b"numpy says hello")
    (copy / ".DS_Store").write_bytes(b"x")
    (copy / ".hidden").mkdir()
    shutil.copyfile(root / "00.png", copy / ".hidden" / "more.png")
    (copy / "notes.md").write_text("nothing")
    (copy / "README.txt").write_text("nothing")
    assert fingerprint_at(copy) == before
    assert fingerprint_at(copy, check=False) == before
    assert fingerprint_at(copy, check=False, task=Task.DETECT) == before
    assert len(before) == 64


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "03.txt").write_text(BOX.replace("0.2\n", "0.3\n")),
        lambda root: (root / "03.txt").write_text(BOX + "\n"),
        lambda root: (root / "03.txt").unlink(),
        lambda root: Image.new("RGB", (16, 16), (99, 0, 0)).save(root / "03.png"),
        lambda root: (root / "03.png").rename(root / "99.png") and (root / "03.txt").rename(root / "99.txt"),
        lambda root: (root / "03.png").unlink() or (root / "03.txt").unlink(),
        lambda root: Image.new("RGB", (16, 16), (99, 0, 0)).save(root / "more.png"),
    ],
    ids=["label", "blank line", "label gone", "image", "renamed", "removed", "added"],
)
def test_a_byte_or_a_name_that_matters_changes_it(root, tmp_path, change):
    cache = tmp_path / "cache"
    before = fingerprint_at(root, cache=cache)
    change(root)
    assert fingerprint_at(root, cache=cache) == fingerprint_at(root) != before


def test_classes_split_and_task_change_it(root):
    values = [
        fingerprint_at(root),
        fingerprint_at(root, classes=("thing", "changed")),
        fingerprint_at(root, classes=CLASSES[::-1]),
        fingerprint_at(root, split=SplitRule(seed=1)),
        fingerprint_at(root, split=SplitRule(val=0.3)),
        fingerprint_at(root, split=SplitRule(test=0.2)),
    ]
    assert len(set(values)) == len(values)


def test_composed_and_decomposed_file_names_have_one_fingerprint(root, tmp_path):
    values = set()
    for form in ("NFC", "NFD"):
        copy = tmp_path / form
        shutil.copytree(root, copy)
        for suffix in (".png", ".txt"):
            (copy / f"03{suffix}").rename(copy / unicodedata.normalize(form, f"größe é{suffix}"))
        values.add(fingerprint_at(copy))
    assert len(values) == 1


shas = st.binary(min_size=32, max_size=32).map(bytes.hex)
rows = st.builds(
    Sample,
    image=st.text("ab/é", min_size=1, max_size=6).map(lambda name: name + ".png"),
    label=st.none() | st.text("ab", max_size=3).map(lambda name: name + ".txt"),
    split=st.sampled_from(["train", "val", "test"]),
    image_sha256=shas,
    label_sha256=st.none() | shas,
    size=st.just(1),
    width=st.just(1),
    height=st.just(1),
)


def snapshot_of(samples, path):
    return Snapshot(path, Layout.FLAT, Task.DETECT, CLASSES, None, None, tuple(samples), SplitRule())


@given(st.lists(rows, unique_by=lambda row: (row.image, row.split), max_size=6), st.randoms(), st.data())
def test_order_never_matters_and_every_field_does(tmp_path_factory, samples, random, data):
    root = tmp_path_factory.getbasetemp()
    before = fingerprint(snapshot_of(samples, root))
    shuffled = samples[:]
    random.shuffle(shuffled)
    assert fingerprint(snapshot_of(shuffled, root)) == before
    if samples:
        victim = data.draw(st.integers(0, len(samples) - 1))
        field = data.draw(st.sampled_from(["image", "image_sha256", "label", "label_sha256"]))
        changed = samples[:]
        changed[victim] = replace(samples[victim], **{field: (getattr(samples[victim], field) or "") + "x"})
        assert fingerprint(snapshot_of(changed, root)) != before
        assert fingerprint(snapshot_of(samples[:victim] + samples[victim + 1 :], root)) != before
