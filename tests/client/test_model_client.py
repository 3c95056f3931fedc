"""The application's side: never a bad model, never a lost good one, whatever the server does."""

import contextlib
import datetime as dt
import gzip
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_server import ModelServer

from gpu_offload.client import model_client
from gpu_offload.client.model_client import (
    ModelClient,
    NoModelError,
    TransferError,
    Web,
    check_redirect,
    choose,
)

pytestmark = pytest.mark.simulator


@pytest.fixture
def server():
    with ModelServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "models"


def client(server, folder, **more):
    return ModelClient(server.url, folder, **({"interval": 0, "pause": 0.001, "timeout": 5} | more))


def body_of(model):
    return model.path.read_bytes()


# ------------------------------------------------------------------------------------------ the usual


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


def test_within_the_interval_nothing_is_asked(server, folder):
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


def test_progress_is_told_and_reaches_the_end(server, folder):
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


# ------------------------------------------------------------------------------------- a bad server


def test_offline_the_model_of_before_stays(server, folder):
    body = server.publish("aaaa")
    client(server, folder).get()
    model = ModelClient("http://127.0.0.1:9", folder, interval=0).get()
    assert body_of(model) == body
    assert "no answer" in model.problem


@pytest.mark.parametrize("status", [403, 404, 410, 429, 500, 502, 503])
@pytest.mark.parametrize("what", ["stable.json", "model.pt"])
def test_an_error_of_the_server_keeps_the_model_of_before(server, folder, status, what):
    old = server.publish("aaaa")
    client(server, folder).get()
    server.publish("bbbb")
    server.status(what, status)
    model = client(server, folder).get()
    assert body_of(model) == old
    assert str(status) in model.problem


@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_error_that_passes_is_tried_again(server, folder, status):
    body = server.publish("aaaa")
    server.status("stable.json", status, times=1)
    server.status("model.pt", status, times=2)
    assert body_of(client(server, folder).get()) == body


@pytest.mark.parametrize("status", [403, 404])
def test_an_error_that_does_not_pass_is_not_tried_again(server, folder, status):
    server.publish("aaaa")
    server.status("stable.json", status)
    with pytest.raises(NoModelError, match=str(status)):
        client(server, folder).get()
    assert len(server.requests) == 1


def test_a_download_that_breaks_off_is_resumed(server, folder):
    body = server.publish("aaaa", os.urandom(100_000))
    server.cut("model.pt", 30_000, times=3)
    assert body_of(client(server, folder, tries=2).get()) == body
    ranges = [r.headers.get("Range") for r in server.requests if r.path.endswith("model.pt")]
    assert ranges == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]


def test_a_download_is_resumed_by_the_next_start(server, folder):
    body = server.publish("aaaa", os.urandom(100_000))
    server.cut("model.pt", 30_000)
    with pytest.raises(NoModelError):
        client(server, folder, tries=1).get()
    assert not list(folder.glob("*.pt"))
    server.requests.clear()
    assert body_of(client(server, folder).get()) == body
    assert server.requests[-1].headers["Range"] == "bytes=30000-"


def test_a_server_without_ranges_is_begun_again(server, folder):
    body = server.publish("aaaa", os.urandom(100_000))
    server.has_ranges = False
    server.cut("model.pt", 30_000)
    assert body_of(client(server, folder).get()) == body


def test_a_server_that_stalls_is_left_and_resumed(server, folder):
    body = server.publish("aaaa", os.urandom(100_000))
    over = threading.Event()
    server.stall("model.pt", 30_000, over)
    try:
        assert body_of(client(server, folder, timeout=0.2).get()) == body
    finally:
        over.set()
    assert server.requests[-1].headers["Range"] == "bytes=30000-"


def test_a_server_that_never_answers_keeps_the_model_of_before(server, folder):
    body = server.publish("aaaa")
    client(server, folder).get()
    over = threading.Event()
    server.fault("stable.json", lambda *_: over.wait(30))
    try:
        model = client(server, folder, timeout=0.2).get()
    finally:
        over.set()
    assert body_of(model) == body
    assert model.problem


