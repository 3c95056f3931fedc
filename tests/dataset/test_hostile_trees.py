"""Any tree is read or refused in words, soon and in little memory."""

import contextlib
import os
import subprocess
import time

import pytest
from dataset_case import BOX, BOX_1, POLYGON, bitmap, class_folders, flat, put, with_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.snapshot import read_snapshot

COCO = (
    b'{"images": [{"id": 1, "file_name": "a.bmp", "width": 16, "height": 12}], "categories": [{"id": 1, "name": "x"}],'
    b' "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}]}'
)
XML = (
    b"<annotation><filename>a.bmp</filename><object><name>x</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
    b"<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
)
NDJSON = (
    b'{"type": "dataset", "task": "detect", "class_names": {"0": "x"}}\n'
    b'{"type": "image", "file": "a.bmp", "split": "train", "annotations": {"boxes": [[0, 0.5, 0.5, 0.2, 0.2]]}}\n'
)
YAML = b"path: .\ntrain: images/train\nval: [images/val, list.txt]\nnames: {0: a, 1: b}\nkpt_shape: [2, 3]\n"
CONTENTS = [
    bitmap(),
    BOX.encode(),
    BOX_1.encode(),
    POLYGON.encode(),
    COCO,
    XML,
    NDJSON,
    YAML,
    b"a.bmp\nimages/a.bmp\n",
    b"",
]

folders = st.sampled_from(
    ["", "images", "labels", "train", "val", "images/train", "labels/train", "cat", "dog", "train/cat", "val/cat",
     "annotations", "Annotations", "runs", "venv", "x.cache", ".hidden", "__MACOSX", "JPEGImages", "obj_train_data"]
)  # fmt: skip
files = st.sampled_from(
    ["a.bmp", "b.bmp", "a.txt", "b.txt", "a.TXT", "a.bmp.txt", "a.jpg", "a.xml", "instances_train.json", "all.json",
     "_annotations.coco.json", "set.ndjson", "data.yaml", "obj.data", "obj.names", "train.txt", "classes.txt", "a.gif",
     "\u00e9.bmp", "e\u0301.bmp", "A.bmp", ".a.bmp", "a.npy", "README.md"]
)  # fmt: skip
trees = st.dictionaries(
    st.tuples(folders, files), st.sampled_from(CONTENTS) | st.binary(max_size=60), max_size=14
)


def judged(root):
    """Read a dataset; whatever is wrong with it is a DatasetError with a text."""
    before = time.process_time()
    try:
        snapshot = read_snapshot(root)
    except DatasetError as fault:
        snapshot = None
        str(fault).encode()
    assert time.process_time() - before < 10
    return snapshot


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(trees)
def test_any_tree_is_read_or_refused_in_words(tmp_path_factory, tree):
    root = tmp_path_factory.mktemp("tree")
    for (folder, name), content in tree.items():
        with contextlib.suppress(OSError):
            put(root / folder / name, content)
    snapshot = judged(root)
    if snapshot is not None:
        assert snapshot.images["train"] > 0
        assert all(sample.label is None or sample.label_sha256 for sample in snapshot.samples)


def mutated(draw, content):
    body = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(body) - 1, 0)))
        action = draw(st.sampled_from(["flip", "cut", "repeat", "insert"]))
        if action == "flip" and body:
            body[at] = draw(st.integers(0, 255))
        elif action == "cut":
            del body[at : at + draw(st.integers(1, 20))]
        elif action == "repeat":
            body[at:at] = body[at : at + 20] * draw(st.integers(1, 50))
        else:
            body[at:at] = draw(
                st.sampled_from(
                    [b"\0", b"\n", b"{", b"[", b"]", b"&a", b"*a", b"<", b"-", b"nan", b"1e999", b"\xff"]
                )
            )
    return bytes(body)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("all.json", COCO),
        ("a.xml", XML),
        ("set.ndjson", NDJSON),
        ("data.yaml", YAML),
        ("a.txt", (BOX + POLYGON).encode()),
        ("a.bmp", bitmap()),
        ("obj.data", b"classes = 1\ntrain = data/train.txt\nnames = obj.names\n"),
    ],
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.data())
def test_a_file_that_was_good_is_read_or_refused_in_words(tmp_path_factory, name, content, data):
    root = tmp_path_factory.mktemp("tree")
    put(root / "a.bmp", bitmap())
    put(root / "b.bmp", bitmap(1))
    put(root / name, mutated(data.draw, content))
    judged(root)


def huge_label(root):
    put(flat(root) / "000.txt", b"x y\n" * (1 << 22))


def rows_without_a_class(root):
    put(flat(root) / "000.txt", b"9 0.5 0.5 0.1 0.1\n" * 900_000)


def fill_bytes(root):
    put(flat(root) / "x.jpg", b"\xff\xd8" + b"\xff" * (32 << 20))


def stuffed_bytes(root):
    put(flat(root) / "x.jpg", b"\xff\xd8\xff" + b"\xff\0" * (8 << 20))


def segments(root):
    put(flat(root) / "x.jpg", b"\xff\xd8" + b"\xff\xe0\0\2" * (8 << 20))


def deep_folders(root):
    handle = os.open(flat(root), os.O_RDONLY)
    for _ in range(1_100):
        os.mkdir("d", dir_fd=handle)
        below = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)


def missing_lines(root):
    with_yaml(root, "train: list.txt\nval: images/val\nnames: [a]\n")
    put(root / "list.txt", ("a/" * 100 + "x.jpg\n") * 100_000)


def many_sources(root):
    with_yaml(root, "train: [" + "nowhere, " * 100_000 + "]\nval: images/val\nnames: [a]\n")


def bad_annotations(root):
    put(root / "a.bmp", bitmap())
    put(root / "all.json", b'{"images": [], "categories": [], "annotations": [' + b"{}," * 500_000 + b"{}]}")


def nested_json(root):
    put(root / "a.bmp", bitmap())
    put(root / "all.json", b'{"categories": [], "annotations": [], "images": ' + b"[" * 1_000_000)


def large_file(root):
    flat(root)
    with (root / "x.jpg").open("wb") as file:
        file.truncate(1 << 36)


@pytest.mark.process
@pytest.mark.parametrize(
    "make",
    [huge_label, rows_without_a_class, fill_bytes, stuffed_bytes, segments, deep_folders, missing_lines, many_sources,
     bad_annotations, nested_json, large_file],
)  # fmt: skip
def test_what_costs_little_to_write_costs_little_to_check(tmp_path, make):
    make(tmp_path)
    try:
        assert judged(tmp_path) is None
    finally:  # pytest's own clean-up would recurse too deep
        subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


def test_folders_that_are_named_like_caches_are_left_out(tmp_path):
    flat(tmp_path)
    put(tmp_path / "x.cache/a.bmp", bitmap(77))
    snapshot = judged(tmp_path)
    assert any("x.cache/" in line for line in snapshot.left_out)


def test_many_findings_of_a_kind_are_counted(tmp_path):
    class_folders(tmp_path)
    for index in range(3_000):
        put(tmp_path / f"cat/more/{index}.png", b"x")
    with pytest.raises(DatasetError) as caught:
        read_snapshot(tmp_path)
    assert len(caught.value.findings) < 2_000
    assert "3000 faults" in str(caught.value)
    assert len(str(caught.value).splitlines()) < 300
