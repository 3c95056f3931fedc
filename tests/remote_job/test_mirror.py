"""A training's traces in the store: files before manifests, later attempts first, failures without harm."""

import hashlib
import json
import math
import os
import threading
import time
from pathlib import Path

import pytest
from commands import wait_until
from remote_job_case import bare_spec
from run_case import result_of

from gpu_offload.infra.store.errors import CorruptObjectError, StoreDeniedError, StoreUnreachableError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.remote_job.files import durable, regular_file
from gpu_offload.remote_job.files.checkpoint import CheckpointMismatchError, Checkpoints
from gpu_offload.remote_job.mirror import session as module
from gpu_offload.remote_job.mirror import traces
from gpu_offload.remote_job.mirror.session import Mirror
from gpu_offload.remote_job.mirror.target import MirrorError, SupersededError
from gpu_offload.remote_job.mirror.trouble import Trouble
from gpu_offload.remote_job.result import Artifact, CheckpointManifest

PATIENCE_S = 60
WRITES = {"put", "create", "replace", "upload"}


class Recording:
    """A folder store that notes what is written, and fails when told to."""

    def __init__(self, folder):
        self.inner = open_store(f"file:{folder}")
        self.written = []
        self.broken = threading.Event()
        self.error, self.only = StoreUnreachableError, ""

    def __getattr__(self, name):
        method = getattr(self.inner, name)
        if not callable(method):
            return method

        def call(*args, **kwargs):
            hit = name in WRITES or self.error is StoreUnreachableError
            if hit and self.broken.is_set() and self.only in str(args[0]):
                raise self.error("the store does not answer")
            result = method(*args, **kwargs)
            if name in WRITES:
                self.written.append(args[0])
            return result

        return call

    def manifest(self):
        return CheckpointManifest.model_validate_json(
            self.inner.read("runs/run-1/checkpoint/manifest.json")[0]
        )


@pytest.fixture
def store(tmp_path):
    return Recording(tmp_path / "store")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(module, "INTERVAL", 0.05)
    monkeypatch.setattr(module, "BACKOFF", (0.05,))


def spec(output, attempt=1, key="key-1"):
    return bare_spec(output, attempt=attempt, training_key=key, epochs=9)


def checkpoints(output, attempt=1, key="key-1"):
    return Checkpoints(output / "checkpoint", run="run-1", attempt=attempt, training_key=key, epochs=9)


def start(store, output, attempt=1, limit_s=math.inf):
    warnings, stops, notes = [], [], []
    trouble = Trouble(notes.append, stops.append, limit_s)
    mirror = Mirror(store, spec(output, attempt), warn=warnings.append, stop=stops.append, trouble=trouble)
    mirror.warnings, mirror.stops, mirror.notes = warnings, stops, notes
    mirror.start()
    return mirror


def staged(output, key="key-1"):
    """Stage a result of two files and return it."""
    folder = output / "result"
    folder.mkdir(parents=True)
    artifacts = []
    for name in ("model.pt", "results.csv"):
        (folder / name).write_bytes(name.encode())
        artifacts.append(
            Artifact(name=name, size=len(name), sha256=hashlib.sha256(name.encode()).hexdigest())
        )
    result = result_of(
        run="run-1",
        training_key=key,
        epochs=9,
        epochs_completed=9,
        model=artifacts[0],
        extras=(artifacts[1],),
    )
    (folder / "result.json").write_text(result.model_dump_json(by_alias=True))
    return result


def test_a_checkpoints_files_are_there_before_its_manifest(store, tmp_path):
    mirror = start(store, tmp_path)
    checkpoints(tmp_path).save(b"one", epochs_completed=1, seconds=1.0, best=b"best")
    mirror.checkpoint_saved()
    assert mirror.close()
    names = [key.rsplit("/", 1)[1] for key in store.written if "/checkpoint/" in key]
    assert names[0].startswith("epoch-0001-")
    assert names[1].startswith("best-0001-")
    assert names[2] == "manifest.json"
    assert store.manifest().epochs_completed == 1


def test_heartbeat_progress_and_log_follow(store, tmp_path):
    for name in traces.TRACES:
        (tmp_path / name).write_text(name)
    mirror = start(store, tmp_path)
    wait_until(lambda: len(store.written) >= 3)
    (tmp_path / "heartbeat.json").write_text("later")
    mirror.close()
    assert store.inner.read("runs/run-1/attempts/1/heartbeat.json")[0] == b"later"
    assert store.inner.read("runs/run-1/attempts/1/log.txt")[0] == b"log.txt"
    assert store.written.count("runs/run-1/attempts/1/log.txt") == 1


