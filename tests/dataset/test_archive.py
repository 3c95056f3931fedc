"""The dataset as one file: reproducible, and hostile ones refused."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_offload.dataset.archive import pack, unpack
from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.synthetic import generate
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.tree import materialise
from gpu_offload.dataset.tree_manifest import encode, read_tree, refingerprint
from gpu_offload.dataset.unpacking import CorruptArchiveError


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    generate(folder / "raw", images=10, size=48)
    return materialise(read_snapshot(folder / "raw"), folder / "tree")


@pytest.fixture(scope="module")
def packed(tree):
    target = tree.parent / "dataset.tar"
    pack(tree, target)
    return target


@pytest.mark.parametrize("task", list(Task))
def test_a_tree_comes_out_as_it_went_in(tmp_path, task):
    generate(tmp_path / "raw", images=14, size=48, task=task)
    tree = materialise(read_snapshot(tmp_path / "raw"), tmp_path / "tree")
    sha256 = pack(tree, tmp_path / "a" / "dataset.tar")
    assert sha256 == hashlib.sha256((tmp_path / "a" / "dataset.tar").read_bytes()).hexdigest()
    unpack(tmp_path / "a" / "dataset.tar", tmp_path / "b" / "tree", fingerprint=read_tree(tree).fingerprint)
    assert contents(tmp_path / "b" / "tree") == contents(tree)


def test_the_bytes_do_not_depend_on_time_owner_mode_or_caches(tree, packed, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    for path in copy.rglob("*.png"):
        path.chmod(0o600)
        os.utime(path, (5, 5))
    (copy / "labels" / "train.cache").write_bytes(b"poison")
    (copy / "notes.txt").write_text("poison")
    pack(copy, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == packed.read_bytes()


def test_a_tree_that_was_changed_is_not_packed(tree, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    victim = copy / read_tree(copy).samples[0].image.path
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + b"?")
    with pytest.raises(DatasetError, match="changed"):
        pack(copy, tmp_path / "a.tar")
    victim.write_bytes(data + b"?")
    with pytest.raises(DatasetError, match="changed"):
        pack(copy, tmp_path / "a.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def members(packed):
    with tarfile.open(packed) as archive:
        return [(member, archive.extractfile(member).read()) for member in archive]


def forge(path, entries):
    with tarfile.open(path, "w") as archive:
        for member, data in entries:
            archive.addfile(member, io.BytesIO(data))
    return path


def entry(name, kind=tarfile.REGTYPE, size=0, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member


def _long(name):
    member = tarfile.TarInfo(name)
    member.pax_headers = {"comment": "y" * 1_000_000}
    return member


HOSTILE = {
    "outside": lambda good: [*good, (entry("../evil", size=1), b"x")],
    "absolute": lambda good: [*good, (entry("/tmp/evil", size=1), b"x")],
    "symlink": lambda good: [*good, (entry("images/train/l", tarfile.SYMTYPE, link="/etc"), b"")],
    "hard link": lambda good: [*good, (entry("images/train/l", tarfile.LNKTYPE, link="dataset.json"), b"")],
    "device": lambda good: [*good, (entry("images/train/d", tarfile.CHRTYPE), b"")],
    "fifo": lambda good: [*good, (entry("images/train/d", tarfile.FIFOTYPE), b"")],
    "folder": lambda good: [*good, (entry("images/evil", tarfile.DIRTYPE), b"")],
    "cache": lambda good: [*good, (entry("labels/train.cache", size=1), b"x")],
    "symlink first": lambda good: [(entry("images", tarfile.SYMTYPE, link="/tmp"), b""), *good],
    "twice": lambda good: [*good, good[3]],
    "missing": lambda good: good[:-1],
    "other content": lambda good: [*good[:-1], (good[-1][0], b"?" * len(good[-1][1]))],
    "other size": lambda good: [*good[:-1], (entry(good[-1][0].name, size=1), b"x")],
    "no description": lambda good: good[1:],
    "description last": lambda good: [*good[1:], good[0]],
    "empty": lambda good: [],
    "huge header": lambda good: [*good, (_long("images/" + "x" * 200_000), b"")],
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_an_archive_with_anything_else_in_it_is_refused_and_leaves_nothing(tree, packed, tmp_path, attack):
    forged = forge(tmp_path / "forged.tar", HOSTILE[attack](members(packed)))
    with pytest.raises(CorruptArchiveError, match="stage the dataset again"):
        unpack(forged, tmp_path / "out", fingerprint=read_tree(tree).fingerprint)
    assert [path.name for path in tmp_path.iterdir()] == ["forged.tar"]


def redescribed(packed, change):
    """The archive with another dataset.json; its files as before."""
    first, *rest = members(packed)
    value = json.loads(first[1])
    change(value)
    data = json.dumps(value).encode()
    return [(entry("dataset.json", size=len(data)), data), *rest]


def escape(value):
    value["samples"][0]["image"][0] = "images/../../evil.png"


def rename_class(value):
    value["classes"][0] = "other"


def overwrite_description(value):
    value["samples"][0]["image"][0] = "dataset.json"


def nest(value):
    value["samples"][0]["image"][0] = value["samples"][1]["image"][0] + "/below.png"


@pytest.mark.parametrize(
    "change",
    [
        escape,
        rename_class,
        overwrite_description,
        nest,
        lambda value: value.update(samples=[]),
        lambda value: value.update(samples=None),
        lambda value: value.update(format=2),
        lambda value: value["samples"][0].update(split="../train"),
        lambda value: value["samples"][0].update(image=["a"]),
    ],
)
def test_a_forged_description_is_refused(tree, packed, tmp_path, change):
    forged = forge(tmp_path / "forged.tar", redescribed(packed, change))
    with pytest.raises(CorruptArchiveError):
        unpack(forged, tmp_path / "out", fingerprint=read_tree(tree).fingerprint)
    assert [path.name for path in tmp_path.iterdir()] == ["forged.tar"]


def swap_labels(first, second):
    return (
        replace(first, label=replace(first.label, path=second.label.path)),
        replace(second, label=replace(second.label, path=first.label.path)),
    )


def swap_places(first, second):
    return (
        replace(first, image=replace(first.image, path=second.image.path)),
        replace(second, image=replace(second.image, path=first.image.path)),
    )


def swap_classes(first, second):
    """As `swap_places`, with the classes named that go with the places."""
    first, second = swap_places(first, second)
    return (
        replace(first, class_index=second.class_index),
        replace(second, class_index=first.class_index),
    )


@pytest.mark.parametrize(
    ("task", "swap"),
    [
        (Task.DETECT, swap_labels),
        (Task.DETECT, swap_places),
        (Task.CLASSIFY, swap_places),
        (Task.CLASSIFY, swap_classes),
    ],
)
def test_a_description_that_moves_files_under_a_valid_fingerprint_is_refused(tmp_path, task, swap):
    """The fingerprint does not cover paths in the tree: another image's label, or a validation image in train."""
    generate(tmp_path / "raw", images=14, size=48, task=task)
    info = read_tree(materialise(read_snapshot(tmp_path / "raw"), tmp_path / "tree"))
    bodies = {file.path: (tmp_path / "tree" / file.path).read_bytes() for file in info.files()}
    first = info.samples[0]
    at, second = next(
        (at, one)
        for at, one in enumerate(info.samples)
        if at and (one.class_index != first.class_index if task is Task.CLASSIFY else one.label)
    )
    samples = list(info.samples)
    samples[0], samples[at] = swap(first, second)
    forged = replace(info, samples=tuple(samples))
    assert refingerprint(forged) == info.fingerprint
    moved = dict(zip((f.path for f in forged.files()), bodies.values(), strict=True))
    entries = [("dataset.json", encode(forged)), *moved.items()]
    path = forge(tmp_path / "forged.tar", [(entry(name, size=len(body)), body) for name, body in entries])
    with pytest.raises(CorruptArchiveError):
        unpack(path, tmp_path / "out", fingerprint=info.fingerprint)
    (tmp_path / "tree" / "dataset.json").write_bytes(encode(forged))
    with pytest.raises(DatasetError):
        read_tree(tmp_path / "tree")


