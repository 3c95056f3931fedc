"""A store in a folder: death at any line, links, and what is not an object."""

import subprocess
import sys
import textwrap

import pytest

from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectKeyError,
    ObjectMissingError,
    StoreError,
)
from gpu_offload.infra.store.factory import open_store

DEATHS = """
import os, signal, sys
from pathlib import Path
from gpu_offload.infra.store import folder, folder_files
from gpu_offload.infra.store.factory import open_store

CODE = {folder.__file__, folder_files.__file__}

root, source = Path(sys.argv[1]), Path(sys.argv[2])
source.write_bytes(b"upload" * 1000)
new = {"put": b"new" * 1000, "create": b"created", "replace": b"replaced", "upload": b"upload" * 1000}
acts = {
    "fresh": lambda store: store.put("k", new["put"]),
    "put": lambda store: store.put("k", new["put"]),
    "create": lambda store: store.create("new/k", new["create"]),
    "replace": lambda store: store.replace("k", new["replace"], store.stat("k").etag),
    "upload": lambda store: store.upload("up/load", source, create=True),
    "delete": lambda store: store.delete("a/b/c"),
}
deaths = 0
for name, act in acts.items():
    instant = 0
    while True:
        instant += 1
        place = root / f"{name}-{instant}"
        url = f"file:{place}"
        if name != "fresh":
            store = open_store(url)
            store.put("k", b"old")
            store.put("a/b/c", b"old")
        child = os.fork()
        if not child:
            left = instant

            def trace(frame, event, argument):
                global left
                if frame.f_code.co_filename not in CODE:
                    return None
                if event == "line":
                    left -= 1
                    if not left:
                        os.kill(os.getpid(), signal.SIGKILL)
                return trace

            store = open_store(url)
            sys.settrace(trace)
            act(store)
            os._exit(0)
        died = os.waitpid(child, 0)[1] != 0
        deaths += died
        store = open_store(url)
        seen = {info.key: store.read(info.key)[0] for info in store.list("")}
        allowed = {"k": {b"old", new["put"], new["replace"]}, "new/k": {new["create"]}}
        allowed |= {"up/load": {new["upload"]}, "a/b/c": {b"old"}}
        assert all(body in allowed[key] for key, body in seen.items()), (name, instant, seen)
        if name != "fresh":
            assert "k" in seen
            assert name == "delete" or "a/b/c" in seen
        act(store)  # again, as the one who takes over would: create finds its own bytes
        assert not list((place / ".tmp").glob("*")), (name, instant)
        assert (place / ".gitignore").read_text() == "*\\n"
        if not died:
            break
print(deaths)
"""


@pytest.mark.process
def test_a_folder_survives_death_at_any_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DEATHS), str(tmp_path / "stores"), str(tmp_path / "source")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_a_new_folder_hides_itself_from_git_and_an_old_one_is_left_as_it_is(tmp_path):
    open_store("file:new", base=tmp_path).put("k", b"")
    assert (tmp_path / "new" / ".gitignore").read_text() == "*\n"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "mine").touch()
    open_store("file:old", base=tmp_path).put("k", b"")
    assert not (tmp_path / "old" / ".gitignore").exists()


def test_opening_and_reading_a_folder_makes_nothing(tmp_path):
    store = open_store("file:new", base=tmp_path)
    assert store.stat("k") is None
    assert list(store.list("")) == []
    store.delete("k")
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_file_is_not_an_object_and_a_living_writers_is_not_cleared(tmp_path):
    store = open_store("file:s", base=tmp_path)
    with store.files._temporary() as (temporary, file):
        file.write(b"half")
        assert list(store.list("")) == []
        open_store("file:s", base=tmp_path).put("k", b"1")
        assert temporary.exists()
    assert [info.key for info in store.list("")] == ["k"]


def test_a_symbolic_link_is_not_followed(tmp_path):
    store = open_store("file:s", base=tmp_path)
    store.put("k", b"1")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "s" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "s" / "out").symlink_to(tmp_path)
    assert [info.key for info in store.list("")] == ["k"]
    for key in ("link", "out/secret"):
        with pytest.raises(ObjectKeyError, match="symbolic link"):
            store.read(key)
        with pytest.raises(ObjectKeyError, match="symbolic link"):
            store.put(key, b"x")


def test_an_object_cannot_be_another_objects_folder(tmp_path):
    store = open_store("file:s", base=tmp_path)
    store.put("a/b", b"1")
    with pytest.raises(StoreError, match="another object's folder"):
        store.put("a", b"1")
    with pytest.raises(StoreError, match="another object's folder"):
        store.put("a/b/c", b"1")
    with pytest.raises(ObjectMissingError):
        store.read("a")
    assert store.stat("a/b/c") is None


def test_a_large_objects_etag_changes_too(tmp_path):
    store = open_store("file:s", base=tmp_path)
    first = store.put("k", b"a" * (2 << 20))
    assert store.read("k")[1] == first == store.stat("k").etag
    second = store.put("k", b"b" * (2 << 20))
    assert second != first
    with pytest.raises(ObjectChangedError):
        store.replace("k", b"c", first)
    store.replace("k", b"c", second)
