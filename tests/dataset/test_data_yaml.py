"""A `data.yaml` from a stranger."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_offload.dataset.data_yaml import read_data_yaml
from gpu_offload.dataset.finding import DatasetError

GOOD = "train: images/train\nval: images/val\nnames: [a, b]\n"


@pytest.fixture
def root(tmp_path):
    for folder in ("images/train", "images/val", "sub/images/train", "sub/images/val"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "data/link").symlink_to(tmp_path / "outside")
    return tmp_path / "data"


def read(root, text):
    (root / "data.yaml").write_text(text)
    return read_data_yaml(root / "data.yaml")


def test_the_usual_file_is_read(root):
    data = read(root, GOOD + "nc: 2\nkpt_shape: [3, 2]\nflip_idx: [0, 2, 1]\n")
    assert data.sources == {"train": ("images/train",), "val": ("images/val",), "test": ()}
    assert (data.base, data.classes, data.keypoint_shape, data.flip_idx) == (
        "",
        ("a", "b"),
        (3, 2),
        (0, 2, 1),
    )
    assert data.warnings == ()


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("names: {0: a, 1: b}", ("a", "b")),
        ("names: {1: b, 0: a}", ("a", "b")),
        ("names:\n  - 'yes'\n  - 7", ("yes", "7")),
        ("nc: 2", ("0", "1")),
        ("nc: '2'\nnames: {'0': a, \"1\": b}", ("a", "b")),
        (
            "names: [no, Yes, 1:30, 2020-01-01, 1e3, 1_000]",
            ("no", "Yes", "1:30", "2020-01-01", "1e3", "1_000"),
        ),
    ],
)
def test_names_come_in_several_forms(root, names, classes):
    assert read(root, f"train: images/train\nval: images/val\n{names}\n").classes == classes


def test_validation_is_another_name_of_val(root):
    data = read(root, "train: images/train\nvalidation: images/val\nnames: [a]\n")
    assert (data.sources["val"], data.warnings) == (("images/val",), ())
    with pytest.raises(DatasetError) as caught:
        read(root, "train: images/train\nvalidation: nowhere\nnames: [a]\n")
    assert [(fault.code, fault.line) for fault in caught.value.findings] == [("missing-path", 2)]


def test_path_moves_the_base_and_lists_are_allowed(root):
    data = read(root, "path: ./sub\ntrain: [images/train, ./images/train/]\nnames: [a]\n")
    assert (data.base, data.sources["train"]) == ("sub", ("images/train", "images/train"))


def test_the_parent_path_of_roboflow_is_read_where_it_stays_inside(root):
    data = read(root, "train: ../images/train\nval: ../images/val\nnames: [a]\n")
    assert data.sources["train"] == ("images/train",)
    assert [finding.code for finding in data.warnings] == ["parent-path", "parent-path"]


@pytest.mark.parametrize(
    ("path", "base"),
    [
        ("{here}", ""),
        ("{here}/sub", "sub"),
        ("/content/other/sub", "sub"),
        ("/home/me/project", ""),
        ("C:\\Users\\me\\sub", "sub"),
        ("datasets/{name}", ""),
        ("../{name}", ""),
    ],
)
def test_a_path_of_another_machine_is_found_below_the_file(root, path, base):
    written = path.format(here=root, name=root.name)
    data = read(root, f"path: {written}\ntrain: images/train\nval: images/val\nnames: [a]\n")
    assert (data.base, data.sources["val"]) == (base, ("images/val",))


def test_an_absolute_folder_of_images_is_found_below_the_file(root):
    data = read(root, "train: /content/data/images/train\nval: 'D:\\data\\images\\val'\nnames: [a]\n")
    assert (data.sources["train"], data.sources["val"]) == (("images/train",), ("images/val",))
    assert [finding.code for finding in data.warnings] == ["moved-path", "moved-path"]


def test_a_test_folder_that_is_not_there_is_a_warning(root):
    data = read(root, GOOD + "test: ../test/images\n")
    assert data.sources["test"] == ()
    assert [finding.code for finding in data.warnings] == ["missing-test"]


def test_a_path_that_is_not_there_is_one_fault(root):
    with pytest.raises(DatasetError) as caught:
        read(root, "path: ../datasets/ds\ntrain: images/x\nval: images/y\ntest: images/z\nnames: [a]\n")
    assert [(finding.path, finding.line) for finding in caught.value.findings] == [("data.yaml", 1)]


@pytest.mark.parametrize(
    "text",
    [
        "x: &a {b: 1}\ntrain: images/train\nnames: [a]\n",
        "x: " + ":".join(["59"] * 500_000) + "\ntrain: images/train\nnames: [a]\n",
        "x: " + "[" * 100_000,
        "x: " + "- " * 500_000,
        "x: " + "9" * 1_000_000,
        "- a\n" * 800_000,
    ],
)
def test_a_small_file_costs_little_whatever_is_in_it(root, text):
    import time

    before = time.process_time()
    with contextlib.suppress(DatasetError):
        read(root, text)
    assert time.process_time() - before < 10


def test_download_is_never_honoured(root):
    data = read(root, GOOD + "download: |\n  import os\n  os.system('touch pwned')\n")
    assert [(finding.code, finding.line) for finding in data.warnings] == [("download", 4)]


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("train: /etc\nval: images/val\nnames: [a]", "outside-path", 1),
        ("names: [a]\ntrain: ../outside\nval: images/val", "outside-path", 2),
        ("train: images/../../outside\nnames: [a]", "outside-path", 1),
        ("train: ~/x\nnames: [a]", "outside-path", 1),
        ("train: https://example.com/x.zip\nnames: [a]", "outside-path", 1),
        ("train: 'C:\\x'\nnames: [a]", "outside-path", 1),
        ("path: /nowhere\ntrain: images/nowhere\nnames: [a]", "missing-path", 1),
        ("train: /content/ds/test/images\nnames: [a]", "outside-path", 1),
        ("path: ..\ntrain: images/train\nnames: [a]", "outside-path", 1),
        ("train: link\nnames: [a]", "symlink", 1),
        ("train: nowhere\nnames: [a]", "missing-path", 1),
        ("train: 3\nnames: [a]", "missing-path", 1),
        ("train: []\nnames: [a]", "malformed-yaml", 1),
        ("train: images/train\nval: images/val\ntrain: images/val\nnames: [a]", "malformed-yaml", 3),
        ("train: images/train\nnames: {1: a, 2: b}", "malformed-yaml", 2),
        ("<<: {train: images/train}\nnames: [a]", "malformed-yaml", 1),
        ("train: [images/train, {a: b}]\nnames: [a]", "malformed-yaml", 1),
        ("val: images/val\nnames: [a]", "missing-key", None),
        ("train: images/train", "missing-key", None),
        ("train: images/train\nnames: a", "malformed-yaml", 2),
        ("train: images/train\nnames: {0: a, 2: b}", "malformed-yaml", 2),
        ("train: images/train\nnames: [a, a]", "malformed-yaml", 2),
        ("train: images/train\nnames: [a, '']", "malformed-yaml", 2),
        ("train: images/train\nnames: [[a]]", "malformed-yaml", 2),
        ("train: images/train\nnames: [a]\nnc: 2", "malformed-yaml", 3),
        ("train: images/train\nnames: [a]\nnc: -1", "malformed-yaml", 3),
        ("train: images/train\nnames: [a]\nkpt_shape: [17, 4]", "malformed-yaml", 3),
        ("train: images/train\nnames: [a]\nkpt_shape: [2, 3]\nflip_idx: [0, 0]", "malformed-yaml", 4),
        ("- a list", "malformed-yaml", None),
        ("train: [images", "malformed-yaml", 2),
        ("train: !!python/object/apply:os.system ['touch pwned']\nnames: [a]", "malformed-yaml", 1),
        ("", "malformed-yaml", None),
    ],
)
def test_what_is_wrong_is_named_with_its_line(root, text, code, line):
    with pytest.raises(DatasetError) as caught:
        read(root, text)
    assert (code, line) in [(finding.code, finding.line) for finding in caught.value.findings]
    assert not (root / "pwned").exists()


def test_all_faults_come_at_once(root):
    with pytest.raises(DatasetError) as caught:
        read(root, "train: /etc\nval: ../outside\nnames: [a, a]\nnc: 7\nkpt_shape: no\n")
    assert {finding.line for finding in caught.value.findings} == {1, 2, 3, 4, 5}


def test_a_file_of_aliases_does_not_blow_up(root):
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join(f'*{a}' for _ in range(9))}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(DatasetError):
        read(root, bomb + "train: *i\nnames: *i\n")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["..", "/", "images"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.integers(0, 3) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
keys = ["path", "train", "val", "test", "names", "nc", "kpt_shape", "flip_idx", "download", "x"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(keys), values))
def test_any_values_are_read_or_refused_but_never_lead_outside(root, document):
    import yaml

    try:
        data = read(root, yaml.safe_dump(document, allow_unicode=True))
    except DatasetError:
        return
    for source in (source for sources in data.sources.values() for source in sources):
        assert (root / data.base / source).resolve().is_relative_to(root.resolve())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_words(root, data):
    (root / "data.yaml").write_bytes(data)
    with pytest.raises(DatasetError):
        read_data_yaml(root / "data.yaml")
