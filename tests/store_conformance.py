"""What any store must keep to, as functions of a store and a temporary folder; `CHECKS` is all of them."""

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
)


def large(store):
    """Return bytes that a store does not write in one piece."""
    return getattr(store, "multipart_above", 1 << 20) + (1 << 20)


def what_was_written_is_read(store, _tmp_path):
    etag = store.put("a/b.json", b"one")
    assert store.read("a/b.json") == (b"one", etag)
    info = store.stat("a/b.json")
    assert (info.key, info.size, info.etag) == ("a/b.json", 3, etag)
    assert info.modified.tzinfo is not None


def a_missing_object_is_told_from_an_empty_one(store, tmp_path):
    store.put("empty", b"")
    assert store.read("empty")[0] == b""
    assert store.stat("missing") is None
    with pytest.raises(ObjectMissingError, match="missing"):
        store.read("missing")
    with pytest.raises(ObjectMissingError):
        store.download("missing", tmp_path / "x")


def an_etag_changes_with_the_content(store, _tmp_path):
    first = store.put("k", b"1")
    assert store.put("k", b"2") != first


def an_object_is_created_once(store, _tmp_path):
    etag = store.create("k", b"mine")
    with pytest.raises(ObjectExistsError, match="written only once"):
        store.create("k", b"yours")
    assert store.read("k") == (b"mine", etag)


def creating_the_same_again_succeeds_because_a_lost_reply_looks_like_that(store, _tmp_path):
    assert store.create("k", b"mine") == store.create("k", b"mine")


def of_twenty_that_create_one_wins(store, _tmp_path):
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


def of_twenty_that_replace_one_wins(store, _tmp_path):
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


def replacing_what_another_writer_changed_or_deleted_is_refused(store, _tmp_path):
    etag = store.put("k", b"1")
    store.put("k", b"2")
    with pytest.raises(ObjectChangedError):
        store.replace("k", b"3", etag)
    assert store.read("k")[0] == b"2"
    store.delete("k")
    with pytest.raises(ObjectChangedError):
        store.replace("k", b"3", etag)
    assert store.stat("k") is None


def deleting_is_idempotent(store, _tmp_path):
    store.put("a/b", b"1")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    assert list(store.list("")) == []


def a_listing_is_by_prefix_and_in_the_order_of_bytes(store, _tmp_path):
    keys = ["a-b", "a/1", "a/10", "a/2/x", "a0", "b/ä", "b/z", "runs/r1/run.json"]
    for key in reversed(keys):
        store.put(key, key.encode())
    assert [info.key for info in store.list("")] == sorted(keys, key=str.encode)
    assert [info.key for info in store.list("a/1")] == ["a/1", "a/10"]
    assert [info.key for info in store.list("runs/")] == ["runs/r1/run.json"]
    assert list(store.list("nothing/here")) == []
    assert all(info == store.stat(info.key) for info in store.list(""))


def a_file_goes_up_and_comes_down_verified(store, tmp_path):
    for size in (0, 3, large(store)):
        key = f"models/{size}/model.pt"
        body = bytes(range(256)) * (size // 256 + 1)
        source, target = tmp_path / "source", tmp_path / "down" / "target"
        source.write_bytes(body[:size])
        info = store.upload(key, source, create=True)
        assert (info.size, info.etag) == (size, store.stat(key).etag)
        sha256 = hashlib.sha256(body[:size]).hexdigest()
        store.download(key, target, size=size, sha256=sha256)
        assert target.read_bytes() == body[:size]
        assert [path.name for path in target.parent.iterdir()] == ["target"]


def a_file_is_created_once(store, tmp_path):
    for size in (3, large(store)):
        source = tmp_path / "source"
        source.write_bytes(b"a" * size)
        first = store.upload(f"k/{size}", source, create=True)
        assert store.upload(f"k/{size}", source, create=True).etag == first.etag
        source.write_bytes(b"b" * size)
        with pytest.raises(ObjectExistsError):
            store.upload(f"k/{size}", source, create=True)
        assert store.read(f"k/{size}")[0] == b"a" * size
        store.upload(f"k/{size}", source)
        assert store.read(f"k/{size}")[0] == b"b" * size


def a_download_that_is_not_what_was_promised_leaves_the_old_file(store, tmp_path):
    for promise in [{"size": 4}, {"sha256": "0" * 64}]:
        store.put("k", b"new")
        target = tmp_path / "target"
        target.write_bytes(b"old")
        with pytest.raises(CorruptObjectError, match="instead of"):
            store.download("k", target, **promise)
        assert target.read_bytes() == b"old"
        assert list(tmp_path.glob(".target*")) == []


def a_key_that_could_mean_something_else_is_refused(store, _tmp_path):
    for key in [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        ".tmp/x",
        "a\\b",
        "a\nb",
        "a\0b",
        "x" * 256,
    ]:
        for act in (store.read, store.stat, store.delete, store.public_url, lambda key: store.put(key, b"")):
            with pytest.raises(ObjectKeyError):
                act(key)


CHECKS = (
    what_was_written_is_read,
    a_missing_object_is_told_from_an_empty_one,
    an_etag_changes_with_the_content,
    an_object_is_created_once,
    creating_the_same_again_succeeds_because_a_lost_reply_looks_like_that,
    of_twenty_that_create_one_wins,
    of_twenty_that_replace_one_wins,
    replacing_what_another_writer_changed_or_deleted_is_refused,
    deleting_is_idempotent,
    a_listing_is_by_prefix_and_in_the_order_of_bytes,
    a_file_goes_up_and_comes_down_verified,
    a_file_is_created_once,
    a_download_that_is_not_what_was_promised_leaves_the_old_file,
    a_key_that_could_mean_something_else_is_refused,
)
