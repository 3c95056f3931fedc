"""The application's side: never a bad model, never a lost good one, and the folder that it keeps."""

import errno
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from client_case import body_of, client
from model_server import ModelServer

from gpu_offload.client import model_client
from gpu_offload.client.model_client import ModelClient, NoModelError

pytestmark = pytest.mark.simulator


def test_the_first_start_downloads_and_an_unchanged_model_costs_one_small_request(server, folder):
    body = server.publish("aaaa", semver="1.0.0")
    first = client(server, folder).get()
    assert (body_of(first), first.updated, first.semver, first.problem) == (body, True, "1.0.0", None)
    assert server.paths() == ["/aliases/stable.json", "/models/aaaa/model.pt"]

    server.requests.clear()
    second = client(server, folder).get()
    assert (second.path, second.updated) == (first.path, False)
    [request] = server.requests
    assert request.status == 304
    assert request.sent + request.received < 1000


def test_an_application_takes_an_export_and_passes_over_versions_without_it(server, folder):
    """Also in a folder that held the model in its own format before."""
    server.publish("aaaa", exports=["onnx"])
    client(server, folder).get()
    model = client(server, folder, export="onnx").get()
    assert (model.path.name, body_of(model)) == ("aaaa.onnx", b"aaaa as onnx")
    assert client(server, folder, export="onnx").get().updated is False
    server.publish("bbbb")
    assert client(server, folder, export="onnx").get().version == "aaaa"
    server.publish("cccc", exports=["onnx"])
    assert body_of(client(server, folder, export="onnx").get()) == b"cccc as onnx"
    server.publish("dddd", exports=["../../etc"])
    with pytest.raises(ValueError, match="export"):
        client(server, folder, export="../../etc")


def test_an_export_is_verified_as_the_model_is(server, folder):
    server.publish("aaaa", exports=["onnx"])
    server.files["/models/aaaa/model.onnx"] = b"aaaa as oNNx"
    with pytest.raises(NoModelError, match="sha256"):
        client(server, folder, export="onnx").get()


def test_within_the_interval_no_request_is_sent(server, folder):
    server.publish("aaaa")
    client(server, folder).get()
    server.requests.clear()
    server.publish("bbbb")
    assert client(server, folder, interval=3600).get().version == "aaaa"
    assert server.requests == []


def test_a_failed_look_counts_for_the_interval_as_well(server, folder):
    server.publish("aaaa")
    client(server, folder).get()
    server.status("stable.json", 503)
    assert "503" in client(server, folder, interval=0).get().problem
    server.requests.clear()
    assert client(server, folder, interval=3600).get().problem is None
    assert server.requests == []


def test_a_clock_that_was_set_back_does_not_stop_the_looking(server, folder):
    server.publish("aaaa")
    client(server, folder).get()
    state = folder / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"checked_at": 9e9}))
    server.publish("bbbb")
    assert client(server, folder, interval=3600).get().version == "bbbb"


def test_a_new_version_replaces_the_old_and_the_last_good_ones_are_kept(server, folder):
    for version in ("aaaa", "bbbb", "cccc", "dddd"):
        server.publish(version)
        assert client(server, folder, keep=2).get().version == version
    assert sorted(path.name for path in folder.glob("*.pt")) == ["cccc.pt", "dddd.pt"]


def test_the_model_of_before_is_kept_even_if_the_clock_was_set_back_or_the_folder_is_odd(
    server, folder, monkeypatch
):
    for version, now in (("aaaa", 2e9), ("bbbb", 2e9 + 9), ("cccc", 5.0), ("dddd", 9.0)):
        monkeypatch.setattr(model_client.time, "time", lambda now=now: now)
        server.publish(version)
        assert client(server, folder, keep=2).get().version == version
    assert sorted(path.name for path in folder.glob("*.pt")) == ["cccc.pt", "dddd.pt"]
    for at in ("yesterday", None, [1], 1e300):
        (folder / "aaaa.model.json").write_text(json.dumps({"downloaded_at": at}))
        assert client(server, folder).get().version == "dddd"


def test_an_alias_of_before_without_history_or_size_is_read(server, folder):
    body = server.publish("aaaa")
    sha256 = hashlib.sha256(body).hexdigest()
    server.document = {"format": 1, "name": "stable", "version": "aaaa", "sha256": sha256, "moved_at": 1.0}
    assert body_of(client(server, folder).get()) == body


def test_a_model_of_another_kind_keeps_its_suffix(server, folder):
    body = server.publish("aaaa", b"onnx" * 999)
    server.files["/models/aaaa/model.onnx"] = server.files.pop("/models/aaaa/model.pt")
    document = server.document
    document["file"] = document["history"][-1]["file"] = "model.onnx"
    server.document = document
    model = client(server, folder).get()
    assert (body_of(model), model.path.name) == (body, "aaaa.onnx")
    for version in ("bbbb", "cccc"):
        server.publish(version)
        client(server, folder, keep=1).get()
    assert sorted(p.name for p in folder.iterdir() if p.name[0] in "abc") == ["cccc.model.json", "cccc.pt"]


def test_progress_is_reported_up_to_the_end(server, folder):
    body = server.publish("aaaa", os.urandom(3 << 20))
    told = []
    client(server, folder, progress=lambda done, total: told.append((done, total))).get()
    assert told == sorted(told)
    assert told[-1] == (len(body), len(body))
    assert len(told) > 1


