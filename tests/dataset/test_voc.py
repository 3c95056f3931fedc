"""Pascal VOC's XML files."""

import pytest
from dataset_case import bitmap, put

from gpu_offload.dataset import conversion
from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.layout import Layout
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.task import Task

SIZE = "<size><width>16</width><height>12</height><depth>3</depth></size>"
BOX = "<bndbox><xmin>4</xmin><ymin>3</ymin><xmax>12</xmax><ymax>9</ymax></bndbox>"
POLYGON = "<polygon><x1>1</x1><y1>1</y1><x2>9</x2><y2>1</y2><x3>5</x3><y3>9</y3></polygon>"


def xml(*objects, size=SIZE, filename="x.bmp"):
    described = "\n".join(f"<object><name>{name}</name>{rest}</object>" for name, rest in objects)
    return f'<?xml version="1.0"?>\n<annotation>\n<filename>{filename}</filename>{size}\n{described}\n</annotation>\n'


def voc(root, count=6, images="JPEGImages", annotations="Annotations", **more):
    for index in range(count):
        put(root / images / f"{index}.bmp", bitmap(index))
        put(root / annotations / f"{index}.xml", xml(("dog" if index % 2 else "cat", BOX), **more))
    return root


def errors(root, **options):
    with pytest.raises(DatasetError) as caught:
        read_snapshot(root, **options)
    return [finding for finding in caught.value.findings if finding.severity == "error"]


@pytest.mark.parametrize("below", ["", "VOC2012/"])
def test_the_lists_give_the_splits_and_the_objects_the_classes(tmp_path, below):
    voc(tmp_path / below)
    put(tmp_path / below / "ImageSets/Main/train.txt", "0\n1\n2\n3\n")
    put(tmp_path / below / "ImageSets/Main/val.txt", "4\n5\n")
    snapshot = read_snapshot(tmp_path)
    assert (snapshot.layout, snapshot.task, snapshot.classes) == (Layout.VOC, Task.DETECT, ("cat", "dog"))
    assert snapshot.images == {"train": 4, "val": 2, "test": 0}
    assert snapshot.labels[f"{below}JPEGImages/1.txt"] == b"1 0.5 0.5 0.5 0.5\n"


def test_each_list_is_for_the_images_beside_it(tmp_path):
    for year, part in (("VOC2007", "train"), ("VOC2012", "val")):
        voc(tmp_path / year, 3)
        put(tmp_path / year / f"ImageSets/Main/{part}.txt", "0  1\n1 -1\n2.bmp\n")
    samples = read_snapshot(tmp_path).samples
    assert {(s.image.split("/")[0], s.split) for s in samples} == {("VOC2007", "train"), ("VOC2012", "val")}


def test_a_list_may_name_images_with_spaces(tmp_path):
    for name in ("my dog", "my cat"):
        put(tmp_path / f"{name}.bmp", bitmap(len(name) + ord(name[3])))
        put(tmp_path / f"{name}.xml", xml(("pet", BOX)))
    put(tmp_path / "ImageSets/Main/train.txt", "my dog\n")
    put(tmp_path / "ImageSets/Main/val.txt", "my cat.bmp\n")
    assert read_snapshot(tmp_path).images == {"train": 1, "val": 1, "test": 0}


@pytest.mark.parametrize(
    ("images", "annotations"),
    [("{}", "{}"), ("images/{}", "annotations/{}"), ("{}/images", "{}/annotations")],
)
def test_folders_give_the_splits(tmp_path, images, annotations):
    for part in ("train", "valid"):
        voc(tmp_path, 3, images.format(part), annotations.format(part))
    assert read_snapshot(tmp_path).images == {"train": 3, "val": 3, "test": 0}


def test_without_lists_and_folders_the_names_give_the_splits(tmp_path):
    snapshot = read_snapshot(voc(tmp_path, 20, "pictures", "pictures"))
    assert min(snapshot.images["train"], snapshot.images["val"]) > 0


def test_the_settings_may_order_the_classes_but_must_name_all(tmp_path):
    voc(tmp_path, 20)
    snapshot = read_snapshot(tmp_path, classes=["dog", "cat"])
    assert (snapshot.classes, snapshot.labels["JPEGImages/1.txt"][:1]) == (("dog", "cat"), b"0")
    assert {fault.code for fault in errors(tmp_path, classes=["dog"])} == {"unknown-class"}


def test_polygons_are_segmentation(tmp_path):
    for index in range(20):
        put(tmp_path / f"{index}.bmp", bitmap(index))
        put(tmp_path / f"{index}.xml", xml(("cat", POLYGON + BOX)))
    assert read_snapshot(tmp_path).task is Task.SEGMENT
    assert set(read_snapshot(tmp_path, task=Task.DETECT).labels.values()) == {b"0 0.5 0.5 0.5 0.5\n"}


