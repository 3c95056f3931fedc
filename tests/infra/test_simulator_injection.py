"""Faults that are injected happen: to calls, instances, networks, the store and credentials."""

import time
from contextlib import contextmanager

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, HTTPClientError
from commands import wait_until

from gpu_offload.infra.simulator.account import IMAGE_ID
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.simulator.fault import FaultSyntaxError

ONCE = Config(retries={"total_max_attempts": 1, "mode": "standard"})
SPOT = {"InstanceMarketOptions": {"MarketType": "spot"}}
TAGS = [{"Key": "gpu-offload:run", "Value": "r1"}, {"Key": "gpu-offload:attempt", "Value": "1"}]


@pytest.fixture
def cloud():
    with SimulatedCloud(Behaviour(boot_seconds=0.05, shutdown_seconds=0.05, lag_seconds=0)) as one:
        yield one
        assert [event for event in one.events if event.kind == "error"] == []


def launch(cloud, ec2=None, **options):
    wanted = {
        "InstanceType": "g4dn.xlarge",
        "ImageId": IMAGE_ID,
        "MinCount": 1,
        "MaxCount": 1,
        "TagSpecifications": [{"ResourceType": "instance", "Tags": TAGS}],
    }
    return (ec2 or cloud.client("ec2")).run_instances(**(wanted | SPOT | options))["Instances"][0]


def state(cloud, name):
    found = cloud.client("ec2").describe_instances(InstanceIds=[name])
    return found["Reservations"][0]["Instances"][0]


@contextmanager
def refused(code):
    with pytest.raises(ClientError) as caught:
        yield
    assert caught.value.response["Error"]["Code"] == code


def put(cloud, key, text):
    cloud.client("s3").put_object(Bucket="gpu-offload", Key=key, Body=text.encode())


def test_an_api_error_hits_its_zone_only_and_as_often_as_it_says(cloud):
    cloud.inject("api:RunInstances:error=InsufficientInstanceCapacity:zone=us-east-1a:times=1")
    launch(cloud, Placement={"AvailabilityZone": "us-east-1b"})
    with refused("InsufficientInstanceCapacity"):
        launch(cloud, Placement={"AvailabilityZone": "us-east-1a"})
    launch(cloud, Placement={"AvailabilityZone": "us-east-1a"})


@pytest.mark.parametrize(
    ("service", "call", "options", "code"),
    [
        ("ec2", "describe_instances", {}, "UnauthorizedOperation"),
        ("s3", "list_objects_v2", {"Bucket": "gpu-offload"}, "AccessDenied"),
        ("sts", "get_caller_identity", {}, "AccessDenied"),
        ("scheduler", "list_schedules", {}, "AccessDeniedException"),
        ("ssm", "get_parameter", {"Name": "n"}, "AccessDeniedException"),
        ("service-quotas", "list_service_quotas", {"ServiceCode": "ec2"}, "AccessDeniedException"),
    ],
)
def test_an_error_has_the_form_of_its_service(cloud, service, call, options, code):
    cloud.inject(f"api:*:error={code}")
    with refused(code):
        getattr(cloud.client(service, config=ONCE), call)(**options)


def test_a_delay_delays(cloud):
    cloud.client("ec2").describe_instances()
    cloud.inject("api:DescribeInstances:delay=700ms:times=1")
    began = time.monotonic()
    cloud.client("ec2").describe_instances()
    assert time.monotonic() - began >= 0.7


def test_a_lost_reply_of_a_launch_leaves_an_instance_that_the_token_finds_again(cloud):
    ec2 = cloud.client("ec2", config=ONCE)
    cloud.inject("api:RunInstances:lost-reply:times=1")
    with pytest.raises(ConnectionClosedError):
        launch(cloud, ec2, ClientToken="t")
    (left,) = cloud.leftovers().instances
    assert launch(cloud, ec2, ClientToken="t")["InstanceId"] == left


def test_the_sdk_repeats_a_call_whose_reply_was_lost_and_the_token_makes_it_harmless(cloud):
    cloud.inject("api:RunInstances:lost-reply:times=1")
    name = launch(cloud)["InstanceId"]
    assert cloud.leftovers().instances == (name,)
    assert cloud.calls["ec2.RunInstances"] == 2


def test_a_conditional_put_whose_reply_was_lost_fails_against_its_own_write(cloud):
    cloud.inject("api:PutObject:lost-reply:times=1")
    with refused("PreconditionFailed"):
        cloud.client("s3").put_object(Bucket="gpu-offload", Key="k", Body=b"mine", IfNoneMatch="*")
    assert cloud.client("s3").get_object(Bucket="gpu-offload", Key="k")["Body"].read() == b"mine"


