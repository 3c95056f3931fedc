"""Whatever a server answers, the application keeps its last good model."""

import contextlib
import gzip
import hashlib
import json
import os

import pytest
from client_case import NO_NUMBERS, body_of, client, kept

from gpu_offload.client import model_client
from gpu_offload.client.model_client import ModelClient, NoModelError

pytestmark = pytest.mark.simulator


def test_offline_the_model_of_before_stays(server, folder):
    body = server.publish("aaaa")
    client(server, folder).get()
    model = ModelClient("http://127.0.0.1:9", folder, interval=0).get()
    assert body_of(model) == body
    assert "no answer" in model.problem


@pytest.mark.parametrize("status", [403, 404, 410, 429, 500, 502, 503])
@pytest.mark.parametrize("what", ["stable.json", "model.pt"])
def test_an_error_of_the_server_keeps_the_model_of_before(server, folder, old, status, what):
    server.publish("bbbb")
    server.status(what, status)
    model = client(server, folder).get()
    assert str(status) in kept(model, old)


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
    server.stall("model.pt", 30_000)
    assert body_of(client(server, folder, timeout=0.5).get()) == body
    assert server.requests[-1].headers["Range"] == "bytes=30000-"


def test_a_server_that_never_answers_keeps_the_model_of_before(server, folder):
    body = server.publish("aaaa")
    client(server, folder).get()
    server.fault("stable.json", lambda *_: server.over.wait(30))
    model = client(server, folder, timeout=0.5).get()
    assert body_of(model) == body
    assert model.problem


@pytest.mark.parametrize("what", ["stable.json", "model.pt"])
def test_a_server_that_sends_a_byte_now_and_then_is_left(server, folder, old, what):
    """No single read times out, so that without this an application would wait for days."""
    new = server.publish("bbbb", os.urandom(100_000))

    def drip(handler, request):
        body = server.files[request.path]
        handler.answer(200, b"", Content_Length=str(len(body)))
        with contextlib.suppress(OSError):
            for byte in body:
                handler.wfile.write(bytes([byte]))
                if server.over.wait(0.05):
                    break

    server.fault(what, drip)
    model = client(server, folder, timeout=1, tries=1).get()
    assert "bytes a second" in kept(model, old)
    assert body_of(client(server, folder).get()) == new


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b""], ids=["header", "continue"])
def test_a_head_of_a_reply_that_never_ends_keeps_the_model_of_before(server, folder, old, head):
    """A byte of a header now and then, or one `100 Continue` after the other: no single read times out."""

    def drip(handler, _request):
        handler.wfile.write(head)
        with contextlib.suppress(OSError):
            for _ in range(1_200):
                if server.over.wait(0.05):
                    return
                handler.wfile.write(b"x" if head else b"HTTP/1.1 100 Continue\r\n\r\n")
            server.over.set()

    server.fault("stable.json", drip)
    model = client(server, folder, timeout=1, tries=1).get()
    assert not server.over.is_set()
    assert "bytes a second" in kept(model, old)


@pytest.mark.parametrize("what", ["stable.json", "model.pt"])
def test_an_unrequested_compression_keeps_the_previous_model(server, folder, old, what):
    server.publish("bbbb", os.urandom(10_000))

    def compressed(handler, request):
        handler.answer(200, gzip.compress(server.files[request.path]), Content_Encoding="gzip")

    server.fault(what, compressed, times=9)
    model = client(server, folder, tries=1).get()
    assert kept(model, old)


def test_patience_ends_a_slow_download_and_the_next_start_carries_on(server, folder, old):
    new = server.publish("bbbb", os.urandom(100_000))
    server.stall("model.pt", 30_000)
    model = client(server, folder, patience=0.3, timeout=30).get()
    assert body_of(model) == old
    assert body_of(client(server, folder).get()) == new
    assert server.requests[-1].headers["Range"] == "bytes=30000-"


@pytest.mark.parametrize("off", [-10_000, 10_000])
def test_a_server_that_misstates_the_length_gives_no_bad_model(server, folder, off):
    body = server.publish("aaaa", os.urandom(100_000))
    server.length("model.pt", len(body) + off, times=1)
    assert body_of(client(server, folder).get()) == body


