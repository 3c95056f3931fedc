"""Who may read, write and list what in the bucket, tried by a simulator of IAM."""

import pytest
from policy_case import ACCOUNT, BUCKET, ONCE, ROLES, SAME, SITE, may, policy
from policy_simulator import list_request, object_request

from gpu_offload.infra.account.site import Site
from gpu_offload.infra.simulator.iam import Request, allowed

WRITES = [
    # role, key, headers, may it?
    ("publisher", "models/1/model.pt", ONCE, True),
    ("publisher", "models/1/model.pt", {}, False),
    ("publisher", "models/1/model.pt", SAME, False),
    ("publisher", "aliases/stable.json", SAME, True),
    ("publisher", "aliases/stable.json", ONCE, True),
    ("publisher", "aliases/stable.json", {}, False),
    ("publisher", "index.json", SAME, True),
    ("publisher", "index.html", ONCE, False),
    ("publisher", "runs/abc-1/run.json", ONCE, True),
    ("publisher", "timings/abc-1.json", {}, True),
    ("publisher", "datasets/f.tar", ONCE, True),
    ("publisher", "datasets/f.tar", {}, False),
    ("launcher", "runs/abc-1/attempts/1.json", ONCE, True),
    ("launcher", "runs/abc-1/driver.json", SAME, True),
    ("launcher", "datasets/f.tar", ONCE, True),
    ("launcher", "models/1/model.pt", ONCE, True),
    ("launcher", "models/1/model.pt", {}, False),
    ("janitor", "runs/abc-1/attempts/1.end.json", ONCE, True),
    ("janitor", "runs/abc-1/run.json", {}, False),
    ("janitor", "runs/abc-1/driver.json", SAME, True),
    ("janitor", "runs/abc-1/driver.json", {}, False),
    ("janitor", "models/1/model.pt", ONCE, True),
    ("janitor", "models/1/model.pt", {}, False),
    ("janitor", "datasets/f.tar", ONCE, False),
    ("launcher", "weights/yolo11n.pt", {}, True),
    ("trainer", "weights/yolo11n.pt", ONCE, False),
    ("trainer", "runs/abc-1/attempts/1/heartbeat.json", {}, True),
    ("trainer", "runs/abc-1/checkpoint/last-3.pt", {}, True),
    ("trainer", "runs/abc-1/result/result.json", {}, True),
    ("trainer", "runs/abc-1/run.json", ONCE, False),
    ("trainer", "runs/abc-1/attempts/2.json", ONCE, False),
    ("trainer", "runs/abc-1/attempts/1.end.json", ONCE, False),
    ("trainer", "runs/abc-1/collected.json", ONCE, False),
    ("trainer", "runs/abc-1/inputs/w.pt", ONCE, False),
    ("trainer", "models/1/model.pt", ONCE, False),
    ("trainer", "aliases/stable.json", SAME, False),
    ("trainer", "index.json", ONCE, False),
    ("trainer", "timings/abc-1.json", {}, False),
    ("trainer", "datasets/f.tar", ONCE, False),
    ("scheduler", "runs/abc-1/stop.json", ONCE, False),
]


@pytest.mark.parametrize(("role", "key", "headers", "yes"), WRITES, ids=lambda v: str(v) or "-")
def test_who_writes_what_and_how(role, key, headers, yes):
    assert may(role, object_request("PutObject", BUCKET, key, headers)) is yes
    assert not may(role, object_request("PutObject", f"{BUCKET}-other", key, headers))


def test_a_large_model_goes_up_in_parts_whose_completion_is_conditional():
    """Parts carry no condition, for S3 knows none there; they make no object either."""
    assert may("publisher", object_request("PutObject", BUCKET, "models/1/model.pt", part=True))
    assert may("publisher", object_request("PutObject", BUCKET, "models/1/model.pt", ONCE))
    assert may("publisher", object_request("AbortMultipartUpload", BUCKET, "models/1/model.pt"))


