"""Both stores are one: what holds for a bucket holds for a folder."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpu_offload.infra.store.errors import (
    CorruptObjectError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectKeyError,
    ObjectMissingError,
    StoreError,
)
from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.folder import FolderStore


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.simulator)])
def store(request, tmp_path):
    if request.param == "folder":
        yield open_store("file:store", base=tmp_path)
        return
    bucket = request.getfixturevalue("bucket")
    store = open_store(f"s3://{bucket}/some/prefix")
    store.multipart_above, store.part_size = 6 << 20, 5 << 20  # S3's smallest part, so that tests stay small
    yield store
    store._bucket.reader.close()


def test_what_was_written_is_read(store):
    etag = store.put("a/b.json", b"one")
    assert store.read("a/b.json") == (b"one", etag)
    info = store.stat("a/b.json")
    assert (info.key, info.size, info.etag) == ("a/b.json", 3, etag)
    assert info.modified.tzinfo is not None


def test_a_missing_object_is_told_from_an_empty_one(store, tmp_path):
    store.put("empty", b"")
    assert store.read("empty")[0] == b""
    assert store.stat("missing") is None
    with pytest.raises(ObjectMissingError, match="missing"):
        store.read("missing")
    with pytest.raises(ObjectMissingError):
        store.download("missing", tmp_path / "x")


def test_an_etag_changes_with_the_content(store):
    first = store.put("k", b"1")
    assert store.put("k", b"2") != first


def test_an_object_is_created_once(store):
    etag = store.create("k", b"mine")
    with pytest.raises(ObjectExistsError, match="written only once"):
        store.create("k", b"yours")
    assert store.read("k") == (b"mine", etag)


def test_creating_the_same_again_succeeds_because_a_lost_reply_looks_like_that(store):
    assert store.create("k", b"mine") == store.create("k", b"mine")


def test_of_twenty_that_create_one_wins(store):
    barrier = threading.Barrier(20)

    def race(number):
        barrier.wait()
        try:
            store.create("claim", b"%d" % number)
        except ObjectExistsError:
            return None
        return number

    with ThreadPoolExecutor(20) as pool:
        winners = [number for number in pool.map(race, range(20)) if number is not None]
    assert [store.read("claim")[0]] == [b"%d" % number for number in winners]


def test_a_temporary_file_that_its_writer_removes_while_another_clears_up_is_no_fault(tmp_path):
    (tmp_path / ".tmp").mkdir()
    (tmp_path / ".tmp" / "listed").symlink_to("gone before it is opened")
    store = FolderStore(tmp_path)
    store.create("claim", b"mine")
    assert store.read("claim")[0] == b"mine"


def test_of_twenty_that_replace_one_wins(store):
    etag = store.put("alias", b"start")
    barrier = threading.Barrier(20)

    def race(number):
        barrier.wait()
        try:
            store.replace("alias", b"%d" % number, etag)
        except ObjectChangedError:
            return None
        return number

    with ThreadPoolExecutor(20) as pool:
        winners = [number for number in pool.map(race, range(20)) if number is not None]
    assert [store.read("alias")[0]] == [b"%d" % number for number in winners]


def test_replacing_what_somebody_changed_or_deleted_is_refused(store):
    etag = store.put("k", b"1")
    store.put("k", b"2")
    with pytest.raises(ObjectChangedError):
        store.replace("k", b"3", etag)
    assert store.read("k")[0] == b"2"
    store.delete("k")
    with pytest.raises(ObjectChangedError):
        store.replace("k", b"3", etag)
    assert store.stat("k") is None


def test_deleting_is_idempotent(store):
    store.put("a/b", b"1")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    assert list(store.list("")) == []


def test_a_listing_is_by_prefix_and_in_the_order_of_bytes(store):
    keys = ["a-b", "a/1", "a/10", "a/2/x", "a0", "b/ä", "b/z", "runs/r1/run.json"]
    for key in reversed(keys):
        store.put(key, key.encode())
    assert [info.key for info in store.list("")] == sorted(keys, key=str.encode)
    assert [info.key for info in store.list("a/1")] == ["a/1", "a/10"]
    assert [info.key for info in store.list("runs/")] == ["runs/r1/run.json"]
    assert list(store.list("nothing/here")) == []
    assert all(info == store.stat(info.key) for info in store.list(""))


@pytest.mark.parametrize("size", [0, 3, 7 << 20], ids=["empty", "small", "in parts"])
def test_a_file_goes_up_and_comes_down_verified(store, tmp_path, size):
    body = bytes(range(256)) * (size // 256 + 1)
    source, target = tmp_path / "source", tmp_path / "down" / "target"
    source.write_bytes(body[:size])
    info = store.upload("models/v1/model.pt", source, create=True)
    assert (info.size, info.etag) == (size, store.stat("models/v1/model.pt").etag)
    sha256 = hashlib.sha256(body[:size]).hexdigest()
    store.download("models/v1/model.pt", target, size=size, sha256=sha256)
    assert target.read_bytes() == body[:size]
    assert [path.name for path in target.parent.iterdir()] == ["target"]


@pytest.mark.parametrize("size", [3, 7 << 20], ids=["small", "in parts"])
def test_a_file_is_created_once(store, tmp_path, size):
    source = tmp_path / "source"
    source.write_bytes(b"a" * size)
    first = store.upload("k", source, create=True)
    assert store.upload("k", source, create=True).etag == first.etag
    source.write_bytes(b"b" * size)
    with pytest.raises(ObjectExistsError):
        store.upload("k", source, create=True)
    assert store.read("k")[0] == b"a" * size
    store.upload("k", source)
    assert store.read("k")[0] == b"b" * size


@pytest.mark.parametrize("promise", [{"size": 4}, {"sha256": "0" * 64}], ids=str)
def test_a_download_that_is_not_what_was_promised_leaves_the_old_file(store, tmp_path, promise):
    store.put("k", b"new")
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with pytest.raises(CorruptObjectError, match="instead of"):
        store.download("k", target, **promise)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.glob(".target*")) == []


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", ".tmp/x", "a\\b", "a\nb", "a\0b", "x" * 256],
)
def test_a_key_that_could_mean_something_else_is_refused(store, key):
    for act in (store.read, store.stat, store.delete, store.public_url, lambda key: store.put(key, b"")):
        with pytest.raises(ObjectKeyError):
            act(key)


@pytest.mark.parametrize("name", [".tmp", ".lock", ".gitignore"])
def test_a_link_among_the_stores_own_names_is_not_followed(tmp_path, name):
    """Nothing is written to, or removed from, where it leads."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis").write_text("years of work")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / name).symlink_to(outside if name == ".tmp" else outside / "made")
    with pytest.raises(StoreError, match="symbolic link"):
        FolderStore(tmp_path / "store").put("k", b"1")
    assert [path.name for path in outside.iterdir()] == ["thesis"]