@pytest.mark.parametrize("what", ["stable.json", "model.pt"])
def test_a_server_that_sends_a_byte_now_and_then_is_left(server, folder, what):
    """No single read times out, so that without this an application would wait for days."""
    old = server.publish("aaaa")
    client(server, folder).get()
    new = server.publish("bbbb", os.urandom(100_000))
    over = threading.Event()

    def drip(handler, request):
        body = server.files[request.path]
        handler.answer(200, b"", Content_Length=str(len(body)))
        with contextlib.suppress(OSError):
            for byte in body:
                handler.wfile.write(bytes([byte]))
                if over.wait(0.05):
                    break

    server.fault(what, drip)
    try:
        model = client(server, folder, timeout=0.3, tries=1).get()
    finally:
        over.set()
    assert body_of(model) == old
    assert "bytes a second" in model.problem
    assert body_of(client(server, folder).get()) == new


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b""], ids=["header", "continue"])
def test_a_head_of_a_reply_that_never_ends_keeps_the_model_of_before(server, folder, head):
    """A byte of a header now and then, or one `100 Continue` after the other: no single read times out."""
    old = server.publish("aaaa")
    client(server, folder).get()
    over = threading.Event()

    def drip(handler, _request):
        handler.wfile.write(head)
        with contextlib.suppress(OSError):
            while not over.wait(0.05):
                handler.wfile.write(b"x" if head else b"HTTP/1.1 100 Continue\r\n\r\n")

    server.fault("stable.json", drip)
    threading.Timer(10, over.set).start()
    try:
        model = client(server, folder, timeout=0.3).get()
        assert not over.is_set()
    finally:
        over.set()
    assert body_of(model) == old
    assert "bytes a second" in model.problem


@pytest.mark.parametrize("what", ["stable.json", "model.pt"])
def test_what_comes_compressed_although_nobody_asked_keeps_the_model_of_before(server, folder, what):
    old = server.publish("aaaa")
    client(server, folder).get()
    server.publish("bbbb", os.urandom(10_000))

    def compressed(handler, request):
        handler.answer(200, gzip.compress(server.files[request.path]), Content_Encoding="gzip")

    server.fault(what, compressed, times=9)
    model = client(server, folder, tries=1).get()
    assert body_of(model) == old
    assert model.problem


def test_patience_ends_a_slow_download_and_the_next_start_carries_on(server, folder):
    old = server.publish("aaaa")
    client(server, folder).get()
    new = server.publish("bbbb", os.urandom(100_000))
    over = threading.Event()
    server.stall("model.pt", 30_000, over)
    try:
        model = client(server, folder, patience=0.3, timeout=30).get()
    finally:
        over.set()
    assert body_of(model) == old
    assert body_of(client(server, folder).get()) == new
    assert server.requests[-1].headers["Range"] == "bytes=30000-"


@pytest.mark.parametrize("off", [-10_000, 10_000])
def test_a_server_that_misstates_the_length_gives_no_bad_model(server, folder, off):
    body = server.publish("aaaa", os.urandom(100_000))
    server.length("model.pt", len(body) + off, times=1)
    assert body_of(client(server, folder).get()) == body


def test_a_server_that_always_misstates_the_length_keeps_the_model_of_before(server, folder):
    old = server.publish("aaaa")
    client(server, folder).get()
    new = server.publish("bbbb", os.urandom(100_000))
    server.has_ranges = False
    server.length("model.pt", len(new) - 1, times=100)
    assert body_of(client(server, folder).get()) == old


def test_a_model_that_changes_in_mid_download_is_not_mixed(server, folder):
    """The part is of another object than the rest: the hash finds it, and the download begins again."""
    body = server.publish("aaaa", os.urandom(100_000))
    server.files["/models/aaaa/model.pt"] = os.urandom(100_000)
    server.cut("model.pt", 30_000)

    def restore(handler, request):
        server.files["/models/aaaa/model.pt"] = body
        return False

    server.faults.append(
        lambda handler, request: bool(request.headers.get("Range")) and restore(handler, request)
    )
    assert body_of(client(server, folder).get()) == body


