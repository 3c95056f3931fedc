"""All stores are one: what holds for a bucket holds for a folder and for files elsewhere. And a bad store is found out."""

import contextlib
import ftplib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import store_conformance as conformance
from store_kinds import KINDS

from gpu_offload.infra.ssh.key import HostKey
from gpu_offload.infra.store import files
from gpu_offload.infra.store.errors import (
    CorruptObjectError,
    ObjectChangedError,
    ObjectExistsError,
    StoreDeniedError,
    StoreError,
    StoreUnreachableError,
    StoreUrlError,
)
from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.folder import FolderStore
from gpu_offload.infra.store.remote_files import RemoteFiles
from gpu_offload.infra.store.remote_lock import RemoteLock


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_every_store_keeps_to_it(kind, check, new_store, tmp_path):
    (tmp_path / "work").mkdir()
    check(new_store(kind), tmp_path / "work")


class Bad:
    """A store with one fault."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)


class StaleList(Bad):
    """Lists what was there before the last write."""

    def __init__(self, store):
        super().__init__(store)
        self.before = []

    def put(self, key, body):
        self.before = list(self.store.list(""))
        return self.store.put(key, body)

    def list(self, prefix):
        return (info for info in self.before if info.key.startswith(prefix))


class Forgetful(Bad):
    """Answers that a write went well, and did not write."""

    def put(self, key, body):
        return "0"


class Unconditional(Bad):
    """Ignores conditions."""

    def create(self, key, body):
        return self.store.put(key, body)

    def replace(self, key, body, etag):
        return self.store.put(key, body)


class LostReply(Bad):
    """Says that a write that went well found another's."""

    def create(self, key, body):
        self.store.create(key, body)
        raise ObjectExistsError(key)


class Unverified(Bad):
    """Downloads whatever is there."""

    def download(self, key, path, *, size=None, sha256=None):
        self.store.download(key, path)


@pytest.mark.parametrize(
    ("bad", "found_by"),
    [
        (StaleList, conformance.a_listing_is_by_prefix_and_in_the_order_of_bytes),
        (Forgetful, conformance.what_was_written_is_read),
        (Unconditional, conformance.an_object_is_created_once),
        (Unconditional, conformance.of_twenty_that_create_one_wins),
        (Unconditional, conformance.of_twenty_that_replace_one_wins),
        (Unconditional, conformance.replacing_what_another_writer_changed_or_deleted_is_refused),
        (LostReply, conformance.creating_the_same_again_succeeds_because_a_lost_reply_looks_like_that),
        (Unverified, conformance.a_download_that_is_not_what_was_promised_leaves_the_old_file),
    ],
)
def test_a_bad_store_is_found_out(bad, found_by, tmp_path):
    (tmp_path / "work").mkdir()
    with pytest.raises((AssertionError, StoreError, pytest.fail.Exception)):
        found_by(bad(open_store("file:store", base=tmp_path)), tmp_path / "work")


def test_a_temporary_file_that_its_writer_removes_while_another_clears_up_is_no_fault(tmp_path):
    (tmp_path / ".tmp").mkdir()
    (tmp_path / ".tmp" / "listed").symlink_to("gone before it is opened")
    store = FolderStore(tmp_path)
    store.create("claim", b"mine")
    assert store.read("claim")[0] == b"mine"


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


# ---------------------------------------------------------------------------------- files elsewhere


@pytest.mark.process
def test_a_server_with_another_key_than_the_known_one_gets_nothing(sftp_server, new_store):
    store = new_store("sftp")
    store.put("k", b"1")
    try:
        sftp_server.trust(HostKey.generate().public)
        with pytest.raises(StoreUnreachableError, match="known_hosts"):
            RemoteFiles(store.url).read("k")
        (sftp_server.home / ".ssh" / "known_hosts").unlink()
        with pytest.raises(StoreUnreachableError, match="known_hosts"):
            RemoteFiles(store.url).read("k")
    finally:
        sftp_server.trust(sftp_server.sshd.host_key.public)


@pytest.mark.process
def test_a_key_that_is_not_accepted_is_an_error(sftp_server, new_store):
    store = new_store("sftp")
    keys = sftp_server.sshd.folder / "authorized_keys"
    accepted = keys.read_text()
    try:
        keys.write_text("")
        with pytest.raises(StoreDeniedError, match="authorized_keys"):
            RemoteFiles(store.url).stat("k")
    finally:
        keys.write_text(accepted)
    store.put("k", b"1")


@pytest.mark.process
def test_after_a_cut_the_next_call_connects_anew(sftp_server, new_store):
    store = new_store("sftp")
    store.put("k", b"1")
    sftp_server.sshd.drop_connections()
    with contextlib.suppress(StoreUnreachableError):
        store.read("k")
    assert store.read("k")[0] == b"1"