@pytest.mark.parametrize("role", ROLES)
def test_no_role_deletes_what_is_published(role):
    for key in ("models/1/model.pt", "models/1/manifest.json", "aliases/stable.json", "index.json"):
        assert not may(role, object_request("DeleteObject", BUCKET, key))


def test_not_even_an_administrator_overwrites_a_published_model():
    """The bucket itself refuses."""
    everything = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    documents = [everything, policy(SITE, "bucket")]
    key = "models/1/model.pt"
    assert not allowed(documents, object_request("PutObject", BUCKET, key))
    assert not allowed(documents, object_request("PutObject", BUCKET, key, SAME))
    assert allowed(documents, object_request("PutObject", BUCKET, key, ONCE))
    assert allowed(documents, object_request("PutObject", BUCKET, "runs/x"))
    clear = Request("s3:GetObject", f"arn:aws:s3:::{BUCKET}/{key}", {"aws:SecureTransport": "false"})
    assert not allowed(documents, clear)


def test_the_instance_reads_inputs_and_runs_only():
    for key in ("datasets/f.tar", "runs/abc-1/inputs/w.pt", "runs/abc-1/checkpoint/manifest.json"):
        assert may("trainer", object_request("GetObject", BUCKET, key))
    assert not may("trainer", object_request("GetObject", BUCKET, "timings/a.json"))
    assert not may("trainer", object_request("DeleteObject", BUCKET, "runs/abc-1/run.json"))


def test_a_store_below_a_prefix_keeps_to_it():
    site = Site("octo-org/octo-repo", BUCKET, prefix="keys/", account=ACCOUNT, partition="aws")
    put = object_request("PutObject", BUCKET, "keys/models/1/model.pt", ONCE)
    assert may("publisher", put, list_request(BUCKET, "keys/models/"), list_request(BUCKET), site=site)
    assert not may("publisher", object_request("PutObject", BUCKET, "models/1/model.pt", ONCE), site=site)
    assert not may("publisher", list_request(BUCKET, "other/"), site=site)


def test_a_separate_publisher_alone_touches_models():
    site = Site("octo-org/octo-repo", BUCKET, drivers_publish=False, account=ACCOUNT, partition="aws")
    for role in ("launcher", "janitor"):
        assert not may(role, object_request("PutObject", BUCKET, "models/1/model.pt", ONCE), site=site)
        assert not may(role, object_request("PutObject", BUCKET, "aliases/stable.json", SAME), site=site)
    assert may("publisher", object_request("PutObject", BUCKET, "models/1/model.pt", ONCE), site=site)


PUBLIC = {
    "models/1/model.pt": True,
    "aliases/stable.json": True,
    "index.json": True,
    "runs/abc-1/attempts/1/log.txt": False,
    "runs/abc-1/result/model.pt": False,
    "datasets/f.tar": False,
    "timings/a.json": False,
    "index.jsonx": False,
}


@pytest.mark.parametrize("key", PUBLIC)
def test_the_public_reads_what_is_published_and_nothing_else(key):
    get = object_request("GetObject", BUCKET, key)
    assert allowed([policy(SITE, "bucket")], get, public=True) is PUBLIC[key]
    assert allowed([policy(SITE, "bucket", plain_public=True)], get, public=True)
    for verb in ("PutObject", "DeleteObject"):
        assert not allowed([policy(SITE, "bucket")], object_request(verb, BUCKET, key, ONCE), public=True)


def test_the_public_lists_models_and_not_the_bucket():
    bucket, plain = policy(SITE, "bucket"), policy(SITE, "bucket", plain_public=True)
    assert allowed([bucket], list_request(BUCKET, "models/"), public=True)
    for prefix in (None, "", "runs/", "datasets/", "m"):
        assert not allowed([bucket], list_request(BUCKET, prefix), public=True)
        assert allowed([plain], list_request(BUCKET, prefix), public=True)
