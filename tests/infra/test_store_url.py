"""Which store a URL opens, and which address the public reads it at."""

import pytest

from gpu_offload.infra.store.errors import StoreUrlError
from gpu_offload.infra.store.factory import open_store


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
        "https://[::1",
        "https://me:secret@example.org/x",
        "hf://me:secret@owner/repository",
        "s3://id:secret@bucket",
    ],
)
def test_a_url_that_is_no_stores_is_refused_with_what_to_write_and_no_password(url):
    with pytest.raises(StoreUrlError, match=r"write|pip install") as refused:
        open_store(url)
    assert "secret" not in str(refused.value)


def test_an_endpoint_belongs_to_a_bucket():
    with pytest.raises(StoreUrlError, match="belong to an s3: store"):
        open_store("file:x", endpoint_url="https://example.org")


def test_a_folders_url_opens_the_same_folder_again(tmp_path):
    store = open_store("file:a b%20c", base=tmp_path)
    store.put("k", b"1")
    assert open_store(store.url).read("k")[0] == b"1"
    assert (tmp_path / "a b%20c" / "k").exists()


def test_on_aws_a_public_address_names_the_bucket_first(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    store = open_store("s3://bucket/p", region="eu-west-1")
    assert store.public_url("k") == "https://bucket.s3.eu-west-1.amazonaws.com/p/k"
    store._bucket.reader.close()