@pytest.mark.parametrize("bad", [b"", b"short", os.urandom(100_000), os.urandom(200_000)])
def test_a_model_that_is_not_the_promised_one_is_never_used(server, folder, bad):
    old = server.publish("aaaa")
    client(server, folder).get()
    server.publish("bbbb", os.urandom(100_000))
    server.files["/models/bbbb/model.pt"] = bad
    model = client(server, folder, tries=2).get()
    assert body_of(model) == old
    assert model.problem
    assert [path.name for path in folder.glob("*.pt")] == ["aaaa.pt"]


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"<html>sign in to this hotel's network</html>",
        b"{}",
        b'{"version": "../../etc/passwd", "sha256": "x", "size": 1}',
        b'{"version": "a/b", "sha256": null}',
        b'{"version": ".hidden"}',
        b'{"version": "bbbb", "sha256": "zz", "size": 5}',
        b'{"version": "cccc", "history": 5}',
        b'{"version": "cccc", "yanked": 5, "minimum": 7, "rollout": "x"}',
        b"[" * 100_000,
        b'{"version": "cccc", "yanked": {}, "x": ' + b"[" * 900 + b"]" * 900 + b"}",
        b"\xff\xfe\x00",
        *(
            b'{"version": "bbbb", "sha256": null, "rollout": %s}' % share
            for share in (b"1" + b"0" * 400, b"-1", b"1e999", b"NaN", b'"x"', b"[]", b"1" * 5000)
        ),
    ],
)
def test_a_document_that_is_none_keeps_the_model_of_before(server, folder, document):
    old = server.publish("aaaa")
    client(server, folder).get()
    server.files["/aliases/stable.json"] = document
    model = client(server, folder, tries=1).get()
    assert body_of(model) == old
    assert model.problem
    # and what is right again is taken again
    server.document = {}
    new = server.publish("dddd")
    assert body_of(client(server, folder).get()) == new


@pytest.mark.parametrize("model", ["x", [1], 5, None, {}, {"sha256": 5}, {"sha256": "0" * 64, "size": "x"}])
def test_a_manifest_that_is_none_keeps_the_model_of_before(server, folder, model):
    old = server.publish("aaaa")
    client(server, folder).get()
    server.publish("bbbb")
    server.document = {"version": "bbbb"}
    server.files["/models/bbbb/manifest.json"] = json.dumps({"model": model}).encode()
    found = client(server, folder, tries=1).get()
    assert body_of(found) == old
    assert found.problem


def test_a_manifest_does_not_rename_the_version_that_was_asked_for(server, folder):
    body = server.publish("aaaa")
    server.document = {"version": "aaaa", "semver": "1.0.0"}
    manifest = json.loads(server.files["/models/aaaa/manifest.json"])
    manifest["model"] |= {"version": "bbbb", "semver": "9.0.0"}
    server.files["/models/aaaa/manifest.json"] = json.dumps(manifest).encode()
    model = client(server, folder).get()
    assert (model.version, model.semver, body_of(model)) == ("aaaa", "1.0.0", body)


@pytest.mark.parametrize("versions", [5, "x", {"a": 1}, True, None, [5, None, "x", [], {"version": 5}]])
def test_an_index_that_is_none_keeps_the_model_of_before(server, folder, versions):
    old = server.publish("aaaa", semver="1.0.0")
    client(server, folder, pin="1").get()
    server.document = {"version": "cccc", "semver": "2.0.0", "sha256": "0" * 64, "size": 1}
    server.files["/index.json"] = json.dumps({"versions": versions}).encode()
    model = client(server, folder, pin="1", tries=1).get()
    assert body_of(model) == old
    assert model.problem


NO_NUMBERS = ["\u00b2", "1" * 5000, "-1", "x", ""]


@pytest.mark.parametrize("length", NO_NUMBERS)
@pytest.mark.parametrize("what", ["stable.json", "model.pt"])
def test_a_length_that_is_no_number_keeps_a_good_model(server, folder, what, length):
    """A document of unknown length is not used; a model has its sha256."""
    old = server.publish("aaaa")
    client(server, folder).get()
    new = server.publish("bbbb")
    server.length(what, length, times=9)
    model = client(server, folder, tries=1).get()
    assert body_of(model) == (old if what == "stable.json" else new)
    assert bool(model.problem) is (what == "stable.json")