def test_a_size_that_is_not_written_is_the_images_own(tmp_path):
    zero = "<size><width>0</width><height>0</height></size>"
    assert (
        read_snapshot(voc(tmp_path / "zero", 20, size=zero)).labels
        == read_snapshot(voc(tmp_path / "none", 20, size="")).labels
    )


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("<annotation>\n<object>", 2, "XML"),
        ("<html/>", 1, "<annotation>"),
        (
            '<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY x "y">]>\n<annotation>&x;</annotation>',
            2,
            "document type",
        ),
        (xml(("cat", "")), 4, "bndbox"),
        (xml(("", BOX)), 4, "name"),
        (xml(("cat", BOX.replace("<xmin>4", "<xmin>14"))), 4, "xmin"),
        (xml(("cat", BOX.replace("<xmax>12", "<xmax>99"))), 4, "coordinate"),
        (xml(("cat", BOX.replace("<xmax>12", "<xmax>nan"))), 4, "bndbox"),
        (xml(("cat", BOX.replace("<xmax>12", "<xmax>wide"))), 4, "bndbox"),
        ("<annotation>" + "<a>" * 5_000, 1, "deep"),
    ],
)
def test_a_fault_is_named_by_file_and_line(tmp_path, text, line, said):
    voc(tmp_path, 20)
    put(tmp_path / "Annotations/3.xml", text)
    (fault,) = errors(tmp_path)
    assert (fault.path, fault.line) == ("Annotations/3.xml", line)
    assert said in fault.message


def test_an_annotation_whose_image_is_gone_or_of_another_size_is_an_error(tmp_path):
    voc(tmp_path, 20)
    (tmp_path / "JPEGImages/3.bmp").unlink()
    put(tmp_path / "JPEGImages/4.bmp", bitmap(4, (32, 24)))
    assert [(fault.path, fault.code) for fault in errors(tmp_path)] == [
        ("Annotations/3.xml", "missing-path"),
        ("JPEGImages/4.bmp", "size-mismatch"),
    ]


def test_more_objects_of_one_image_than_are_trained_are_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "MAX_ROWS", 3)
    voc(tmp_path)
    put(tmp_path / "Annotations/0.xml", xml(*[("cat", BOX)] * 6))
    (found,) = errors(tmp_path)
    assert (found.code, found.path) == ("huge-file", "Annotations/0.xml")


def test_pictures_of_masks_are_not_taken_for_the_images(tmp_path):
    """VOC2012 has masks of the same names in SegmentationClass and SegmentationObject."""
    voc(tmp_path, 20)
    for index in range(5):
        for folder in ("SegmentationClass", "SegmentationObject"):
            put(tmp_path / folder / f"{index}.png", bitmap(200 + index))
    snapshot = read_snapshot(tmp_path)
    assert {sample.image.split("/")[0] for sample in snapshot.samples} == {"JPEGImages"}
    assert snapshot.warnings == ()
    assert any(line.startswith("10 x picture of masks") for line in snapshot.left_out)


def test_among_images_of_one_name_the_one_that_is_named_counts(tmp_path):
    voc(tmp_path, 20, filename="0.bmp")
    put(tmp_path / "Depth/0.png", bitmap(200))
    assert any(sample.image == "JPEGImages/0.bmp" for sample in read_snapshot(tmp_path).samples)


def test_images_that_no_list_names_are_left_out_without_a_word_about_labels(tmp_path):
    """VOC2012 lists 11,540 of its 17,125 images."""
    voc(tmp_path)
    put(tmp_path / "ImageSets/Main/train.txt", "0\n1\n")
    put(tmp_path / "ImageSets/Main/val.txt", "4\n")
    snapshot = read_snapshot(tmp_path)
    assert (sum(snapshot.images.values()), snapshot.warnings) == (3, ())
    assert any("JPEGImages/2.bmp" in line for line in snapshot.left_out)


def test_a_list_of_both_splits_is_for_training_where_none_is_for_training_alone(tmp_path):
    voc(tmp_path, 20)
    put(tmp_path / "ImageSets/Main/trainval.txt", "".join(f"{index}\n" for index in range(16)))
    put(tmp_path / "ImageSets/Main/test.txt", "".join(f"{index}\n" for index in range(16, 20)))
    snapshot = read_snapshot(tmp_path)
    assert (snapshot.images["test"], [f.code for f in snapshot.warnings]) == (4, ["split-made"])
    assert snapshot.images["train"] + snapshot.images["val"] == 16
    put(tmp_path / "ImageSets/Main/train.txt", "0\n")
    put(tmp_path / "ImageSets/Main/val.txt", "1\n")
    assert read_snapshot(tmp_path).images == {"train": 1, "val": 1, "test": 4}
