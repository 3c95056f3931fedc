"""What a store does when things go wrong: lost replies, cuts, refusals, and death at any instant."""

import hashlib
import subprocess
import sys
import textwrap
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler

import botocore.exceptions as aws
import pytest

from gpu_offload.infra.store.errors import (
    CorruptObjectError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectKeyError,
    ObjectMissingError,
    StoreCredentialsError,
    StoreError,
    StoreMissingError,
    StoreReadOnlyError,
    StoreUnreachableError,
    StoreUrlError,
)
from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.probe import probe_store
from gpu_offload.infra.store.s3_errors import store_errors


@pytest.fixture(autouse=True)
def _at_once(monkeypatch, no_waiting):
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0)


@pytest.fixture
def store(bucket):
    store = open_store(f"s3://{bucket}/p")
    store.multipart_above, store.part_size = 6 << 20, 5 << 20
    yield store
    store._bucket.reader.close()


def put(call):
    return call.method == "PUT"


# ------------------------------------------------------------------------------------------- bucket


@pytest.mark.parametrize("ignored", [False, True])
def test_a_probe_finds_a_server_that_ignores_the_condition_of_a_completion(store, ignored):
    def strip(params, **_):
        params["headers"].pop("If-None-Match", None)

    if ignored:
        store._bucket.writer.meta.events.register("before-call.s3.CompleteMultipartUpload", strip)
    found = probe_store(store)
    assert (found.faults, len(found.weaknesses)) == ((), ignored)
    assert all("an upload in parts" in weakness for weakness in found.weaknesses)
    assert list(store.list("")) == []


def test_a_create_whose_reply_was_lost_succeeds(cloud, store):
    cloud.fail_once(put, 500, after=True)
    store.create("k", b"mine")
    assert len(cloud.of("PUT")) == 3  # the bucket's own, the one that was lost, and its repetition
    assert store.read("k")[0] == b"mine"


def test_a_replace_whose_reply_was_lost_succeeds(cloud, store):
    etag = store.put("k", b"1")
    cloud.fail_once(put, 500, after=True)
    assert store.replace("k", b"2", etag) == store.stat("k").etag
    with pytest.raises(ObjectChangedError):
        store.replace("k", b"3", etag)


def test_a_create_that_somebody_else_won_while_its_reply_was_lost_fails(cloud, store):
    store.put("k", b"yours")
    cloud.fail_once(put, 500)
    with pytest.raises(ObjectExistsError):
        store.create("k", b"mine")


def test_two_conditional_writes_at_the_same_time_are_sorted_out(cloud, store):
    conflict = "<Error><Code>ConditionalRequestConflict</Code><Message>x</Message></Error>"
    cloud.fail_once(put, 409, conflict, times=2)
    store.create("k", b"mine")
    assert store.read("k")[0] == b"mine"


@pytest.mark.parametrize("status", [500, 409])
def test_a_file_in_parts_whose_completion_went_wrong_is_there_once(cloud, store, tmp_path, status):
    source = tmp_path / "source"
    source.write_bytes(b"a" * (7 << 20))
    conflict = (
        "<Error><Code>ConditionalRequestConflict</Code><Message>x</Message></Error>" if status == 409 else ""
    )
    cloud.fail_once(
        lambda call: call.method == "POST" and "uploadId=" in call.query,
        status,
        conflict,
        after=status == 500,
    )
    store.upload("k", source, create=True)
    store.download("k", tmp_path / "down", sha256=hashlib.sha256(source.read_bytes()).hexdigest())
    assert store._bucket.reader.list_multipart_uploads(Bucket=store.bucket).get("Uploads", []) == []


def test_a_file_in_parts_replaces_an_older_one_though_a_reply_was_lost(cloud, store, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"a" * (7 << 20))
    store.put("k", b"old")
    cloud.fail_once(lambda call: call.method == "POST" and "uploadId=" in call.query, 500, after=True)
    store.upload("k", source)
    assert store.stat("k").size == 7 << 20


def test_a_file_in_parts_whose_completion_gets_no_answer_is_told(cloud, store, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"a" * (7 << 20))
    cloud.fail_once(lambda call: call.method == "POST" and "uploadId=" in call.query, 503, times=9)
    with pytest.raises(StoreUnreachableError):
        store.upload("k", source)


def test_a_file_that_is_not_there_is_told(store, tmp_path):
    for one in (store, open_store("file:s", base=tmp_path)):
        with pytest.raises(StoreError, match="No such file"):
            one.upload("k", tmp_path / "none")


def test_a_file_in_parts_is_created_under_a_condition(cloud, store, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"a" * (7 << 20))
    store.upload("k", source, create=True)
    completion = next(call for call in cloud.of("POST") if "uploadId=" in call.query)
    assert completion.headers["If-None-Match"] == "*"


