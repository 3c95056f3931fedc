"""The training tree: what it holds, and that the user's own folder stays as it is."""

import os
import shutil

import pytest
from dataset_case import BOX, pair, put
from PIL import Image

from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.fingerprint import fingerprint
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.split import SplitRule
from gpu_offload.dataset.synthetic import generate
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.tree import materialise
from gpu_offload.dataset.tree_manifest import read_tree, refingerprint


def listing(folder):
    return {str(path.relative_to(folder)): path.stat().st_ino for path in sorted(folder.rglob("*"))}


@pytest.fixture
def raw(tmp_path):
    generate(tmp_path / "raw", images=12, size=48)
    return tmp_path / "raw"


@pytest.mark.parametrize("task", list(Task))
def test_every_sample_is_in_the_tree_with_its_content(tmp_path, task):
    generate(tmp_path / "raw", images=24, size=48, task=task)
    snapshot = read_snapshot(tmp_path / "raw", split=SplitRule(test=0.2))
    info = read_tree(materialise(snapshot, tmp_path / "tree"))
    assert info.fingerprint == fingerprint(snapshot) == refingerprint(info)
    assert (info.task, info.classes, info.keypoint_shape) == (task, snapshot.classes, snapshot.keypoint_shape)
    assert (info.images, info.bytes) == (snapshot.images, snapshot.bytes)
    for ours, theirs in zip(info.samples, snapshot.samples, strict=True):
        assert (tmp_path / "tree" / ours.image.path).read_bytes() == (
            tmp_path / "raw" / theirs.image
        ).read_bytes()
        assert ours.class_index == theirs.class_index
        if ours.label is not None:
            assert ours.label.path == ours.image.path.replace("images/", "labels/", 1).replace(".png", ".txt")
            assert (tmp_path / "tree" / ours.label.path).read_bytes() == (
                tmp_path / "raw" / theirs.label
            ).read_bytes()


def test_the_users_folder_is_never_written_to(raw, tmp_path):
    before = listing(raw)
    materialise(read_snapshot(raw), tmp_path / "tree")
    assert listing(raw) == before


def test_files_are_hard_links_and_never_symlinks(raw, tmp_path):
    tree = materialise(read_snapshot(raw), tmp_path / "tree")
    files = [path for path in tree.rglob("*") if path.is_file() and path.name != "dataset.json"]
    assert not any(path.is_symlink() for path in tree.rglob("*"))
    assert all(path.stat().st_nlink == 2 for path in files)


def test_without_hard_links_files_are_copied(raw, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    snapshot = read_snapshot(raw)
    info = read_tree(materialise(snapshot, tmp_path / "tree"))
    assert (tmp_path / "tree" / info.samples[0].image.path).stat().st_nlink == 1


def test_a_jpeg_that_ultralytics_would_rewrite_is_copied(tmp_path):
    """A hard link would hand the rewriting on to the user's file."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for index in range(10):
        Image.new("RGB", (32, 32), (index, 9, 9)).save(raw / f"{index}.jpg")
        (raw / f"{index}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with (raw / "3.jpg").open("ab") as file:
        file.write(b"trailing bytes, as some cameras leave them")
    info = read_tree(materialise(read_snapshot(raw, classes=["a"]), tmp_path / "tree"))
    links = {s.image.origin: (tmp_path / "tree" / s.image.path).stat().st_nlink for s in info.samples}
    assert links.pop("3.jpg") == 1
    assert set(links.values()) == {2}


def test_a_complete_tree_is_kept_and_only_loses_its_caches(raw, tmp_path):
    tree = materialise(read_snapshot(raw), tmp_path / "tree")
    before = listing(tree)
    (tree / "labels/train.cache").write_bytes(b"poison")
    materialise(read_snapshot(raw), tmp_path / "tree")
    assert listing(tree) == before


def test_an_incomplete_or_older_tree_is_made_anew(raw, tmp_path):
    tree = materialise(read_snapshot(raw), tmp_path / "tree")
    victim = tree / read_tree(tree).samples[3].image.path
    victim.unlink()
    materialise(read_snapshot(raw), tree)
    assert victim.exists()
    (raw / "0003.txt").write_text("")
    snapshot = read_snapshot(raw)
    assert read_tree(materialise(snapshot, tree)).fingerprint == fingerprint(snapshot)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_tree_of_images_with_accents_that_are_in_several_splits_is_read_again(tmp_path):
    for index in range(4):
        pair(tmp_path / "raw", f"images/\u00e9{index}.bmp", index, BOX, f"labels/\u00e9{index}.txt")
    put(tmp_path / "raw/data.yaml", "train: images\nval: images\ntest: images\nnames: [thing]\n")
    snapshot = read_snapshot(tmp_path / "raw")
    assert read_tree(materialise(snapshot, tmp_path / "tree")).images == {"train": 4, "val": 4, "test": 4}


def test_a_folder_that_is_no_tree_is_never_replaced(raw, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(DatasetError, match="no training tree"):
        materialise(read_snapshot(raw), tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").read_text() == "precious"
    with pytest.raises(DatasetError, match="no training tree"):
        materialise(read_snapshot(raw), tmp_path / "mine/thesis.txt")


def test_a_file_that_changed_since_it_was_fingerprinted_is_an_error_and_leaves_nothing(raw, tmp_path):
    snapshot = read_snapshot(raw)
    shutil.copyfile(raw / "0001.png", raw / "0002.png")
    with pytest.raises(DatasetError, match=r"0002\.png: changed"):
        materialise(snapshot, tmp_path / "tree")
    assert {path.name for path in tmp_path.iterdir()} == {"raw"}


def test_linking_does_not_cost_the_stat_cache_its_belief(raw, tmp_path):
    cache = tmp_path / "cache"
    materialise(read_snapshot(raw, cache=cache), tmp_path / "tree")
    first = cache.read_bytes()
    assert fingerprint(read_snapshot(raw, cache=cache)) == read_tree(tmp_path / "tree").fingerprint
    assert len(cache.read_bytes()) == len(first)


def test_folders_called_images_do_not_lead_ultralytics_astray(tmp_path):
    raw = tmp_path / "raw"
    for index in range(10):
        for kind in ("images", "labels"):
            (raw / kind / "cam").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (index, 9, 9)).save(raw / f"images/cam/{index}.png")
        (raw / f"labels/cam/{index}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    snapshot = read_snapshot(raw, classes=["a"], split=SplitRule(val=0.5))
    info = read_tree(materialise(snapshot, tmp_path / "tree"))
    for sample in info.samples:
        assert sample.image.path.count("images/") == 1
        assert sample.label.path == sample.image.path.replace("images/", "labels/").replace(".png", ".txt")


def test_a_class_folder_is_there_in_every_split(tmp_path):
    """Else torchvision would number the classes of the splits differently."""
    generate(tmp_path / "raw", images=12, size=48, task=Task.CLASSIFY)
    snapshot = read_snapshot(tmp_path / "raw")
    tree = materialise(snapshot, tmp_path / "tree")
    for split in ("train", "val"):
        assert {path.name for path in (tree / split).iterdir()} == set(snapshot.classes)