def test_the_store_keeps_the_last_two_checkpoints(store, tmp_path):
    mirror, local = start(store, tmp_path), checkpoints(tmp_path)
    for epoch in range(1, 5):
        local.save(b"state %d" % epoch, epochs_completed=epoch, seconds=1.0, best=b"best %d" % epoch)
        mirror.checkpoint_saved()
        wait_until(
            lambda epoch=epoch: (
                (tmp_path / "store/runs/run-1/checkpoint/manifest.json").exists()
                and store.manifest().epochs_completed == epoch
            )
        )
    assert mirror.close()
    names = {info.key.rsplit("/", 1)[1][:10] for info in store.inner.list("runs/run-1/checkpoint/")}
    assert names == {"best-0003-", "best-0004-", "epoch-0003", "epoch-0004", "manifest.j"}


def test_a_store_that_does_not_answer_for_a_while_loses_nothing(store, tmp_path):
    store.broken.set()
    mirror, local = start(store, tmp_path), checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        local.save(b"state %d" % epoch, epochs_completed=epoch, seconds=1.0)
        mirror.checkpoint_saved()
    wait_until(lambda: any("did not take the checkpoint" in text for text in mirror.warnings))
    store.broken.clear()
    assert mirror.close()
    assert store.manifest().epochs_completed == 3


def test_a_store_that_never_answers_ends_in_bounded_time(store, tmp_path):
    store.broken.set()
    mirror = start(store, tmp_path)
    checkpoints(tmp_path).save(b"one", epochs_completed=1, seconds=1.0)
    begun = time.monotonic()
    assert not mirror.close(seconds=0.5)
    assert time.monotonic() - begun < PATIENCE_S


BEAT = {
    "run": "run-1", "attempt": 1, "time": 1.0, "pid": 1, "host": "h", "boot_id": "b", "epochs_completed": 1,
    "epochs": 9, "state": "interrupted", "message": "told to stop",
}  # fmt: skip


def test_a_denial_of_the_store_is_reported_and_ends_the_training_where_it_lasts(store, tmp_path):
    """Heartbeats still pass: the last one gives the reason to a driver without a connection."""
    store.error, store.only = StoreDeniedError, "checkpoint/"
    store.broken.set()
    mirror = start(store, tmp_path, limit_s=0.2)
    checkpoints(tmp_path).save(b"one", epochs_completed=1, seconds=1.0)
    mirror.checkpoint_saved()
    wait_until(lambda: mirror.stops)
    assert len(mirror.stops) == 1
    assert "the training stops at" in mirror.notes[0]
    (tmp_path / "heartbeat.json").write_text(json.dumps(BEAT))  # as a training that is told to stop
    assert not mirror.close(seconds=0.2)
    last = json.loads(store.inner.read("runs/run-1/attempts/1/heartbeat.json")[0])
    assert (last["state"], last["message"]) == ("failed", mirror.given_up)


def test_a_denial_that_passes_costs_nothing(store, tmp_path):
    store.error = StoreDeniedError
    store.broken.set()
    (tmp_path / "heartbeat.json").write_text(json.dumps(BEAT | {"state": "training"}))
    mirror = start(store, tmp_path, limit_s=PATIENCE_S)
    wait_until(lambda: mirror.notes)
    store.broken.clear()
    wait_until(lambda: mirror.notes[-1] == "")
    assert mirror.close()
    assert not mirror.stops


def test_a_store_that_only_does_not_answer_ends_no_training(store, tmp_path):
    store.broken.set()
    (tmp_path / "heartbeat.json").write_text(json.dumps(BEAT | {"state": "training"}))
    mirror = start(store, tmp_path, limit_s=0.0)
    wait_until(lambda: len(mirror.warnings) > 3)
    assert len(mirror.notes) == 1, "told once"
    assert not mirror.stops
    mirror.close(seconds=0.1)


def test_another_machine_goes_on_from_the_stores_checkpoint(store, tmp_path):
    first = start(store, tmp_path / "first")
    checkpoints(tmp_path / "first").save(b"four", epochs_completed=4, seconds=8.0, best=b"best")
    assert first.close()
    local = checkpoints(tmp_path / "second", attempt=2)
    local.save(b"older", epochs_completed=2, seconds=4.0)
    second = Mirror(store, spec(tmp_path / "second", attempt=2), warn=print, stop=print)
    second.fetch_checkpoint(local)
    found = local.load()
    assert found.last.read_bytes() == b"four"
    assert found.best.read_bytes() == b"best"
    assert found.manifest.seconds == 8.0


