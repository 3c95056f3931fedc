"""Any tree is read or refused in words, soon and in little memory."""

import contextlib
import json
import os
import subprocess
import time
from unittest import mock

import pytest
from dataset_case import BOX, BOX_1, POLYGON, bitmap, class_folders, flat, put
from hostile_trees import MAKERS, png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_offload.dataset import image_list, json_stream
from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.image import Density, ImageError, ImageFacts, check_image
from gpu_offload.dataset.image_finder import AmbiguousImageError, ImageFinder
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


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "scale"),
    [("bad_label", 1), ("unknown_classes", 0.005), ("blank_lines", 0.1), ("fill_bytes", 0.1), ("stuffed_bytes", 0.1),
     ("segments", 0.1), ("deep_folders", 1), ("missing_lines", 0.1), ("yaml_sources", 0.3), ("yaml_merge_keys", 1),
     ("yaml_base_60", 1), ("coco_lines", 0.02), ("coco_deep", 0.1), ("coco_parts", 0.1),
     ("coco_categories", 0.06), ("coco_huge_number", 0.1), ("voc_polygon", 1),
     ("voc_entities", 1), ("voc_lists", 0.05), ("ndjson_one_line", 0.1), ("many_orphans", 0.02),
     ("class_list", 0.3), ("png_huge", 1), ("tiff_bombs", 0.01), ("sparse_file", 1)],
)  # fmt: skip
def test_what_costs_little_to_write_costs_little_to_check(tmp_path, name, scale):
    """benchmarks/hostile_trees.py measures these and more at their full size, and their memory."""
    MAKERS[name](tmp_path, scale)
    try:
        assert judged(tmp_path / "data") is None
    finally:  # pytest's own clean-up would recurse too deep
        subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


def test_lists_of_a_dataset_have_a_limit_together(tmp_path):
    MAKERS["yaml_lists"](tmp_path, 0.004)
    with (
        mock.patch.object(image_list.Allowance, "__init__", lambda self: setattr(self, "lines", 30_000)),
        pytest.raises(DatasetError, match="lines together"),
    ):
        read_snapshot(tmp_path / "data")


@pytest.mark.parametrize(
    "name", ["coco_other_member", "coco_empty_objects", "ndjson_one_line", "json_numbers"]
)
def test_a_value_that_would_fill_the_memory_is_refused(tmp_path, name):
    with mock.patch.object(json_stream, "MAX_VALUE", 2_000), mock.patch.object(json_stream, "_PIECE", 500):
        MAKERS[name](tmp_path, 0.001)
        with pytest.raises(DatasetError, match="holds a value of more than"):
            read_snapshot(tmp_path / "data")


@pytest.mark.parametrize("name", ["b.json", "c.xml", "d.ndjson"])
def test_annotations_behind_a_link_and_pipes_are_not_opened(tmp_path, name):
    data = flat(tmp_path / "linked")
    (data / name).symlink_to("/dev/zero")
    with pytest.raises(DatasetError, match="is a symlink"):
        read_snapshot(data)
    os.mkfifo(flat(tmp_path / "pipe") / name)
    assert read_snapshot(tmp_path / "pipe").images["train"]


def test_elements_that_no_dataset_has_are_not_counted_to_their_end(tmp_path):
    with mock.patch.object(json_stream, "MAX_ELEMENTS", 1_000):
        MAKERS["coco_lines"](tmp_path, 0.001)
        with pytest.raises(DatasetError, match="more than 1000 elements"):
            read_snapshot(tmp_path / "data")


def test_pictures_of_one_name_are_compared_up_to_a_limit():
    names = [f"d{index}/a.jpg" for index in range(10_000)] + ["train/a.jpg"]
    finder = ImageFinder(names)
    found = []

    def find_all():
        found.extend(
            finder.find(f"x{index}/a.jpg", ("",), lambda name: name != "train/a.jpg")
            for index in range(10_000)
        )

    with pytest.raises(AmbiguousImageError):
        find_all()
    assert set(found) == {"train/a.jpg"}
    assert len(found) < 200


def test_pictures_that_are_nearly_empty_are_unpacked_up_to_a_limit(tmp_path):
    """Each is allowed, all together are minutes of work; looking again does not change the verdict."""
    flat(tmp_path / "data")
    size = 3_000
    for index in range(3):
        put(tmp_path / f"data/x{index}.png", png(size, size) + bytes([index]))
    assert read_snapshot(tmp_path / "data").images["train"]
    facts, content = ImageFacts("PNG", size, size), png(size, size)

    def read(offset, length):
        return content[offset : offset + length]

    density = Density(2 * size * size)
    assert check_image(read, len(content), density) == facts
    assert check_image(read, len(content), density) == facts
    with pytest.raises(ImageError) as caught:
        check_image(read, len(content), density)
    assert caught.value.code == "huge-image"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    st.dictionaries(st.text(max_size=5), json_values, max_size=5),
    st.integers(1, 9),
    st.sampled_from([None, 2]),
)
def test_json_read_in_pieces_is_the_json_read_at_once(tmp_path_factory, value, piece, indent):
    file = put(
        tmp_path_factory.mktemp("json") / "a.json", json.dumps(value, indent=indent, ensure_ascii=False)
    )
    read: dict[str, object] = {key: [] for key, member in value.items() if isinstance(member, list)}
    with mock.patch.object(json_stream, "_PIECE", piece):
        for key, element, line in json_stream.JsonObject(file).elements():
            if isinstance(value[key], list):
                read[key].append(element)
            else:
                read[key] = element
            assert 1 <= line <= file.read_bytes().count(b"\n") + 1
    assert read == value


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