def test_the_store_is_unreachable_for_a_while_and_ec2_is_not(cloud):
    s3 = cloud.client("s3", config=ONCE)
    cloud.inject("store:unreachable:for=3s")
    with pytest.raises((ConnectionClosedError, EndpointConnectionError, HTTPClientError)):
        s3.list_objects_v2(Bucket="gpu-offload")
    cloud.client("ec2").describe_instances()

    def back():
        try:
            return s3.list_objects_v2(Bucket="gpu-offload")
        except HTTPClientError:
            return None

    wait_until(back)


def test_expired_keys_are_refused_in_every_service_and_others_are_not(cloud):
    ec2, s3 = cloud.client("ec2", config=ONCE), cloud.client("s3", config=ONCE)
    ec2.describe_instances()
    cloud.inject("token:expire")
    wait_until(lambda: any(event.text == "credentials expire" for event in cloud.events))
    with refused("RequestExpired"):
        ec2.describe_instances()
    with refused("ExpiredToken"):
        s3.list_objects_v2(Bucket="gpu-offload")
    fresh = cloud.client("sts", config=Config(signature_version="unsigned")).assume_role_with_web_identity(
        RoleArn="arn:aws:iam::123456789012:role/launcher", RoleSessionName="session", WebIdentityToken="token"
    )["Credentials"]
    cloud.client(
        "ec2", aws_access_key_id=fresh["AccessKeyId"], aws_secret_access_key="x"
    ).describe_instances()


def test_a_reclaim_comes_so_long_after_the_launch_with_its_notice(cloud):
    cloud.inject("instance:reclaim:notice=300ms:after=200ms")
    first, second = launch(cloud)["InstanceId"], launch(cloud)["InstanceId"]
    wait_until(lambda: state(cloud, first)["State"]["Name"] == "terminated")
    assert state(cloud, first)["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert cloud.leftovers().instances == (second,)


def test_a_reclaim_waits_for_the_epoch_that_the_heartbeat_reports(cloud):
    cloud.inject("instance:reclaim:no-notice:after=epoch=2")
    name = launch(cloud)["InstanceId"]
    put(cloud, "runs/r1/attempts/1/heartbeat.json", '{"epochs_completed": 1}')
    put(cloud, "runs/r9/attempts/1/heartbeat.json", '{"epochs_completed": 9}')
    put(cloud, "runs/r1/attempts/2/heartbeat.json", '{"epochs_completed": 9}')
    wait_until(lambda: state(cloud, name)["State"]["Name"] == "running")
    put(cloud, "prefix/runs/r1/attempts/1/heartbeat.json", '{"epochs_completed": 3}')
    wait_until(lambda: state(cloud, name)["State"]["Name"] == "terminated")


@pytest.mark.parametrize(
    ("when", "key"),
    [("heartbeat", "runs/r1/attempts/1/heartbeat.json"), ("checkpoint", "runs/r1/checkpoint/manifest.json")],
)
def test_a_fault_waits_for_its_milestone(cloud, when, key):
    name = launch(cloud)["InstanceId"]
    cloud.inject(f"instance:power-loss:after={when}")
    wait_until(lambda: state(cloud, name)["State"]["Name"] == "running")
    assert not any(event.text == "power loss" for event in cloud.events)
    put(cloud, key, "not even JSON")
    wait_until(lambda: any(event.text == "power loss" for event in cloud.events))
    assert state(cloud, name)["State"]["Name"] == "running"


def test_on_demand_instances_are_not_reclaimed(cloud):
    cloud.inject("instance:reclaim:no-notice")
    name = launch(cloud, InstanceMarketOptions={})["InstanceId"]
    wait_until(lambda: any("on demand" in event.text for event in cloud.events))
    assert cloud.leftovers().instances == (name,)


def test_a_cut_heals_by_itself_after_its_time(cloud):
    cloud.inject("network:cut:after=running:heal=500ms")
    name = launch(cloud)["InstanceId"]
    wait_until(lambda: (name, "network cut") in [(event.subject, event.text) for event in cloud.events])
    wait_until(lambda: (name, "network healed") in [(event.subject, event.text) for event in cloud.events])


def test_a_fault_may_wait_for_another_attempt(cloud):
    cloud.inject("instance:reclaim:no-notice:attempt=2")
    first = launch(cloud)["InstanceId"]
    tags = [TAGS[0], {"Key": "gpu-offload:attempt", "Value": "2"}]
    second = launch(cloud, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}])["InstanceId"]
    wait_until(lambda: state(cloud, second)["State"]["Name"] == "terminated")
    assert cloud.leftovers().instances == (first,)


def test_a_mistake_in_a_fault_is_refused_before_anything_starts():
    with pytest.raises(FaultSyntaxError):
        SimulatedCloud(faults=["api:*:delay=never"])