def test_a_local_checkpoint_that_is_further_stays(store, tmp_path):
    first = start(store, tmp_path / "first")
    checkpoints(tmp_path / "first").save(b"one", epochs_completed=1, seconds=1.0)
    assert first.close()
    local = checkpoints(tmp_path / "second")
    local.save(b"three", epochs_completed=3, seconds=3.0)
    Mirror(store, spec(tmp_path / "second"), warn=print, stop=print).fetch_checkpoint(local)
    assert local.load().last.read_bytes() == b"three"


def test_a_damaged_newest_checkpoint_in_the_store_yields_to_the_previous_one(store, tmp_path):
    mirror, local = start(store, tmp_path / "first"), checkpoints(tmp_path / "first")
    for epoch in (1, 2):
        local.save(b"state %d" % epoch, epochs_completed=epoch, seconds=1.0)
        mirror.checkpoint_saved()
        wait_until(lambda epoch=epoch: store.written.count("runs/run-1/checkpoint/manifest.json") == epoch)
    assert mirror.close()
    store.inner.put(f"runs/run-1/checkpoint/{store.manifest().last.name}", b"damaged")
    warnings = []
    other = checkpoints(tmp_path / "second")
    Mirror(store, spec(tmp_path / "second"), warn=warnings.append, stop=print).fetch_checkpoint(other)
    assert other.load().last.read_bytes() == b"state 1"
    assert any("was skipped" in text for text in warnings)


def test_a_zombie_does_not_overwrite_a_later_attempts_checkpoint(store, tmp_path):
    zombie = start(store, tmp_path / "zombie", attempt=1)
    later = start(store, tmp_path / "later", attempt=2)
    checkpoints(tmp_path / "later", attempt=2).save(b"later", epochs_completed=1, seconds=1.0)
    assert later.close()
    checkpoints(tmp_path / "zombie").save(b"zombie", epochs_completed=7, seconds=1.0)
    zombie.checkpoint_saved()
    wait_until(lambda: zombie.stops)
    zombie.close()
    assert "attempt 2 of run run-1 is under way" in zombie.superseded
    assert len(zombie.stops) == 1
    assert store.manifest().attempt == 2
    with pytest.raises(SupersededError):
        zombie.send_result()


@pytest.mark.parametrize("later", [2, 3])
def test_a_zombie_notices_a_later_attempts_heartbeat(store, tmp_path, later):
    """The second attempt may be in the journal alone, because no instance could be launched."""
    zombie = start(store, tmp_path, attempt=1)
    store.inner.put("runs/run-1/attempts/2.json", b"{}")
    store.inner.put(f"runs/run-1/attempts/{later}/heartbeat.json", b"{}")
    wait_until(lambda: zombie.stops)
    zombie.close()


def test_a_zombie_that_starts_late_does_not_start(store, tmp_path):
    later = start(store, tmp_path / "later", attempt=2)
    checkpoints(tmp_path / "later", attempt=2).save(b"later", epochs_completed=1, seconds=1.0)
    assert later.close()
    with pytest.raises(SupersededError):
        Mirror(store, spec(tmp_path / "zombie"), warn=print, stop=print).fetch_checkpoint(
            checkpoints(tmp_path / "zombie")
        )


def test_another_trainings_checkpoint_in_the_store_is_refused(store, tmp_path):
    mirror = start(store, tmp_path / "first")
    checkpoints(tmp_path / "first").save(b"one", epochs_completed=1, seconds=1.0)
    assert mirror.close()
    with pytest.raises(CheckpointMismatchError):
        Mirror(store, spec(tmp_path / "second", key="other"), warn=print, stop=print).fetch_checkpoint(
            checkpoints(tmp_path / "second", key="other")
        )


def test_a_checkpoint_cannot_be_downloaded_out_of_its_folder(store, tmp_path):
    mirror = start(store, tmp_path / "first")
    checkpoints(tmp_path / "first").save(b"one", epochs_completed=1, seconds=1.0)
    assert mirror.close()
    for info in list(store.inner.list("runs/run-1/checkpoint/")):
        if info.key.endswith(".json"):
            document = json.loads(store.inner.read(info.key)[0])
            document["last"]["name"] = "../../escaped.pt"
            store.inner.put(info.key, json.dumps(document).encode())
    other = checkpoints(tmp_path / "second")
    Mirror(store, spec(tmp_path / "second"), warn=lambda _: None, stop=print).fetch_checkpoint(other)
    assert other.load() is None


def test_the_results_document_is_written_after_its_files(store, tmp_path):
    mirror = start(store, tmp_path)
    staged(tmp_path)
    mirror.send_result()
    mirror.close()
    names = [key.rsplit("/", 1)[1] for key in store.written if "/result/" in key]
    assert names == ["model.pt", "results.csv", "result.json"]


