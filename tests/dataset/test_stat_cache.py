"""When a file is read again, and when it is not."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.dataset.inventory import context_of, take_inventory
from gpu_offload.dataset.paths import Names
from gpu_offload.dataset.stat_cache import NEVER, CacheWriter, Entry, believable, read_cache


class Watching:
    """Counts the files that are opened."""

    def __init__(self):
        self.seen = []

    def wants(self, name):
        return True

    def refuses(self, name, size):
        return []

    def inspect(self, name, read, size):
        self.seen.append(name)
        return (size, len(read(0, size)), 0), [], True


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for index in range(30):
        (root / f"{index:02}.png").write_bytes(b"content %d" % index)
    return root


def take(root, cache, context=1):
    watching = Watching()
    findings = []
    names = Names(sorted(path.name for path in root.iterdir()))
    inventory = take_inventory(
        root, names, inspector=watching, context=context, cache=cache, findings=findings
    )
    assert findings == []
    return inventory, watching.seen


def age(root, seconds=60):
    """Let every file look as if it had been written a while ago; ctime cannot be set, so wait for its tick."""
    then = time.time_ns() - seconds * 10**9 - 7
    for path in root.iterdir():
        os.utime(path, ns=(then, then))
    newest = max(path.stat().st_ctime_ns for path in root.iterdir())
    deadline = time.monotonic() + 10
    while believable((0, then, newest, 0, 0), time.time_ns()) == NEVER:
        assert time.monotonic() < deadline


def test_nothing_is_opened_twice_when_nothing_changed(root, tmp_path):
    age(root)
    first, opened = take(root, tmp_path / "cache")
    assert len(opened) == 30
    second, opened = take(root, tmp_path / "cache")
    assert opened == []
    assert (second.sha256, second.sizes, second.facts) == (first.sha256, first.sizes, first.facts)


def test_a_file_written_just_before_is_racy_and_never_believed(root, tmp_path):
    age(root)
    (root / "07.png").write_bytes(b"fresh")
    take(root, tmp_path / "cache")
    (entry,) = [entry for name, entry in read_cache(tmp_path / "cache") if name == "07.png"]
    assert entry.stat == NEVER


def test_a_change_that_keeps_size_and_mtime_is_noticed(root, tmp_path):
    age(root)
    before, _ = take(root, tmp_path / "cache")
    info = (root / "07.png").stat()
    (root / "07.png").write_bytes(b"CONTENT 7")
    os.utime(root / "07.png", ns=(info.st_atime_ns, info.st_mtime_ns))
    after, opened = take(root, tmp_path / "cache")
    assert opened == ["07.png"]
    assert after.sha_hex(7) != before.sha_hex(7)


def test_a_file_replaced_by_another_of_the_same_times_is_noticed(root, tmp_path):
    age(root)
    before, _ = take(root, tmp_path / "cache")
    info = (root / "07.png").stat()
    (root / "new").write_bytes(b"CONTENT 7")
    os.utime(root / "new", ns=(info.st_atime_ns, info.st_mtime_ns))
    (root / "new").rename(root / "07.png")
    after, _ = take(root, tmp_path / "cache")
    assert after.sha_hex(7) != before.sha_hex(7)


def test_a_fresh_checkout_is_hashed_again_but_not_inspected_again(root, tmp_path):
    take(root, tmp_path / "cache")
    for path in root.iterdir():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    _, opened = take(root, tmp_path / "cache")
    assert opened == []


def test_other_checks_look_again(root, tmp_path):
    age(root)
    take(root, tmp_path / "cache", context=1)
    assert len(take(root, tmp_path / "cache", context=2)[1]) == 30
    assert context_of(1, None) != context_of(1, (3, 2)) != 0


def test_added_and_removed_files_leave_the_rest_alone(root, tmp_path):
    age(root)
    take(root, tmp_path / "cache")
    (root / "05.png").unlink()
    (root / "05a.png").write_bytes(b"new")
    _, opened = take(root, tmp_path / "cache")
    assert opened == ["05a.png"]
    assert [name for name, _ in read_cache(tmp_path / "cache")] == sorted(p.name for p in root.iterdir())


@given(st.data())
def test_a_damaged_cache_is_no_cache(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged"
    with CacheWriter(path) as writer:
        for index in range(3):
            writer.add(f"{index}.png", Entry((1, 2, 3, 4, 5), bytes(32), 6, (7, 8, 9)))
        writer.commit()
    whole = path.read_bytes()
    assert len(list(read_cache(path))) == 3
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(whole) - 1))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
    else:
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert list(read_cache(path)) == []


def test_a_cache_longer_than_its_buffers_comes_back_in_order(tmp_path):
    entries = [
        (f"{index:06}" + "n" * 80, Entry((index, 1, 2, 3, 4), bytes(32), 1, (index, 0, 0)))
        for index in range(9000)
    ]
    with CacheWriter(tmp_path / "cache") as writer:
        for name, entry in entries:
            writer.add(name, entry)
        writer.commit()
    assert list(read_cache(tmp_path / "cache")) == entries


def test_a_writer_that_is_left_without_commit_leaves_the_old_cache(tmp_path):
    (tmp_path / "cache").write_bytes(b"old")
    with CacheWriter(tmp_path / "cache") as writer:
        writer.add("a", Entry(NEVER, bytes(32)))
    assert (tmp_path / "cache").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"]


@pytest.mark.parametrize(
    ("mtime", "ctime", "read", "kept"),
    [
        (10**9 + 5, 10**9 + 5, 2 * 10**9, True),
        (10**9 + 5, 10**9 + 5, 10**9 + 6, False),
        (10**9 + 5, 2 * 10**9 + 1, 2 * 10**9 + 2, False),
        (10**9, 10**9, 2 * 10**9, False),
        (10**9, 10**9, 4 * 10**9, True),
        (9 * 10**9 + 1, 5, 2 * 10**9, False),
    ],
    ids=["old", "just written", "just linked", "coarse clock", "coarse and old", "future"],
)
def test_a_stat_is_kept_only_if_a_second_change_would_show(mtime, ctime, read, kept):
    stat = (1, mtime, ctime, 2, 3)
    assert believable(stat, read) == (stat if kept else NEVER)
