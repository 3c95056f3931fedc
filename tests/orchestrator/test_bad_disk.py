"""Disks that are full or read-only, and damaged documents: every command says what is wrong, and none shows a traceback."""

import json
import shutil

import pytest
from commands import run
from registry_case import manifest_for
from run_case import run_of

from gpu_offload.dataset.synthetic import generate
from gpu_offload.errors.disk import disk_error
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import Outcome

RUN = "aaaaaaaaaaaa-1"
READING = (
    ("plan", "--no-calibrate"), ("status",), ("status", RUN), ("tend", "--dry-run"), ("report", RUN), ("logs", RUN), ("models",),
    ("models", "show"), ("models", "history"), ("pull", "got.pt"), ("prune",), ("usage",),
)  # fmt: skip
WRITING = (
    ("report", RUN, "-o", "r.html"), ("tend",), ("stop", RUN), ("attach", RUN), ("rollback",), ("check",),
    ("promote", "aaaa", "--why", "x"), ("yank", "aaaa", "--why", "x"), ("prune", "--delete"), ("fingerprint",),
)  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a published model and its finished run, in a folder store."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")  # no account: the store is a folder
    folder = tmp_path / "project"
    generate(folder / "raw", images=12, size=32)
    (folder / "offload.toml").write_text('[dataset]\npath = "raw"\n[store]\nurl = "file:store"\n')
    store = open_store(f"file:{folder / 'store'}")
    (tmp_path / "model.pt").write_bytes(b"a model")
    publish.publish(store, manifest_for(tmp_path / "model.pt"), tmp_path / "model.pt", note=lambda _: None)
    journal = Journal(store)
    journal.begin(run_of(id=RUN))
    journal.finish(RUN, Outcome(status="published", at=1.7e9, version="aaaa"))
    return folder


def refuses_in_words(folder, commands):
    for command in commands:
        code, _, said = run(folder, *command)  # a traceback would be another exception than SystemExit
        assert code in {0, 1, 2, 75}, command
        assert "Traceback" not in said, command


@pytest.mark.parametrize("body", [b"", b'{"format": 1, "ver', b"[1]", b"null", b'{"format": 99}', b'{"format": 1, "versions": 7, "at": {}}', b"\xff\xfe"])  # fmt: skip
def test_a_damaged_document_of_any_kind_has_a_clear_error(project, body):
    for file in sorted((project / "store").rglob("*.json")):
        whole = file.read_bytes()
        file.write_bytes(body)
        refuses_in_words(project, READING)
        file.write_bytes(whole)


@pytest.mark.root
@pytest.mark.process
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_takes_nothing_has_a_clear_error(project, small_disk, monkeypatch, how):
    disk, spoil = small_disk
    moved = disk / "project"
    shutil.copytree(project, moved)
    (disk / "state").mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(disk / "state"))
    spoil(how)
    refuses_in_words(moved, (*READING, *WRITING))
    code, _, said = run(moved, "report", RUN, "-o", "r.html")
    assert code in {1, 2}
    assert "r.html" in said or how == "read-only"  # there it does not get so far
    code, out, _ = run(moved, "pull", "got.pt", "--json")
    assert code in {1, 2}
    assert json.loads(out)["error"]["type"] in {"DiskError", "StateError"}


@pytest.mark.parametrize("years", [50, -40])
def test_a_clock_that_is_decades_wrong_is_no_traceback(project, monkeypatch, years):
    import time

    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + years * 365 * 86_400)
    refuses_in_words(project, (*READING, ("tend",), ("rollback",), ("prune", "--delete")))


def test_what_no_disk_explains_stays_a_defect():
    assert disk_error(OSError(2, "No such file")) is None
    assert "quota" in str(disk_error(OSError(122, "Disk quota exceeded", "x")))