@pytest.mark.parametrize("start", NO_NUMBERS)
def test_a_range_that_is_no_number_keeps_the_model_of_before(server, folder, start):
    old = server.publish("aaaa")
    client(server, folder).get()
    server.publish("bbbb", os.urandom(10_000))
    server.cut("model.pt", 3_000)
    server.status("model.pt", 206, Content_Range=f"bytes {start}-9999/10000")
    model = client(server, folder, tries=2).get()
    assert body_of(model) == old
    assert "range" in model.problem


@pytest.mark.parametrize("fault", [TypeError, KeyError, OverflowError, RecursionError, ValueError])
def test_an_answer_of_an_unforeseen_form_keeps_the_model_of_before(server, folder, fault, monkeypatch):
    old = server.publish("aaaa")
    client(server, folder).get()
    new = server.publish("bbbb")

    def fails(*_):
        raise fault("unforeseen")

    with monkeypatch.context() as patch:
        patch.setattr(model_client, "is_alias", fails)
        model = client(server, folder).get()
    assert body_of(model) == old
    assert "unforeseen" in model.problem
    assert body_of(client(server, folder).get()) == new


def test_an_endless_document_is_not_read_to_its_end(server, folder):
    server.files["/aliases/stable.json"] = b" " * (5 << 20)
    with pytest.raises(NoModelError, match="larger"):
        client(server, folder).get()


def test_a_model_larger_than_allowed_is_not_downloaded(server, folder):
    server.publish("aaaa", b"x" * 10_000)
    with pytest.raises(NoModelError, match="more than"):
        client(server, folder, largest=9_999).get()
    assert server.paths() == ["/aliases/stable.json"]


@pytest.mark.parametrize(
    ("version", "file"),
    [
        ("state", "model.json"),
        ("STATE", "model.JSON"),
        ("installation", "model"),
        ("aaaa.pt", "model"),
        ("aaaa.model", "model.json"),
    ],
)
def test_no_version_replaces_what_another_or_the_client_itself_keeps(server, folder, version, file):
    """The path that was returned for the first version would hold other bytes, or the client's state be a model."""
    old = server.publish("aaaa")
    first = client(server, folder).get()
    body = os.urandom(100)
    server.files[f"/models/{version}/{file}"] = body
    alias = {"version": version, "file": file, "size": 100, "sha256": hashlib.sha256(body).hexdigest()}
    server.files["/aliases/stable.json"] = json.dumps(alias).encode()
    model = client(server, folder).get()
    assert model.path == first.path
    assert body_of(model) == old
    assert "named as another" in model.problem
    assert client(server, folder, interval=60).get().path == first.path


# --------------------------------------------------------------------------------------- redirects


@pytest.mark.parametrize(
    "target",
    [
        "http://example.org/stable.json",
        "https://10.0.0.1/stable.json",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00::1]/x",
        "https://[::ffff:10.0.0.1]/x",
        "https://user:word@example.org/x",
        "file:///etc/passwd",
        "ftp://example.org/x",
    ],
)
def test_a_redirect_away_from_https_or_to_a_private_address_is_refused(server, folder, target):
    old = server.publish("aaaa")
    client(server, folder).get()
    server.status("stable.json", 302, Location=target)
    model = client(server, folder).get()
    assert body_of(model) == old
    assert model.problem


def test_a_redirect_on_this_machine_is_followed_and_a_circle_ended(server, folder):
    body = server.publish("aaaa")
    server.files["/elsewhere"] = body
    server.status("model.pt", 302, times=1, Location="/elsewhere")
    assert body_of(client(server, folder).get()) == body
    server.status("stable.json", 302, Location="/aliases/stable.json")
    assert client(server, folder).get().problem


def test_the_body_of_a_redirect_is_not_read(server, folder):
    """It could be endless, and urllib would keep all of it in memory."""
    body = server.publish("aaaa")
    server.files["/elsewhere"] = body
    sent = []

    def endless(handler, _request):
        handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
        with contextlib.suppress(OSError):
            while len(sent) < 1_000:
                handler.wfile.write(bytes(1 << 16))
                sent.append(1)

    server.fault("model.pt", endless)
    assert body_of(client(server, folder).get()) == body
    assert len(sent) < 1_000


