"""A persistent spot request with our tag is cancelled: it would launch again whatever is terminated."""

import boto3
import pytest

from gpu_offload.infra.aws.tags import RUN_TAG, STORE_TAG
from gpu_offload.orchestrator.cleanup.reaper import cancel_persistent_requests

REGION = "us-east-1"
OURS, THEIRS = "a" * 16, "b" * 16


@pytest.fixture
def ec2(cloud):
    client = boto3.client("ec2", region_name=REGION)
    yield client
    client.close()


def ask(ec2, kind, **tags):
    (made,) = ec2.request_spot_instances(
        SpotPrice="0.2",
        Type=kind,
        LaunchSpecification={"ImageId": "ami-12c6146b", "InstanceType": "g4dn.xlarge"},
    )["SpotInstanceRequests"]
    if tags:
        ec2.create_tags(
            Resources=[made["SpotInstanceRequestId"]], Tags=[{"Key": k, "Value": v} for k, v in tags.items()]
        )
    return made["SpotInstanceRequestId"]


def left(ec2):
    found = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    return {item["SpotInstanceRequestId"] for item in found if item["State"] in {"open", "active"}}


def test_ours_are_cancelled_and_no_others(ec2):
    ours = ask(ec2, "persistent", **{RUN_TAG: "r-1", STORE_TAG: OURS})
    unknown = ask(ec2, "persistent", **{RUN_TAG: "r-2"})
    kept = {
        ask(ec2, "persistent", **{RUN_TAG: "r-1", STORE_TAG: THEIRS}),
        ask(ec2, "persistent", Name="somebody's"),
        ask(ec2, "one-time", **{RUN_TAG: "r-1", STORE_TAG: OURS}),
    }
    notes, failures = [], []
    for dry_run in (True, False):
        cancel_persistent_requests([REGION], OURS, dry_run=dry_run, note=notes.append, fail=failures.append)
        assert left(ec2) == (kept | {ours, unknown} if dry_run else kept)
    assert not failures
    assert len([note for note in notes if ours in note]) == 2


def test_a_role_that_may_not_look_is_a_note_and_a_silent_cloud_a_failure(ec2, cloud):
    notes, failures = [], []
    denied = "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors></Response>"
    cloud.fail_once(lambda call: call.action == "DescribeSpotInstanceRequests", 403, denied)
    cancel_persistent_requests([REGION], OURS, dry_run=False, note=notes.append, fail=failures.append)
    assert len(notes) == 1
    assert not failures
