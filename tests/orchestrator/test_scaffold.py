"""`offload init`: what it finds in a repository, and the file it writes."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from dataset_case import BOX, bitmap, class_folders, pair
from dataset_case import put as draw
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator import api
from gpu_offload.orchestrator.settings.discovery import find_candidates
from gpu_offload.orchestrator.settings.load import Settings, load_settings
from gpu_offload.orchestrator.settings.overrides import SETTINGS
from gpu_offload.orchestrator.settings.proposal import Proposal
from gpu_offload.orchestrator.settings.scaffold import (
    configuration_for,
    render_configuration,
    write_configuration,
)
from gpu_offload.orchestrator.settings.sections import DatasetSettings, Sections

KEYBOARDS = Path(__file__).parents[3] / "shared" / "datasets" / "keyboards" / "raw_dataset"


def put(root, *names, text=""):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_a_flat_folder_is_found_and_its_numbers_get_names_to_fill_in(tmp_path):
    put(tmp_path, "data/raw/a.JPG", "data/raw/b.png", "docs/logo.png", "node_modules/x.png", ".cache/y.jpg")
    put(tmp_path, "data/raw/a.txt", text="0 .5 .5 .1 .1\n2 .5 .5 .1 .1\n")
    put(tmp_path, "data/raw/b.txt")
    written = write_configuration(tmp_path)
    assert written.written
    assert [c.path for c in written.candidates] == ["data/raw"]
    assert "The labels use the numbers 0 to 2" in written.path.read_text()
    loaded = load_settings(tmp_path, environment={})
    # Made-up names would silence the warning of `offload check` that there are none.
    assert loaded.dataset == DatasetSettings(path="data/raw")
    assert loaded.training == Settings(dataset=loaded.dataset).training
    assert "data/raw, a flat folder of images and labels, 2 images" in written.found


@pytest.mark.parametrize("place", ["raw/classes.txt", "obj.names"])
def test_names_that_a_labelling_tool_left_are_taken(tmp_path, place):
    put(tmp_path, "raw/a.jpg")
    put(tmp_path, "raw/a.txt", text="1 0 0 .1 0 .1 .1\n")
    put(tmp_path, place, text='finger\nthe "thumb"\n\n')
    write_configuration(tmp_path)
    loaded = load_settings(tmp_path, environment={})
    assert loaded.dataset.classes == ("finger", 'the "thumb"')
    assert loaded.training.model == "yolov8n-seg.yaml"


def test_names_fewer_than_the_numbers_in_the_labels_are_not_believed(tmp_path):
    put(tmp_path, "raw/a.jpg")
    put(tmp_path, "raw/a.txt", text="3 .5 .5 .1 .1\n")
    put(tmp_path, "raw/classes.txt", text="a\nb\n")
    (candidate,) = find_candidates(tmp_path)
    assert (candidate.placeholders, len(candidate.classes)) == (True, 4)


def test_a_data_yaml_comes_first_and_names_its_own_classes(tmp_path):
    put(
        tmp_path,
        "set/data.yaml",
        text="train: images/train\nval: images/val\nnames: [a]\nkpt_shape: [3, 2]\n",
    )
    put(tmp_path, "set/images/train/a.jpg", "set/images/val/b.jpg")
    put(tmp_path, "flat/a.jpg", "flat/a.txt")
    put(tmp_path, "config.yaml", text="train: 3\n")
    first, second = find_candidates(tmp_path)
    assert (first.path, first.layout, first.images, first.task) == (
        "set/data.yaml",
        "data.yaml",
        2,
        Task.POSE,
    )
    assert second.path == "flat"
    text = configuration_for(tmp_path)
    assert '# Also found: "flat", a flat folder of images and labels, 1 image.' in text
    data = tomllib.loads(text)
    assert data["dataset"] == {"path": "set/data.yaml"}
    assert data["training"]["model"] == "yolov8n-pose.yaml"


@pytest.mark.parametrize("split", ["", "train/", "test/"])
def test_class_folders_are_found_with_and_without_splits(tmp_path, split):
    put(tmp_path, *(f"pets/{split}{name}/{n}.jpg" for name in ("cat", "dog") for n in range(3)))
    (candidate,) = find_candidates(tmp_path)
    assert (candidate.path, candidate.layout, candidate.images) == ("pets", "classes", 6)
    write_configuration(tmp_path)
    loaded = load_settings(tmp_path, environment={})
    assert (loaded.training.model, loaded.training.image_size) == ("yolov8n-cls.yaml", 224)


def test_pictures_of_the_documentation_are_no_dataset(tmp_path):
    put(tmp_path, "docs/a/1.png", "docs/b/1.png", "images/train/1.png", "images/val/1.png", "logo.png")
    put(tmp_path, "images/train/2.png", "images/val/2.png")
    assert find_candidates(tmp_path) == ()
    text = configuration_for(tmp_path)
    assert "# No dataset was found here: write where yours is." in text
    assert tomllib.loads(text)["dataset"] == {"path": "raw_dataset"}


def test_links_are_not_followed(tmp_path):
    put(tmp_path, "elsewhere/raw/a.jpg", "elsewhere/raw/a.txt")
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "data").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "repository" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert find_candidates(tmp_path / "repository") == ()


def test_a_file_that_is_there_is_never_overwritten(tmp_path):
    first = write_configuration(tmp_path)
    mine = first.path.read_text().replace("epochs = 20", "epochs = 99")
    first.path.write_text(mine)
    assert write_configuration(tmp_path).written is False
    assert first.path.read_text() == mine


def test_a_configuration_in_pyproject_stays_in_charge(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.offload.dataset]\npath = 'x'\n")
    found = write_configuration(tmp_path)
    assert (found.path.name, found.written) == ("pyproject.toml", False)
    assert not (tmp_path / "offload.toml").exists()


def test_a_project_below_another_gets_a_configuration_of_its_own(tmp_path):
    (tmp_path / ".git").mkdir()
    write_configuration(tmp_path)
    (tmp_path / "apps/a").mkdir(parents=True)
    found = write_configuration(tmp_path / "apps/a")
    assert (found.path, found.written) == (tmp_path / "apps/a/offload.toml", True)


def test_what_is_commented_out_is_every_other_setting_at_its_default():
    text = render_configuration((), everything=True)
    assert max(map(len, text.splitlines())) <= 110
    active = tomllib.loads(text)
    Sections.model_validate(active, by_name=False)
    everything = tomllib.loads(re.sub(r"(?m)^# (?=[a-z-]+(\.[a-z]+)? = )", "", text))
    for path, kind in SETTINGS.items():
        value = everything
        for part in path:
            assert part in value, path
            value = value[part]
        assert value is not None or kind
    loaded = Sections.model_validate(everything, by_name=False)
    defaults = Sections.model_validate({"dataset": {"path": "raw_dataset"}}).model_dump()
    given = loaded.model_dump()
    for section, values in defaults.items():
        for name, value in values.items():
            there = given[section][name]
            if isinstance(value, dict):
                assert there | {k: v for k, v in value.items() if v is not None} == there, (section, name)
            else:
                assert value is None or there == value, (section, name)


def test_a_newcomers_file_is_read_in_a_minute():
    text = render_configuration(())
    assert len(text.splitlines()) < 50
    assert "offload init --all" in text
    assert set(tomllib.loads(text)) == {"dataset", "training", "limits", "store"}


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20))
def test_no_name_of_a_folder_breaks_the_file(name):
    one = Proposal(name, "flat", 3, classes=(name,))
    text = render_configuration([one, one])
    assert tomllib.loads(text)["dataset"] == {"path": name, "classes": [name]}


@pytest.mark.skipif(not KEYBOARDS.exists(), reason="the keyboards dataset is not beside the repository")
def test_the_keyboards_are_understood():
    (candidate,) = find_candidates(KEYBOARDS.parent)
    assert (candidate.path, candidate.images, candidate.task) == ("raw_dataset", 377, Task.DETECT)
    assert len(candidate.classes) == 3


def seed_repository(
    root, yaml="path: c2k\ntrain: images/train\nval: images/val\nnames:\n  0: finger \n  1: thumb\n"
):
    """The shape of a real repository: a package with a data.yaml whose folders are made at run time, and raw data."""
    put(root, "README.md", "c2k.py", "package/__init__.py", "package/app/app.py", text="pass\n")
    put(root, "package/core/layouts/qwerty.yaml", text="keys: [a, b]\n")
    put(root, "package/c2kmodel.yml", text=yaml)
    draw(root / "package/assets/nocam.bmp", bitmap(999))
    for name in ("a", "b"):
        draw(root / f"docs/images/{name}.bmp", bitmap(900))
    for index in range(30):
        pair(root, f"raw_dataset/{index:05}.bmp", index, f"{index % 2} 0.5 0.5 0.2 0.2\n")
    return root


def test_a_data_yaml_that_the_checks_refuse_gives_its_names_to_the_folder_that_they_accept(tmp_path):
    seed_repository(tmp_path)
    written = write_configuration(tmp_path)
    assert written.candidates[0].path == "raw_dataset"
    assert "c2kmodel.yml" in configuration_for(tmp_path)
    settings = load_settings(tmp_path, environment={"HOME": str(tmp_path)})
    assert settings.dataset.classes == ("finger", "thumb")
    checked = api.check(settings)
    assert (sum(checked.snapshot.images.values()), checked.warnings) == (30, ())
    assert api.plan(settings, on="cpu", calibrate=False).images["train"] > 0


def test_names_of_another_file_are_taken_only_where_they_are_enough_and_agree(tmp_path):
    few = seed_repository(tmp_path / "few", "train: x\nval: y\nnames: [finger]\n")
    assert find_candidates(few)[0].placeholders
    two = seed_repository(tmp_path / "two")
    put(two, "other/data.yaml", text="train: x\nval: y\nnames: [cat, dog]\n")
    assert find_candidates(two)[0].placeholders


def test_a_candidate_that_is_refused_says_why(tmp_path):
    put(tmp_path, "set/data.yaml", text="train: nowhere\nval: nowhere\nnames: [a]\n")
    (candidate,) = find_candidates(tmp_path)
    assert "nowhere" in candidate.fault
    assert "nowhere" in configuration_for(tmp_path)


def flat_beside(root):
    for index in range(16):
        pair(root, f"{index}.bmp", index)


def in_folders(root):
    for index in range(16):
        pair(root, f"images/{index}.bmp", index, BOX, f"labels/{index}.txt")
    draw(root / "classes.txt", "car\n")


def yaml_without_val(root):
    in_folders(root)
    draw(root / "data.yaml", "path: ./\ntrain: images\nnames: [car]\n")


def darknet(root):
    flat_beside(root / "obj_train_data")
    draw(root / "obj.names", "car\n")
    draw(root / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\n")
    draw(root / "train.txt", "".join(f"data/obj_train_data/{index}.bmp\n" for index in range(16)))


def coco(root):
    images = [{"id": index, "file_name": f"{index}.bmp", "width": 16, "height": 12} for index in range(20)]
    boxes = [{"id": index, "image_id": index, "category_id": 1, "bbox": [4, 3, 8, 6]} for index in range(20)]
    for index in range(20):
        draw(root / f"{index}.bmp", bitmap(index))
    document = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "car"}]}
    draw(root / "labels.json", json.dumps(document))


def voc(root):
    size = "<size><width>16</width><height>12</height></size>"
    box = "<bndbox><xmin>4</xmin><ymin>3</ymin><xmax>12</xmax><ymax>9</ymax></bndbox>"
    for index in range(20):
        draw(root / f"JPEGImages/{index}.bmp", bitmap(index))
        text = f"<annotation>{size}<object><name>car</name>{box}</object></annotation>"
        draw(root / f"Annotations/{index}.xml", text)


@pytest.mark.parametrize(
    "make", [flat_beside, in_folders, yaml_without_val, darknet, class_folders, coco, voc]
)
def test_what_init_writes_is_what_check_reads(tmp_path, make):
    make(tmp_path / "set")
    written = write_configuration(tmp_path)
    assert written.candidates[0].path.split("/")[0] == "set"
    assert sum(api.check(load_settings(tmp_path, environment={})).snapshot.images.values()) >= 16