def test_a_result_that_the_store_does_not_take_stays_whole_here(store, tmp_path):
    store.broken.set()
    mirror = start(store, tmp_path)
    staged(tmp_path)
    with pytest.raises(MirrorError, match="uploaded without training again"):
        mirror.send_result(seconds=0.3)
    mirror.close(seconds=0.2)
    assert (tmp_path / "result" / "model.pt").read_bytes() == b"model.pt"


def test_a_result_that_is_in_the_store_is_fetched_and_verified(store, tmp_path):
    mirror = start(store, tmp_path / "first")
    staged(tmp_path / "first")
    mirror.send_result()
    mirror.close()
    second = Mirror(store, spec(tmp_path / "second", attempt=2), warn=print, stop=print)
    assert second.fetch_result()
    assert (tmp_path / "second" / "result" / "model.pt").read_bytes() == b"model.pt"
    store.inner.put("runs/run-1/result/model.pt", b"xxxxx.pt")
    third = Mirror(store, spec(tmp_path / "third"), warn=print, stop=print)
    with pytest.raises(CorruptObjectError, match="sha256"):
        third.fetch_result()
    store.inner.put("runs/run-1/result/result.json", b"{}")
    with pytest.raises(CorruptObjectError, match=r"result\.json: is no result"):
        third.fetch_result()


def test_no_result_in_the_store_is_no_result(store, tmp_path):
    assert not Mirror(store, spec(tmp_path), warn=print, stop=print).fetch_result()
    assert not Path(tmp_path / "result").exists()


# ------------------------------------------------------------------- an output that is not what it seems


def test_what_a_training_links_to_is_not_sent(store, tmp_path):
    """Neither traces, nor checkpoints, nor a result lead to a file outside the output; and no process waits for a pipe."""
    secret = tmp_path / "environment"
    secret.write_text("AWS_SECRET_ACCESS_KEY=hush")
    output = tmp_path / "output"
    output.mkdir()
    (output / "log.txt").symlink_to(secret)
    os.mkfifo(output / "progress.jsonl")
    mirror = start(store, output)
    staged(output)
    (output / "result" / "model.pt").unlink()
    (output / "result" / "model.pt").symlink_to(secret)
    (output / "checkpoint").symlink_to(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(MirrorError, match="is not read"):
        mirror.send_result()
    mirror.close(seconds=0.3)
    assert store.written == []
    assert any("log.txt" in line and "is not read" in line for line in mirror.warnings)


@pytest.mark.parametrize("document", ["result/result.json", "checkpoint/manifest.json"])
def test_a_document_that_names_a_file_elsewhere_is_not_sent(store, tmp_path, document):
    mirror = start(store, tmp_path)
    checkpoints(tmp_path).save(b"one", epochs_completed=1, seconds=1.0)
    wait_until(lambda: sum("/checkpoint/" in key for key in store.written) == 3)  # the file and two manifests
    staged(tmp_path)
    store.written.clear()
    value = json.loads((tmp_path / document).read_text())
    value["model" if "model" in value else "last"]["name"] = "../../../models/v/model.pt"
    (tmp_path / document).write_text(json.dumps(value))
    mirror.checkpoint_saved()
    if document.startswith("result"):
        with pytest.raises(MirrorError, match="names files elsewhere"):
            mirror.send_result()
    mirror.close()
    assert not [key for key in store.written if "attempts" not in key]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_a_hard_link_to_another_users_file_is_not_read(tmp_path):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.write_text("hush")
    theirs.mkdir()
    os.chown(theirs, 64001, 64001)
    os.link(mine, theirs / "log.txt")
    with pytest.raises(regular_file.UnexpectedFileError, match="not of the user"):
        regular_file.read(theirs, "log.txt", limit=100)


def test_that_it_is_over_is_the_last_thing_that_is_sent(store, tmp_path):
    """A reader terminates the machine, and with it a checkpoint that is still being uploaded."""
    mirror = start(store, tmp_path)
    durable.write(
        tmp_path / "heartbeat.json", b'{"state": "interrupted"}'
    )  # never half, as a training writes it
    (tmp_path / "log.txt").write_text("saved\n")
    wait_until(lambda: "runs/run-1/attempts/1/log.txt" in store.written)
    checkpoints(tmp_path).save(b"one", epochs_completed=1, seconds=1.0)
    mirror.checkpoint_saved()
    assert mirror.close()
    assert store.written.index("runs/run-1/checkpoint/manifest.json") < store.written.index(
        "runs/run-1/attempts/1/heartbeat.json"
    )
