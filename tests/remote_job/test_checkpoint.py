"""Checkpoints: whole at any instant, verified, two of them."""

import contextlib
import errno
import os
import threading

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu_offload.remote_job.files import durable
from gpu_offload.remote_job.files.checkpoint import CheckpointMismatchError, Checkpoints


class SimulatedKill(BaseException):
    """The process is gone."""


def checkpoints(folder, key="key", warnings=None):
    warn = warnings.append if warnings is not None else lambda _text: None
    return Checkpoints(folder, run="run", attempt=1, training_key=key, epochs=9, warn=warn)


def content(found):
    return found.last.read_bytes()


@contextlib.contextmanager
def killed_at(monkeypatch, instant):
    """Let the process die at the n-th system call that writes; a dying write leaves half of its bytes."""
    calls = iter(range(10**6))
    real = {name: getattr(os, name) for name in ("write", "fsync", "replace", "open", "unlink")}

    def dying(name):
        def call(*args, **kwargs):
            if next(calls) == instant:
                if name == "write":
                    real["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
                raise SimulatedKill
            return real[name](*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for name in real:
            patched.setattr(durable.os, name, dying(name))
        yield


def test_what_was_saved_is_loaded_with_its_best(tmp_path):
    store = checkpoints(tmp_path)
    store.save(b"one", epochs_completed=1, seconds=1.0, best=b"best one")
    store.save(b"two", epochs_completed=2, seconds=2.0)
    found = checkpoints(tmp_path).load()
    assert content(found) == b"two"
    assert found.best.read_bytes() == b"best one"
    assert found.manifest.epochs_completed == 2
    assert found.manifest.seconds == 2.0


def test_a_kill_at_any_instant_leaves_the_old_or_the_new_checkpoint(tmp_path, monkeypatch):
    seen = set()
    for instant in range(200):
        folder = tmp_path / str(instant)
        checkpoints(folder).save(b"old" * 50, epochs_completed=1, seconds=1.0, best=b"old best")
        warnings = []
        killed = False
        with killed_at(monkeypatch, instant):
            try:
                checkpoints(folder).save(b"new" * 50, epochs_completed=2, seconds=2.0, best=b"new best")
            except SimulatedKill:
                killed = True
        found = checkpoints(folder, warnings=warnings).load()
        assert content(found) in {b"old" * 50, b"new" * 50}
        assert found.best.read_bytes() == (b"old best" if content(found).startswith(b"old") else b"new best")
        assert not list(folder.glob(".*.tmp"))
        assert warnings == []
        seen.add(content(found)[:3])
        after = checkpoints(folder)
        after.load()
        after.save(b"next", epochs_completed=found.manifest.epochs_completed + 1, seconds=3.0)
        assert content(checkpoints(folder).load()) == b"next"
        if not killed:
            break
    assert not killed
    assert seen == {b"old", b"new"}


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["save", "damage newest", "truncate newest", "lose newest"]),
            st.binary(max_size=9),
        ),
        max_size=12,
    )
)
@example(
    steps=[
        ("save", b"\0"),
        ("damage newest", b""),
        ("save", b"\0" * 9),
        ("damage newest", b""),
        ("save", b""),
    ]
)
def test_the_newest_whole_checkpoint_is_what_is_loaded(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("checkpoints")
    saved = []
    for action, data in steps:
        if action == "save":
            store = checkpoints(folder)
            found = store.load()
            epoch = found.manifest.epochs_completed + 1 if found else 1
            store.save(data, epochs_completed=epoch, seconds=0.0)
            saved = [*[s for s in saved if s[0] < epoch][-1:], (epoch, data)]
        elif saved:
            found = checkpoints(folder).load()
            if found is None:
                continue
            if action == "damage newest":
                found.last.write_bytes(b"x" * (len(content(found)) + 1))
            elif action == "truncate newest":
                found.last.write_bytes(content(found)[:-1])
                if found.manifest.last.size == 0:
                    continue
            else:
                found.last.unlink()
            saved.pop()
    found = checkpoints(folder).load()
    if saved:
        assert (found.manifest.epochs_completed, content(found)) == saved[-1]
    else:
        assert found is None


def test_two_threads_that_write_one_file_leave_it_whole(tmp_path, monkeypatch):
    path, real, others = tmp_path / "heartbeat.json", os.replace, [b"theirs"]

    def replace(source, target):
        while others:  # while the first writer is about to rename
            other = threading.Thread(target=durable.write, args=(path, others.pop()))
            other.start()
            other.join()
            assert path.read_bytes() == b"theirs"
        real(source, target)

    monkeypatch.setattr(durable.os, "replace", replace)
    durable.write(path, b"ours")
    assert path.read_bytes() == b"ours"
    assert [each.name for each in tmp_path.iterdir()] == ["heartbeat.json"]


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    def write(descriptor, data):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(durable.os, "write", write)
    with pytest.raises(OSError, match="full"):
        durable.write(tmp_path / "state.pt", b"state")
    assert list(tmp_path.iterdir()) == []


def test_two_checkpoints_are_kept(tmp_path):
    store = checkpoints(tmp_path)
    for epoch in range(1, 6):
        store.save(b"%d" % epoch, epochs_completed=epoch, seconds=0.0, best=b"best %d" % epoch)
    assert sorted(path.name[:10] for path in tmp_path.glob("*.pt")) == [
        "best-0004-",
        "best-0005-",
        "epoch-0004",
        "epoch-0005",
    ]


def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning(tmp_path):
    store = checkpoints(tmp_path)
    store.save(b"one", epochs_completed=1, seconds=0.0)
    store.save(b"two", epochs_completed=2, seconds=0.0)
    next(tmp_path.glob("epoch-0002-*.pt")).write_bytes(b"tw0")
    warnings = []
    assert content(checkpoints(tmp_path, warnings=warnings).load()) == b"one"
    assert len(warnings) == 1
    assert "epoch 2 is damaged" in warnings[0]
    assert "another sha256" in warnings[0]


def test_the_middle_of_an_epoch_is_newer_than_its_beginning_and_older_than_its_end(tmp_path):
    store = checkpoints(tmp_path)
    store.save(b"whole", epochs_completed=1, seconds=0.0)
    store.save(b"part", epochs_completed=1, batches_completed=3, seconds=0.0)
    assert checkpoints(tmp_path).load().manifest.position == (1, 3)
    store.save(b"next", epochs_completed=2, seconds=0.0)
    assert checkpoints(tmp_path).load().manifest.position == (2, 0)


def test_another_trainings_checkpoint_is_refused(tmp_path):
    checkpoints(tmp_path, key="theirs").save(b"one", epochs_completed=1, seconds=0.0)
    with pytest.raises(CheckpointMismatchError, match="another training"):
        checkpoints(tmp_path, key="ours").load()


def test_a_manifest_cannot_point_out_of_its_folder(tmp_path):
    outside = tmp_path / "outside.pt"
    outside.write_bytes(b"one")
    folder = tmp_path / "checkpoint"
    store = checkpoints(folder)
    manifest = store.save(b"one", epochs_completed=1, seconds=0.0)
    last = manifest.last.model_copy(update={"name": "../outside.pt"})
    (folder / "manifest.json").write_text(manifest.model_copy(update={"last": last}).model_dump_json())
    next(folder.glob("epoch-*.json")).unlink()
    assert checkpoints(folder).load() is None


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert checkpoints(tmp_path / "none").load() is None
