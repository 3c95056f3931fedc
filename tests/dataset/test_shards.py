"""The dataset in shards: most of them stay as they are when the dataset changes, and only a whole set makes the tree."""

import hashlib
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.dataset import shards
from gpu_offload.dataset.archive import pack_files, packed_size
from gpu_offload.dataset.shards import MOST, divided, shard_id, shards_of
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.synthetic import generate
from gpu_offload.dataset.tree import materialise
from gpu_offload.dataset.tree_manifest import TreeFile, read_tree
from gpu_offload.dataset.unpacking import CorruptArchiveError, unpacking

MB = 10**6


def file(name, size, content=""):
    return TreeFile(name, name, hashlib.sha256(f"{name}{content}".encode()).hexdigest(), size)


IMAGES = [file(f"images/train/{n:05d}.jpg", MB) for n in range(2000)]


def ids(files):
    return {shard_id(shard) for shard in divided(sorted(files, key=lambda one: one.path))}


@given(st.lists(st.integers(0, 2 * MOST), max_size=60))
def test_every_file_is_in_one_shard_and_only_a_large_file_makes_a_large_shard(sizes):
    files = [file(f"{n:03d}", size) for n, size in enumerate(sizes)]
    found = divided(files)
    assert [one for shard in found for one in shard] == files
    assert all(len(shard) == 1 or sum(one.size for one in shard) <= MOST for shard in found)


def test_a_changed_image_changes_its_own_shard_alone():
    changed = [*IMAGES[:700], file("images/train/00700.jpg", MB, "other"), *IMAGES[701:]]
    assert len(ids(changed) - ids(IMAGES)) == 1


@pytest.mark.parametrize(
    "files",
    [
        [*IMAGES, file("images/train/00700b.jpg", MB)],
        [one for one in IMAGES if one.path != "images/train/00700.jpg"],
        [*IMAGES, *(file(f"images/train/01000-{n}.jpg", MB) for n in range(40))],
        [file("images/train/00700.jpg", 3 * MB) if n == 700 else one for n, one in enumerate(IMAGES)],
    ],
    ids=["added", "removed", "forty added", "larger"],
)
def test_most_shards_stay_when_images_come_and_go(files):
    assert len(ids(IMAGES)) > 80
    assert len(ids(files) - ids(IMAGES)) < 8


@given(st.lists(st.tuples(st.text("aä/", min_size=1, max_size=300), st.integers(0, 3000)), max_size=8))
def test_the_size_of_an_archive_is_known_before_it_is_packed(tmp_path_factory, members):
    folder = tmp_path_factory.mktemp("packed")
    files = []
    for n, (name, size) in enumerate(members):
        body = b"x" * size
        path = "/".join([str(n), *(part[:80] for part in name.split("/") if part), "f"])
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(body)
        files.append(TreeFile(path, path, hashlib.sha256(body).hexdigest(), size))
    pack_files(folder, files, folder / "packed.tar")
    assert (folder / "packed.tar").stat().st_size == packed_size(files)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name, value in (("MOST", 20_000), ("LEAST", 8_000), ("SPREAD", 8_000)):
        monkeypatch.setattr(shards, name, value)
    generate(tmp_path / "raw", images=8, size=48)
    return materialise(read_snapshot(tmp_path / "raw"), tmp_path / "tree")


@pytest.fixture
def packed(tree, tmp_path):
    found = shards_of(tree)
    assert len(found) > 3
    for n, shard in enumerate(found):
        pack_files(tree, shard, tmp_path / f"{n}.tar")
    return [tmp_path / f"{n}.tar" for n in range(len(found))]


def unpacked(archives, tree):
    with unpacking(tree.parent / "out", fingerprint=read_tree(tree).fingerprint) as work:
        for archive in archives:
            work.add(archive, archive.name)
    return tree.parent / "out"


def test_the_shards_make_the_tree_in_any_order_after_the_first(tree, packed):
    first, *others = packed
    out = unpacked([first, *reversed(others)], tree)
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} == {
        p.relative_to(tree): p.read_bytes() for p in tree.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize(
    "archives",
    [
        lambda all_: all_[:-1],
        lambda all_: all_[1:],
        lambda all_: [*all_, all_[-1]],
        lambda all_: [],
        lambda all_: [*all_, all_[0]],
    ],
    ids=["one is missing", "no description", "one twice", "none", "description twice"],
)
def test_anything_but_the_whole_set_leaves_no_tree(tree, packed, archives):
    with pytest.raises(CorruptArchiveError, match="stage the dataset again"):
        unpacked(archives(packed), tree)
    assert not (tree.parent / "out").exists()


def test_an_archive_without_files_is_refused(tree, packed, tmp_path):
    """Else a forged list could name any number of them."""
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(CorruptArchiveError, match="empty"):
        unpacked([*packed, tmp_path / "empty.tar"], tree)
