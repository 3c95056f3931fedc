"""A real S3 server that is not AWS's keeps to what every store must keep to."""

import boto3
import pytest
import store_conformance as conformance
from radosgw import ACCESS_KEY, SECRET_KEY, RadosGateway
from registry_case import publish_and_roll_back_at_once

from gpu_offload.infra.store.errors import StoreCredentialsError, StoreMissingError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.probe import probe_store

pytestmark = pytest.mark.process


@pytest.fixture
def open_bucket(tmp_path, monkeypatch):
    """Open a new prefix of one bucket of a server that ends with the test."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    with RadosGateway(tmp_path / "ceph") as server:
        # A session of its own: the default one may have kept the keys of another test.
        client = boto3.Session(ACCESS_KEY, SECRET_KEY).client(
            "s3", endpoint_url=server.url, region_name="us-east-1"
        )
        client.create_bucket(Bucket="models")
        client.close()
        opened = []

        def made(prefix, bucket="models"):
            store = open_store(f"s3://{bucket}/{prefix}", endpoint_url=server.url, region="us-east-1")
            store.multipart_above, store.part_size = 6 << 20, 5 << 20
            opened.append(store)
            return store

        yield made
        for store in opened:
            store._bucket.reader.close()


def test_ceph_keeps_to_it(open_bucket, tmp_path, monkeypatch):
    """In one test, since its server takes longer to start than all of this."""
    for check in conformance.CHECKS:
        work = tmp_path / check.__name__
        work.mkdir()
        check(open_bucket(check.__name__), work)
    store = open_bucket("registry")
    publish_and_roll_back_at_once(store, tmp_path, publishers=15, rollbacks=5)
    # Ceph 16 does not look at the condition where an upload in parts completes; the store then looks before it sends.
    assert probe_store(store).faults == ()
    with pytest.raises(StoreMissingError):
        open_bucket("x", bucket="of-nobody").put("k", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-another")
    with pytest.raises(StoreCredentialsError):
        open_bucket("y").read("k")