def test_another_dataset_is_refused(packed, tmp_path):
    with pytest.raises(CorruptArchiveError, match="not 000000000000"):
        unpack(packed, tmp_path / "out", fingerprint="0" * 64)


def test_a_damaged_description_is_refused_where_the_fingerprint_does_not_cover_it(packed, tree, tmp_path):
    """The number of images is only for readers; another name for it must not pass."""
    (tmp_path / "damaged.tar").write_bytes(packed.read_bytes().replace(b'"images": {', b'"imagfs": {', 1))
    with pytest.raises(CorruptArchiveError, match="damaged"):
        unpack(tmp_path / "damaged.tar", tmp_path / "out", fingerprint=read_tree(tree).fingerprint)
    assert not (tmp_path / "out").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_a_cut_or_damaged_archive_is_refused_or_harmless(tree, packed, tmp_path, data):
    whole = packed.read_bytes()
    damaged, out = tmp_path / "damaged.tar", tmp_path / "out"
    if data.draw(st.booleans()):
        damaged.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged.write_bytes(
            whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
        )
    try:
        unpack(damaged, out, fingerprint=read_tree(tree).fingerprint)
    except CorruptArchiveError:
        assert not out.exists()
    else:  # only the padding behind a file or behind the end was hit
        assert contents(out) == contents(tree)
        shutil.rmtree(out)