def test_a_public_address_does_not_redirect_into_a_private_network(monkeypatch):
    names = {
        "cdn.example.org": "93.184.216.34",
        "inside.example.org": "192.168.1.1",
        "metadata": "169.254.169.254",
    }
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *_, **__: [(2, 1, 6, "", (names[host], 443))])
    assert check_redirect("https://models.example.org/a", "https://cdn.example.org/a")
    assert not check_redirect("https://inside.example.org/a", "https://inside.example.org/b")
    for target in ("https://inside.example.org/a", "https://metadata/a", "http://cdn.example.org/a"):
        with pytest.raises(TransferError):
            check_redirect("https://models.example.org/a", target)


@pytest.mark.simulator
def test_a_name_that_is_public_when_it_is_judged_and_private_when_it_is_asked_is_not_asked(
    tmp_path, folder, monkeypatch
):
    """What decides is the address of the connection, whatever the name meant before."""
    context, authority = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    resolve, looks = socket.getaddrinfo, []

    def rebound(host, port, *args, **options):
        if host != "localhost":
            return resolve(host, port, *args, **options)
        looks.append(port)
        return resolve("93.184.216.34" if len(looks) == 1 else "127.0.0.1", port, *args, **options)

    with ModelServer(context) as server, ModelServer(context) as private:
        server.publish("aaaa")
        private.files = dict(server.files)
        monkeypatch.setattr("socket.getaddrinfo", rebound)
        monkeypatch.setattr("gpu_offload.client.model_client._is_loopback", lambda _: False)
        target = private.url.replace("127.0.0.1", "localhost")
        server.status("model.pt", 302, Location=f"{target}/models/aaaa/model.pt")
        with pytest.raises(NoModelError, match="private address"):
            client(server, folder, tries=1).get()
        assert len(looks) == 2
        assert private.requests == []


@pytest.mark.simulator
def test_https_is_verified_and_never_left(tmp_path, folder, monkeypatch):
    context, authority = certificate(tmp_path)
    with ModelServer(context) as secure, ModelServer() as plain:
        body = secure.publish("aaaa")
        plain.files = dict(secure.files)
        with pytest.raises(NoModelError, match=r"(?i)certificate"):
            client(secure, folder).get()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert body_of(client(secure, folder).get()) == body
        secure.status("stable.json", 302, Location=f"{plain.url}/aliases/stable.json")
        assert "not https" in client(secure, folder).get().problem
        assert plain.requests == []


def certificate(tmp_path):
    import ssl

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    import ipaddress

    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "ftp://example.org",
        "file:///x",
        "example.org",
        "https://",
        "https://u:p@example.org",
    ],
)
def test_an_address_that_is_not_https_is_refused_at_once(url, tmp_path):
    with pytest.raises(ValueError, match="https://"):
        ModelClient(url, tmp_path)


# ---------------------------------------------------------------------------------------- the folder


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


# --------------------------------------------------------------------- yanks, pins, minimum, rollout


def test_a_yanked_version_is_left_for_the_one_before(server, folder):
    good = server.publish("aaaa", semver="1.0.0")
    server.publish("bbbb", semver="1.1.0")
    client(server, folder).get()
    server.document = server.document | {"yanked": {"bbbb": "sees keys everywhere"}}
    assert body_of(client(server, folder).get()) == good


def test_a_yanked_version_is_not_used_even_if_no_other_can_be_had(server, folder):
    server.publish("aaaa")
    server.publish("bbbb")
    client(server, folder).get()
    server.document = server.document | {"yanked": {"bbbb": "bad"}}
    server.status("aaaa/model.pt", 503)
    with pytest.raises(NoModelError):
        client(server, folder, tries=1).get()


def test_a_yanked_version_does_not_come_back_offline(server, folder):
    server.publish("aaaa")
    client(server, folder, keep=3).get()
    server.publish("bbbb")
    client(server, folder, keep=3).get()
    server.publish("cccc", yanked={"bbbb": "bad"})
    client(server, folder, keep=3).get()
    (folder / "cccc.pt").unlink()
    server.status("", 503)
    assert client(server, folder, tries=1).get().version == "aaaa"


@pytest.mark.parametrize(
    ("pin", "expected"),
    [("1", "bbbb"), ("1.0", "aaaa"), ("1.0.0", "aaaa"), ("v1.1.0", "bbbb"), ("2", "cccc"), ("aaaa", "aaaa")],
)
def test_a_pin_stays_on_a_version_or_in_a_line(server, folder, pin, expected):
    for version, semver in (("aaaa", "1.0.0"), ("bbbb", "1.1.0"), ("cccc", "2.0.0")):
        server.publish(version, semver=semver)
    assert client(server, folder, pin=pin).get().version == expected