@pytest.mark.process
def test_a_server_that_falls_silent_is_an_error_and_the_next_call_connects_anew(sftp_server, new_store):
    store = new_store("sftp")
    from gpu_offload.infra.store.sftp import SILENCE_S

    store.put("k", b"1")
    channel = store._files.ftp.get_channel()
    assert channel.gettimeout() == SILENCE_S
    channel.settimeout(0.2)
    silent = sftp_server.sshd.connections()
    for pid in silent:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnreachableError):
            store.read("k")
    finally:
        for pid in silent:
            os.kill(pid, signal.SIGCONT)
    assert store.read("k")[0] == b"1"


def test_a_lock_that_cannot_be_made_is_an_error():
    class Full:
        def mkdir(self, *_, **__):
            raise OSError("Failure")

        def ls(self, path, detail):
            raise FileNotFoundError(path)

        def invalidate_cache(self, path):
            pass

    connection = SimpleNamespace(url="sftp://host/full", root="/full", files=Full())
    with pytest.raises(OSError, match="Failure"), RemoteLock(connection, 0.1).held("/x"):
        pass


def test_a_lock_that_a_dead_writer_left_is_taken_over(tmp_path):
    pytest.importorskip("fsspec", reason="the extra [fsspec] is not installed")
    store = RemoteFiles(f"fsspec+memory://{tmp_path.name}", lock_s=0.2)
    etag = store.put("k", b"1")
    store._files.mkdir(f"{store.root}/.lock")
    began = time.monotonic()
    assert store.replace("k", b"2", etag) != etag
    assert time.monotonic() - began >= 0.2
    with pytest.raises(ObjectChangedError):
        store.replace("k", b"3", etag)


@pytest.mark.process
def test_a_writer_that_stalls_until_its_lock_is_taken_over_overwrites_nothing(sftp_server, new_store):
    slow = new_store("sftp")
    fast = RemoteFiles(slow.url.replace("127.0.0.1", "localhost"), lock_s=0.1)
    etag = slow.put("k", b"1")
    try:
        with pytest.raises(StoreUnreachableError, match="lock"):
            slow._write("k", [b"slow"], lambda: bool(fast.replace("k", b"fast", etag)))
    finally:
        fast._files.client.close()
    assert slow.read("k")[0] == b"fast"
    slow.put("k", b"2")
    assert [path.name for path in Path(slow.root).iterdir() if path.name != "k"] == [".tmp"]
    assert not list(Path(slow.root, ".tmp").iterdir())


COUNTS = """
import os, sys
from gpu_offload.infra.store import remote_lock
from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.remote_files import RemoteFiles
remote_lock.POLL_S = 0.002
store, done = RemoteFiles(sys.argv[1], lock_s=0), 0
while done < int(sys.argv[2]):
    body, etag = store.read("count")
    try:
        store.replace("count", b"%d %d" % (int(body.split()[0]) + 1, os.getpid()), etag)
    except StoreError:  # the other one came first, or took the lock over
        continue
    done += 1
"""


@pytest.mark.process
def test_writers_that_take_each_others_lock_over_all_the_time_lose_no_write(sftp_server, new_store):
    """Each sees the same lock left behind, and removes it, at the same moment as the other."""
    store, each = new_store("sftp"), 20
    store.put("count", b"0")
    command = [sys.executable, "-c", COUNTS, store.url, str(each)]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    assert store.read("count")[0].split()[0] == b"%d" % (2 * each)


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_no_document_is_as_large_as_is_not_read_to_its_end(
    kind, new_store, tmp_path, monkeypatch
):
    store = new_store(kind)
    store.put("k", b"x" * 2000)
    monkeypatch.setattr(files, "DOCUMENT", 1000)
    with pytest.raises(CorruptObjectError, match="larger than"):
        store.read("k")
    store.download("k", tmp_path / "k", size=2000)


@pytest.mark.simulator
def test_an_error_of_a_library_below_fsspec_is_a_sentence(tmp_path, monkeypatch):
    pytest.importorskip("fsspec", reason="the extra [fsspec] is not installed")
    store = open_store(f"fsspec+memory://{tmp_path.name}")

    def fails(*_, **__):
        raise ftplib.error_perm("550 no\nmore")

    monkeypatch.setattr(store._files, "open", fails)
    monkeypatch.setattr(store._files, "info", fails)
    for act in (lambda: store.read("k"), lambda: store.stat("k"), lambda: store.put("k", b"1")):
        with pytest.raises(StoreUnreachableError, match="550 no more"):
            act()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(StoreUnreachableError, match="refused"):
        open_store(f"fsspec+ftp://me@127.0.0.1:{port}/models").read("k")


@pytest.mark.parametrize(
    "url",
    [
        "sftp://host",
        "sftp://me:secret@host/path",
        "sftp:///path",
        "sftp://host:port/path",
        "fsspec+nothing://x/y",
        "fsspec+ftp://host",
    ],
)
def test_an_address_that_is_no_store_is_refused(url):
    with pytest.raises(StoreUrlError) as refused:
        open_store(url).read("k")
    assert "secret" not in str(refused.value)