def test_a_server_that_always_misstates_the_length_keeps_the_model_of_before(server, folder, old):
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
def test_a_model_that_is_not_the_promised_one_is_never_used(server, folder, old, bad):
    server.publish("bbbb", os.urandom(100_000))
    server.files["/models/bbbb/model.pt"] = bad
    model = client(server, folder, tries=2).get()
    assert kept(model, old)
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
def test_an_invalid_document_keeps_the_previous_model(server, folder, old, document):
    server.files["/aliases/stable.json"] = document
    model = client(server, folder, tries=1).get()
    assert kept(model, old)
    # and what is right again is taken again
    server.document = {}
    new = server.publish("dddd")
    assert body_of(client(server, folder).get()) == new


@pytest.mark.parametrize("model", ["x", [1], 5, None, {}, {"sha256": 5}, {"sha256": "0" * 64, "size": "x"}])
def test_an_invalid_manifest_keeps_the_previous_model(server, folder, old, model):
    server.publish("bbbb")
    server.document = {"version": "bbbb"}
    server.files["/models/bbbb/manifest.json"] = json.dumps({"model": model}).encode()
    found = client(server, folder, tries=1).get()
    assert kept(found, old)


def test_a_manifest_does_not_rename_the_version_that_was_asked_for(server, folder):
    body = server.publish("aaaa")
    server.document = {"version": "aaaa", "semver": "1.0.0"}
    manifest = json.loads(server.files["/models/aaaa/manifest.json"])
    manifest["model"] |= {"version": "bbbb", "semver": "9.0.0"}
    server.files["/models/aaaa/manifest.json"] = json.dumps(manifest).encode()
    model = client(server, folder).get()
    assert (model.version, model.semver, body_of(model)) == ("aaaa", "1.0.0", body)


@pytest.mark.parametrize("versions", [5, "x", {"a": 1}, True, None, [5, None, "x", [], {"version": 5}]])
def test_an_invalid_index_keeps_the_previous_model(server, folder, versions):
    old = server.publish("aaaa", semver="1.0.0")
    client(server, folder, pin="1").get()
    server.document = {"version": "cccc", "semver": "2.0.0", "sha256": "0" * 64, "size": 1}
    server.files["/index.json"] = json.dumps({"versions": versions}).encode()
    model = client(server, folder, pin="1", tries=1).get()
    assert kept(model, old)


@pytest.mark.parametrize("length", NO_NUMBERS)
@pytest.mark.parametrize("what", ["stable.json", "model.pt"])
def test_a_length_that_is_no_number_keeps_a_good_model(server, folder, old, what, length):
    """A document of unknown length is not used; a model has its sha256."""
    new = server.publish("bbbb")
    server.length(what, length, times=9)
    model = client(server, folder, tries=1).get()
    assert body_of(model) == (old if what == "stable.json" else new)
    assert bool(model.problem) is (what == "stable.json")


@pytest.mark.parametrize("start", NO_NUMBERS)
def test_a_range_that_is_no_number_keeps_the_model_of_before(server, folder, old, start):
    server.publish("bbbb", os.urandom(10_000))
    server.cut("model.pt", 3_000)
    server.status("model.pt", 206, Content_Range=f"bytes {start}-9999/10000")
    model = client(server, folder, tries=2).get()
    assert "range" in kept(model, old)


@pytest.mark.parametrize("fault", [TypeError, KeyError, OverflowError, RecursionError, ValueError])
def test_an_answer_of_an_unforeseen_form_keeps_the_model_of_before(server, folder, old, fault, monkeypatch):
    new = server.publish("bbbb")

    def fails(*_):
        raise fault("unforeseen")

    with monkeypatch.context() as patch:
        patch.setattr(model_client, "is_alias", fails)
        model = client(server, folder).get()
    assert "unforeseen" in kept(model, old)
    assert body_of(client(server, folder).get()) == new


def test_an_endless_document_is_not_read_to_its_end(server, folder):
    server.files["/aliases/stable.json"] = b" " * (model_client.LARGEST_DOCUMENT + 1)
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
    assert "named as another" in kept(model, old)
    assert client(server, folder, interval=60).get().path == first.path