def test_the_file_works_as_a_copy_with_nothing_but_python(server, tmp_path):
    server.publish("aaaa")
    copy = tmp_path / "vendored.py"
    copy.write_bytes(Path(model_client.__file__).read_bytes())
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(copy), server.url, str(tmp_path / "models")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).read_bytes() == server.files["/models/aaaa/model.pt"]


@pytest.mark.process
def test_importing_it_imports_nothing_slow():
    slow = ["urllib.request", "http.client", "ssl", "hashlib", "socket", "xml", "typing", "dataclasses"]
    program = f"import sys; import model_client; print([m for m in {slow} if m in sys.modules])"
    environment = {"PYTHONPATH": str(Path(model_client.__file__).parent)}
    said = subprocess.check_output([sys.executable, "-S", "-c", program], env=environment, text=True)
    assert said.strip() == "[]"


def test_a_release_of_githubs_has_no_folders(server, folder):
    server.publish("aaaa")
    base = "/us/boards/releases/download/offload-models"
    server.files = {base + "/" + path[1:].replace("/", "-"): body for path, body in server.files.items()}
    assert ModelClient(server.url + base, folder).get().version == "aaaa"


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "facts", "state", "garbage"])
def test_what_was_damaged_on_the_disk_is_downloaded_again(server, folder, damage):
    body = server.publish("aaaa", os.urandom(10_000))
    path = client(server, folder).get().path
    facts = folder / "aaaa.model.json"
    if damage == "cut":
        path.write_bytes(body[:100])
    elif damage == "changed":
        path.write_bytes(os.urandom(10_000))
    elif damage == "gone":
        path.unlink()
    elif damage == "facts":
        facts.unlink()
    elif damage == "state":
        (folder / "state.json").write_text("{")
    else:
        facts.write_text("[1")
    assert body_of(client(server, folder, interval=3600).get()) == body


def test_a_copied_folder_is_verified_and_used_without_a_server(server, folder):
    body = server.publish("aaaa")
    path = client(server, folder).get().path
    os.utime(path, (1, 1))
    (folder / "state.json").unlink()
    model = ModelClient("http://127.0.0.1:9", folder).get()
    assert body_of(model) == body


def test_a_model_that_another_process_removes_while_it_is_verified_is_downloaded_again(
    server, folder, old, monkeypatch
):
    def removed(path):
        if path.suffix == ".pt":
            path.unlink()
        return sha256_of(path)

    sha256_of = model_client.sha256_of
    monkeypatch.setattr(model_client, "sha256_of", removed)
    os.utime(folder / "aaaa.pt", (1, 1))
    model = client(server, folder).get()
    assert (body_of(model), model.updated) == (old, True)


def test_a_folder_that_cannot_be_written_still_gives_its_model(server, folder, monkeypatch):
    body = server.publish("aaaa")
    client(server, folder).get()

    def full(*_):
        raise OSError(28, "No space left on device", "state.json")

    monkeypatch.setattr(model_client, "_replace", full)
    server.publish("bbbb")
    model = client(server, folder).get()
    assert body_of(model) == body
    assert "No space" in model.problem


@pytest.mark.root
@pytest.mark.process
def test_a_download_that_does_not_fit_leaves_room_and_blocks_no_smaller_model(server, small_disk):
    disk, spoil = small_disk
    folder = disk / "models"
    server.publish("aaaa")
    client(server, folder).get()
    server.publish("bbbb", os.urandom(3 << 20))
    assert "No space" in client(server, folder).get().problem
    assert list(folder.glob(".*.part")) == []
    server.publish("cccc")
    assert client(server, folder).get().version == "cccc"
    state = folder / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"checked_at": 0}))
    spoil("full")
    server.publish("dddd")
    application = client(server, folder, interval=3600)
    server.requests.clear()
    assert {application.get().version for _ in range(3)} == {"cccc"}
    assert server.paths() == ["/aliases/stable.json"], (
        "it looks once in an interval, although it cannot note it"
    )
    spoil("read-only")
    assert client(server, folder).get().version == "cccc"


def test_a_file_system_without_locks_is_an_error_and_no_endless_wait(server, folder, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    server.publish("aaaa")
    with pytest.raises(NoModelError, match="No locks"):
        client(server, folder).get()


def test_another_server_is_not_served_from_the_first_ones_state(server, folder):
    server.publish("aaaa")
    client(server, folder).get()
    with ModelServer() as other:
        other.publish("bbbb")
        assert client(other, folder, interval=3600).get().version == "bbbb"


def test_many_processes_share_a_folder_and_download_once(server, folder):
    body = server.publish("aaaa", os.urandom(1 << 20))
    program = (
        "import sys; from model_client import ModelClient;"
        "m = ModelClient(sys.argv[1], sys.argv[2], interval=3600).get(); print(m.sha256)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(model_client.__file__).parent)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, server.url, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(6)
    ]
    said = {process.communicate(timeout=60)[0].strip() for process in started}
    assert said == {hashlib.sha256(body).hexdigest()}
    assert server.paths().count("/models/aaaa/model.pt") == 1


def test_a_process_that_finds_another_looking_uses_what_is_there(server, folder):
    server.publish("aaaa")
    client(server, folder).get()
    server.publish("bbbb")
    with client(server, folder)._locked(wait=True):
        assert client(server, folder).get().version == "aaaa"
    assert client(server, folder).get().version == "bbbb"