def test_an_exact_pin_holds_although_the_version_is_yanked_and_a_line_does_not(server, folder):
    server.publish("aaaa", semver="1.0.0")
    server.publish("bbbb", semver="1.1.0", yanked={"bbbb": "bad"})
    assert client(server, folder, pin="1.1.0").get().version == "bbbb"
    assert client(server, folder, pin="1").get().version == "aaaa"


def test_a_candidate_is_pinned_by_the_index(server, folder):
    body = server.publish("cccc")
    facts = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}
    server.files["/index.json"] = json.dumps(
        {"versions": [{"version": "cccc", "semver": "1.2.0", **facts}]}
    ).encode()
    del server.files["/aliases/stable.json"]
    assert client(server, folder, pin="1.2.0").get().version == "cccc"
    server.requests.clear()
    assert client(server, folder, pin="1.2.0").get().version == "cccc"
    assert server.paths() == ["/aliases/stable.json"]


def test_an_unknown_pin_is_an_error_that_names_it(server, folder):
    server.publish("aaaa", semver="1.0.0")
    server.files["/index.json"] = b'{"versions": []}'
    with pytest.raises(NoModelError, match=r"pinned to 9\.9\.9"):
        client(server, folder, pin="9.9.9").get()


def test_the_lowest_version_that_an_application_works_with_is_held(server, folder):
    server.publish("aaaa", semver="1.0.0")
    newer = server.publish("bbbb", semver="1.1.0")
    server.publish("aaaa", semver="1.0.0")  # rolled back
    assert body_of(client(server, folder, minimum="1.1.0").get()) == newer
    with pytest.raises(NoModelError, match=r"at least 2\.0\.0"):
        client(server, folder, minimum="2.0.0").get()


def test_the_publisher_can_end_old_versions(server, folder):
    server.publish("aaaa", semver="1.0.0")
    client(server, folder).get()
    server.publish("bbbb", semver="1.1.0", minimum="1.1.0")
    server.status("bbbb/model.pt", 503)
    with pytest.raises(NoModelError):
        client(server, folder, tries=1).get()


def test_a_rollout_reaches_its_share_of_installations_and_never_takes_it_back(server, folder):
    server.publish("aaaa")
    server.publish("bbbb", rollout=0.3)

    def reached(document):
        share_of = lambda name: lambda version: _share(name, version)  # noqa: E731
        return {n for n in range(1000) if choose(document, share_of=share_of(n)).version == "bbbb"}

    def _share(name, version):
        return ModelClient(server.url, folder, installation=str(name))._share_of(version)

    third = reached(server.document)
    assert 250 < len(third) < 350
    wider = server.document | {"rollout": 0.6}
    wider["history"][-1]["rollout"] = 0.6
    assert third < reached(wider)
    assert len(reached(wider | {"rollout": 1.0})) == 1000


def test_an_installation_is_the_same_at_every_start(server, folder):
    server.publish("aaaa")
    server.publish("bbbb", rollout=0.5)
    first = client(server, folder).get().version
    assert {client(server, folder).get().version for _ in range(5)} == {first}
    assert (folder / "installation").is_file()


VERSIONS = st.sampled_from(["aaaa", "bbbb", "cccc", "dddd"])
ENTRY = st.fixed_dictionaries(
    {"version": VERSIONS, "sha256": st.just("0" * 64), "size": st.just(1)},
    optional={
        "semver": st.sampled_from(["1.0.0", "1.1.0", "2.0.0"]),
        "rollout": st.floats(0, 1),
    },
)


@given(
    st.lists(ENTRY, min_size=1, max_size=6),
    st.sets(VERSIONS),
    st.sampled_from([None, "1", "1.1", "2.0.0", "aaaa"]),
    st.sampled_from([None, "1.1.0"]),
    st.floats(0, 1, exclude_max=True),
)
def test_what_is_chosen_is_always_allowed(history, yanked, pin, minimum, share):
    document = {**history[-1], "history": history, "yanked": dict.fromkeys(yanked, "why")}
    chosen = choose(document, pin, minimum, lambda _: share)
    if chosen is None:
        return
    exact = pin in {chosen.version, chosen.semver}
    assert exact or chosen.version not in yanked
    assert exact or minimum is None or (chosen.semver or "") >= minimum
    assert exact or pin is None or (chosen.semver or "").startswith(pin)
    assert pin is not None or chosen.share == 1.0 or share < chosen.share