def test_an_upload_in_parts_that_fails_leaves_nothing(cloud, store, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"a" * (7 << 20))
    denied = "<Error><Code>AccessDenied</Code><Message>x</Message></Error>"
    cloud.fail_once(lambda call: "partNumber=2" in call.query, 403, denied)
    with pytest.raises(StoreError, match="says no"):
        store.upload("k", source)
    assert store.stat("k") is None
    assert store._bucket.reader.list_multipart_uploads(Bucket=store.bucket).get("Uploads", []) == []


def test_a_file_that_changes_while_it_goes_up_is_not_stored(store, tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.write_bytes(b"a" * (7 << 20))
    monkeypatch.setattr(
        "gpu_offload.infra.store.s3.sha256_of", lambda path: "0" * 64
    )  # as if it had been another then
    with pytest.raises(CorruptObjectError, match="changed while"):
        store.upload("k", source)
    assert store.stat("k") is None


def test_a_download_that_breaks_off_goes_on_where_it_was(cloud, store, tmp_path):
    body = bytes(range(256)) * 20_000
    store.put("k", body)
    cut = iter([2_000_000, 1_000_000])

    def break_off(call, answer):
        length = next(cut, None) if call.method == "GET" else None
        if length is None:
            return None
        status, full, headers = answer()
        return status, full[:length], headers | {"Content-Length": str(len(full))}

    cloud.faults.append(break_off)
    store.download("k", tmp_path / "down", size=len(body))
    assert (tmp_path / "down").read_bytes() == body
    ranges = [call.headers.get("Range") for call in cloud.of("GET")]
    assert ranges == [None, "bytes=2000000-", "bytes=3000000-"]


def test_an_object_that_is_replaced_during_a_download_is_not_mixed(cloud, store, tmp_path):
    store.put("k", b"a" * 3_000_000)

    def break_off(call, answer):
        if call.method != "GET":
            return None
        cloud.faults.clear()
        status, full, headers = answer()
        store.put("k", b"b" * 3_000_000)
        return status, full[:1_000_000], headers | {"Content-Length": str(len(full))}

    cloud.faults.append(break_off)
    with pytest.raises(CorruptObjectError, match="replaced"):
        store.download("k", tmp_path / "down")
    assert not (tmp_path / "down").exists()


def test_a_bucket_that_is_not_there_is_not_taken_for_an_empty_one(cloud):
    store = open_store("s3://no-such-bucket/p")
    for act in (
        lambda: store.stat("k"),
        lambda: store.read("k"),
        lambda: store.create("k", b""),
        lambda: list(store.list("")),
    ):
        with pytest.raises(StoreMissingError, match="create it, or correct"):
            act()
    store._bucket.reader.close()


def test_without_credentials_what_is_public_is_read_and_nothing_is_written(
    cloud, store, monkeypatch, tmp_path
):
    store.put("models/v1/model.pt", b"weights")
    store._bucket.reader.put_object_acl(Bucket=store.bucket, Key="p/models/v1/model.pt", ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    cloud.calls.clear()
    stranger = open_store(store.url)
    stranger.download("models/v1/model.pt", tmp_path / "model.pt")
    assert "Authorization" not in cloud.of("GET")[0].headers
    with pytest.raises(StoreCredentialsError, match="AWS_PROFILE"):
        stranger.put("models/v1/model.pt", b"mine")
    stranger._bucket.reader.close()


@pytest.mark.simulator
def test_a_server_that_does_not_answer_is_told(monkeypatch):
    store = open_store("s3://bucket", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(StoreUnreachableError, match="endpoint-url"):
        store.read("k")
    store._bucket.reader.close()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_ENDPOINT_URL", "localhost"),
        ("AWS_ENDPOINT_URL_S3", "http://[::1"),
        ("AWS_METADATA_SERVICE_TIMEOUT", "soon"),
        (None, "localhost"),
    ],
)
def test_an_address_or_a_number_that_is_none_is_told(monkeypatch, variable, value):
    if variable:
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    store = open_store("s3://bucket", endpoint_url=None if variable else value)
    with pytest.raises(StoreUnreachableError, match=r"correct store\.endpoint-url"):
        store.read("k")
    assert store.region() is None


@pytest.mark.parametrize(
    ("code", "status", "kind", "says"),
    [
        ("NoSuchBucket", 404, "StoreMissingError", "create it"),
        ("PermanentRedirect", 301, "StoreMissingError", "store.region"),
        ("AccessDenied", 403, "StoreDeniedError", "role"),
        ("ExpiredToken", 400, "StoreCredentialsError", "expired"),
        ("InvalidAccessKeyId", 403, "StoreCredentialsError", "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, "StoreCredentialsError", "AWS_SECRET_ACCESS_KEY"),
        ("RequestTimeTooSkewed", 403, "StoreCredentialsError", "clock"),
        ("SlowDown", 503, "StoreUnreachableError", "again"),
        ("KMS.DisabledException", 400, "StoreDeniedError", "KMS key"),
        ("KMS.ThrottlingException", 400, "StoreUnreachableError", "again"),
        ("NotImplemented", 501, "StoreError", "conditional"),
        ("SomethingNew", 403, "StoreDeniedError", "SomethingNew"),
        ("SomethingNew", 500, "StoreUnreachableError", "again"),
        ("SomethingNew", 400, "StoreError", "SomethingNew"),
    ],
)
def test_a_refusal_of_the_store_has_its_type_and_says_what_to_do(code, status, kind, says):
    reply = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(StoreError, match=says) as caught, store_errors("s3://b/k"):
        raise aws.ClientError(reply, "PutObject")
    assert type(caught.value).__name__ == kind
    assert "s3://b/k" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (aws.NoCredentialsError(), StoreCredentialsError),
        (aws.TokenRetrievalError(provider="sso", error_msg="x"), StoreCredentialsError),
        (aws.ReadTimeoutError(endpoint_url="x"), StoreUnreachableError),
        (aws.SSLError(endpoint_url="x", error="y"), StoreUnreachableError),
        (aws.FlexibleChecksumError(error_msg="x"), CorruptObjectError),
        (aws.ParamValidationError(report="x"), StoreError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_sdk_raises_by_itself_has_its_type_too(error, kind):
    with pytest.raises(kind), store_errors("s3://b/k"):
        raise error


# ------------------------------------------------------------------------------------------- folder

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


def test_a_symbolic_link_leads_nowhere(tmp_path):
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


# ---------------------------------------------------------------------------------------------- web


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class LocalServer(HTTPServer):
    def server_bind(self):  # HTTPServer's asks DNS for a name
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address


@pytest.fixture
def site(tmp_path):
    """A store and a web server that shows it."""
    written = open_store("file:store", base=tmp_path)
    server = LocalServer(("127.0.0.1", 0), lambda *args: QuietHandler(*args, directory=tmp_path / "store"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield written, open_store(f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.simulator
def test_what_a_store_has_made_public_is_read_without_an_account(site, tmp_path):
    written, public = site
    written.put("models/v 1/model.pt", b"weights")
    assert public.read("models/v 1/model.pt")[0] == b"weights"
    assert public.stat("models/v 1/model.pt").size == 7
    assert public.stat("models/none") is None
    sha256 = hashlib.sha256(b"weights").hexdigest()
    public.download("models/v 1/model.pt", tmp_path / "model.pt", size=7, sha256=sha256)
    assert (tmp_path / "model.pt").read_bytes() == b"weights"
    with pytest.raises(CorruptObjectError):
        public.download("models/v 1/model.pt", tmp_path / "other.pt", sha256="0" * 64)
    with pytest.raises(ObjectMissingError):
        public.read("models/none")
    assert public.public_url("a b") == f"{public.url}/a%20b"


@pytest.mark.simulator
def test_a_web_address_is_never_written_to_or_listed(site, tmp_path):
    public = site[1]
    for act in (
        lambda: public.put("k", b""),
        lambda: public.create("k", b""),
        lambda: public.replace("k", b"", ""),
        lambda: public.upload("k", tmp_path),
        lambda: public.delete("k"),
        lambda: public.list(""),
    ):
        with pytest.raises(StoreReadOnlyError, match=r"can(not| only) be"):
            act()


@pytest.mark.simulator
def test_a_web_address_that_does_not_answer_is_told():
    with pytest.raises(StoreUnreachableError, match="no answer"):
        open_store("https://127.0.0.1:9/x").read("k")


# ---------------------------------------------------------------------------------------------- url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://host/x",
        "s3://",
        "s3://b?x=1",
        "file:",
        "file://host/x",
        "http://example.org/x",
        "https://",
    ],
)
def test_a_url_that_is_no_stores_is_refused_with_what_to_write(url):
    with pytest.raises(StoreUrlError, match="write"):
        open_store(url)


def test_an_endpoint_belongs_to_a_bucket():
    with pytest.raises(StoreUrlError, match="belong to an s3: store"):
        open_store("file:x", endpoint_url="https://example.org")


def test_a_folders_url_opens_the_same_folder_again(tmp_path):
    store = open_store("file:a b%20c", base=tmp_path)
    store.put("k", b"1")
    assert open_store(store.url).read("k")[0] == b"1"
    assert (tmp_path / "a b%20c" / "k").exists()


def test_a_public_address_is_the_servers_own(store, bucket, cloud):
    assert store.public_url("models/v 1/m.pt") == f"{cloud.url}/{bucket}/p/models/v%201/m.pt"


def test_on_aws_a_public_address_names_the_bucket_first(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    store = open_store("s3://bucket/p", region="eu-west-1")
    assert store.public_url("k") == "https://bucket.s3.eu-west-1.amazonaws.com/p/k"
    store._bucket.reader.close()
