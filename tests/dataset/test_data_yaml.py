"""A `data.yaml` from a stranger."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_offload.dataset.data_yaml import read_data_yaml
from gpu_offload.dataset.finding import DatasetError

GOOD = "train: images/train\nval: images/val\nnames: [a, b]\n"


@pytest.fixture
def root(tmp_path):
    for folder in ("images/train", "images/val", "sub/images/train"):
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
    ],
)
def test_names_come_in_several_forms(root, names, classes):
    assert read(root, f"train: images/train\nval: images/val\n{names}\n").classes == classes


def test_path_moves_the_base_and_lists_are_allowed(root):
    data = read(root, "path: ./sub\ntrain: [images/train, ./images/train/]\nnames: [a]\n")
    assert (data.base, data.sources["train"]) == ("sub", ("images/train", "images/train"))


def test_the_parent_path_of_roboflow_is_read_where_it_stays_inside(root):
    data = read(root, "train: ../images/train\nval: ../images/val\nnames: [a]\n")
    assert data.sources["train"] == ("images/train",)
    assert [finding.code for finding in data.warnings] == ["parent-path", "parent-path"]


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
        ("path: /data\ntrain: images/train\nnames: [a]", "outside-path", 1),
        ("path: ..\ntrain: images/train\nnames: [a]", "outside-path", 1),
        ("train: link\nnames: [a]", "symlink", 1),
        ("train: nowhere\nnames: [a]", "missing-path", 1),
        ("train: 3\nnames: [a]", "malformed-yaml", 1),
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
        ("train: [images", "malformed-yaml", 1),
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
