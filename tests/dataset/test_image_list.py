"""Lists of images as tools write them."""

import pytest
from dataset_case import BOX, pair, put

from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.snapshot import read_snapshot


@pytest.fixture
def root(tmp_path):
    for index in range(8):
        pair(tmp_path, f"images/f{index}.bmp", index, BOX, f"labels/f{index}.txt")
    put(tmp_path / "val.txt", "images/f6.bmp\nimages/f7.bmp\n")
    return tmp_path


def read(root, lines, where="train.txt"):
    put(root / where, lines if isinstance(lines, bytes) else "".join(lines))
    put(root / "data.yaml", f"train: {where}\nval: val.txt\nnames: [car]\n")
    return read_snapshot(root)


def six(form):
    return [form.format(index) for index in range(6)]


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        (six("images/f{}.bmp\n"), "train.txt"),
        (six("./images/f{}.bmp\n"), "train.txt"),
        (six("data/images/f{}.bmp\n"), "train.txt"),
        (six("/home/me/project/images/f{}.bmp\n"), "train.txt"),
        (six("D:\\project\\images\\f{}.bmp\r\n"), "train.txt"),
        (six("./../images/f{}.bmp\n"), "lists/train.txt"),
        (six("../images/f{}.bmp\n"), "lists/train.txt"),
        (six("f{}.bmp\n"), "images/train.txt"),
        (six('"images/f{}.bmp"\n'), "train.txt"),
        (six("images/f{}.bmp  \n"), "train.txt"),
        (["# train\n", "\n", *six("images/f{}.bmp\n")], "train.txt"),
        (b"\xef\xbb\xbf" + "".join(six("images/f{}.bmp\r\n")).encode(), "train.txt"),
    ],
)
def test_a_list_is_read_as_its_tool_meant_it(root, lines, where):
    assert read(root, lines, where).images == {"train": 6, "val": 2, "test": 0}


def test_a_list_that_is_read_otherwise_than_written_says_so_once(root):
    codes = [finding.code for finding in read(root, six("data/images/f{}.bmp\n")).warnings]
    assert codes == ["list-path"]


def test_lines_of_one_list_are_meant_in_one_way(root):
    with pytest.raises(DatasetError) as caught:
        read(root, ["images/f0.bmp\n", "data/images/f1.bmp\n"])
    assert [(finding.code, finding.line) for finding in caught.value.findings] == [("missing-path", 2)]


def test_repeated_lines_are_said_and_counted(root):
    snapshot = read(root, six("images/f{}.bmp\n") + ["images/f3.bmp\n"] * 2)
    assert [(finding.code, finding.line) for finding in snapshot.warnings] == [("repeated-line", 7)]
    assert any("train.txt:8" in line for line in snapshot.left_out)


@pytest.mark.parametrize(
    "form",
    ["images/f{}.bmp 0,1,2,3,0\n", "f{}\n", "nowhere/f{}.bmp\n", "images/f{}.gif\n", "x" * 9000 + "{}.bmp\n"],
)
def test_a_fault_of_every_line_is_one_fault(root, form):
    with pytest.raises(DatasetError) as caught:
        read(root, six(form))
    assert [(finding.path, finding.line) for finding in caught.value.findings] == [("train.txt", 1)]


def test_many_faults_are_counted(root):
    lines = ["images/f0.bmp\n", *(f"images/no{index}.bmp\n" for index in range(5_000))]
    with pytest.raises(DatasetError) as caught:
        read(root, lines)
    assert len(caught.value.findings) < 50
    assert "more" in str(caught.value)


def test_pictures_that_no_list_names_are_counted(root):
    snapshot = read(root, six("images/f{}.bmp\n")[:3])
    assert any("images/f3.bmp" in line for line in snapshot.left_out)


def test_an_obj_data_of_cvat_gives_lists_and_names(root):
    put(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    put(root / "obj.names", "car\nbike\n")
    put(root / "train.txt", "".join(f"data/images/f{index}.bmp\n" for index in range(8)))
    snapshot = read_snapshot(root)
    assert (snapshot.classes, sum(snapshot.images.values())) == (("car", "bike"), 8)
    assert {finding.code for finding in snapshot.warnings} == {"split-made", "list-path"}
    (root / "train.txt").unlink()
    (root / "obj.names").unlink()
    with pytest.raises(DatasetError) as caught:
        read_snapshot(root)
    assert [finding.code for finding in caught.value.findings] == ["missing-path", "missing-path"]
