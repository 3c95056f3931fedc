"""What a store does when things go wrong: lost replies, cuts, refusals, and death at any instant."""

import hashlib

import botocore.exceptions as aws
import pytest

from gpu_offload.infra.store.errors import (
    CorruptObjectError,
    ObjectChangedError,
    ObjectExistsError,
    StoreCredentialsError,
    StoreError,
    StoreMissingError,
    StoreUnreachableError,
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


def test_a_probe_finds_a_server_that_refuses_the_etag_that_an_object_has(cloud, store):
    failed = "<Error><Code>PreconditionFailed</Code><Message>x</Message></Error>"
    cloud.fail_once(lambda call: "If-Match" in call.headers, 412, failed, times=9)
    assert "refuses If-Match" in probe_store(store).faults[0]


def test_a_probe_finds_a_server_that_does_not_list_what_was_written(cloud, store):
    empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    cloud.fail_once(lambda call: "list-type" in call.query, 200, empty)
    assert "does not list" in probe_store(store).faults[0]
    refused = "<Error><Code>NotImplemented</Code><Message>x</Message></Error>"
    cloud.fail_once(lambda call: "list-type" in call.query, 501, refused, times=9)
    with pytest.raises(StoreError, match="ListObjectsV2"):
        probe_store(store)


def test_a_create_whose_reason_to_fail_was_deleted_since_succeeds(cloud, store):
    failed = "<Error><Code>PreconditionFailed</Code><Message>x</Message></Error>"
    cloud.fail_once(put, 412, failed)
    store.create("k", b"mine")
    assert store.read("k")[0] == b"mine"


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


def test_a_create_fails_where_another_writer_won_while_its_reply_was_lost(cloud, store):
    store.put("k", b"yours")
    cloud.fail_once(put, 500)
    with pytest.raises(ObjectExistsError):
        store.create("k", b"mine")


def test_of_two_conditional_writes_at_the_same_time_one_wins(cloud, store):
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


def test_a_file_in_parts_whose_completion_gets_no_answer_is_an_error(cloud, store, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"a" * (7 << 20))
    cloud.fail_once(lambda call: call.method == "POST" and "uploadId=" in call.query, 503, times=9)
    with pytest.raises(StoreUnreachableError):
        store.upload("k", source)


def test_a_missing_file_is_an_error(store, tmp_path):
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


def test_a_missing_bucket_is_not_taken_for_an_empty_one(cloud):
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
def test_a_server_that_does_not_answer_is_an_error(monkeypatch):
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
def test_an_invalid_address_or_number_in_the_environment_is_an_error(monkeypatch, variable, value):
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
        ("SomethingNew", 429, "StoreUnreachableError", "again"),
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


def test_a_public_address_is_the_servers_own(store, bucket, cloud):
    assert store.public_url("models/v 1/m.pt") == f"{cloud.url}/{bucket}/p/models/v%201/m.pt"