# -------------------------------------------------------------------------------------- a listing


def listing(server, objects, page=2):
    """Serve a bucket's listing, `page` objects at a time; objects are (key, date, body)."""
    for key, _, body in objects:
        server.files[f"/{key}"] = body

    def serve(handler, request):
        if "list-type" not in request.query:
            return False
        prefix = request.query.get("prefix", [""])[0]
        found = [o for o in objects if o[0].startswith(prefix)]
        start = int(request.query.get("continuation-token", ["0"])[0])
        shown = found[start : start + page]
        more = start + page < len(found)
        rows = "".join(
            f"<Contents><Key>{key}</Key><LastModified>{date}</LastModified>"
            f"<ETag>&quot;{hashlib.md5(server.files[f'/{key}']).hexdigest()}&quot;</ETag><Size>{len(body)}</Size></Contents>"
            for key, date, body in shown
        )
        token = f"<NextContinuationToken>{start + page}</NextContinuationToken>" if more else ""
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{rows}{token}</ListBucketResult>"
        )
        handler.answer(200, text.encode())
        return True

    server.faults.append(serve)


def test_the_newest_of_a_listing_is_taken_from_whatever_page_it_is_on(server, folder):
    objects = [(f"v{n}.pt", f"2026-01-{n:02}T00:00:00.000Z", b"%d" % n * 999) for n in (3, 9, 1, 4, 5)]
    objects.append(("notes.txt", "2027-01-01T00:00:00.000Z", b"no model"))
    listing(server, objects)
    model = client(server, folder, listing=True).get()
    assert body_of(model) == b"9" * 999
    server.requests.clear()
    assert client(server, folder, listing=True).get().updated is False
    assert [r.path for r in server.requests] == ["/", "/", "/"]


def test_an_object_of_a_listing_that_changes_in_mid_download_is_not_mixed(server, folder):
    first, second = os.urandom(50_000), os.urandom(50_000)
    objects = [("model.pt", "2026-01-01T00:00:00.000Z", first)]
    listing(server, objects)
    server.cut("/model.pt", 10_000)

    def change(handler, request):
        if request.headers.get("Range"):
            server.files["/model.pt"] = second
        return False

    server.faults.append(change)
    with pytest.raises(NoModelError):
        client(server, folder, listing=True).get()
    assert body_of(client(server, folder, listing=True).get()) == second


@pytest.mark.parametrize(
    "text", [b"<html>", b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", b"<ListBucketResult/>", b""]
)
def test_what_is_no_listing_is_an_error(server, folder, text):
    server.fault("/", lambda handler, _: handler.answer(200, text), times=9)
    with pytest.raises(NoModelError):
        client(server, folder, listing=True).get()


@pytest.mark.parametrize("size", NO_NUMBERS)
def test_a_size_in_a_listing_that_is_no_number_keeps_the_model_of_before(server, folder, size):
    listing(server, [("a.pt", "2026-01-01T00:00:00.000Z", b"a" * 99)])
    client(server, folder, listing=True).get()
    text = f"<ListBucketResult><Contents><Key>b.pt</Key><Size>{size}</Size></Contents></ListBucketResult>"
    server.faults.clear()
    server.fault("/", lambda handler, _: handler.answer(200, text.encode()))
    model = client(server, folder, listing=True, tries=1).get()
    assert body_of(model) == b"a" * 99
    assert "size" in model.problem


def test_a_download_by_itself_says_what_is_wrong(server, tmp_path):
    server.files["/x"] = b"abc"
    target = tmp_path / "x"
    target.write_bytes(b"old")
    with pytest.raises(TransferError, match="sha256"):
        Web().download(f"{server.url}/x", target, size=3, sha256="0" * 64)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert Web().download(f"{server.url}/x", target) == hashlib.sha256(b"abc").hexdigest()
