"""Launching, finding and ending instances, over real HTTP to a simulated EC2."""

import base64
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.ec2 import Ec2
from gpu_offload.infra.aws.errors import (
    DeniedError,
    EndpointError,
    NoCapacityError,
    NotYetVisibleError,
    QuotaError,
    TokenMismatchError,
)
from gpu_offload.infra.aws.launch import LaunchRequest, client_token, launch_parameters
from gpu_offload.infra.aws.termination import terminate_and_wait

EXPIRES = datetime(2026, 11, 22, 21, 30, tzinfo=UTC)


def fault(code, message="no"):
    return f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"


@pytest.fixture(scope="module")
def session():
    return open_session("us-east-1")


@pytest.fixture
def ec2(cloud, session):
    ec2 = Ec2("us-east-1", session=session)
    yield ec2
    for client in {"_client", "_launcher"} & vars(ec2).keys():
        vars(ec2)[client].close()


@pytest.fixture
def request_(ec2, session):
    from moto.ec2.models import ec2_backends

    image = next(iter(ec2_backends["123456789012"]["us-east-1"].amis))  # to describe all 1,300 takes a second
    session.client("iam").create_instance_profile(InstanceProfileName="trainer")
    subnet = ec2.subnet("us-east-1b")
    return LaunchRequest(
        run="r1",
        attempt=2,
        expires=EXPIRES,
        instance_type="g4dn.xlarge",
        market="spot",
        subnet=subnet,
        image_id=image,
        root_device="/dev/sda1",
        security_group=ec2.create_security_group("r1", "203.0.113.7/32", vpc=subnet.vpc),
        user_data="#cloud-config\n",
        volume_gib=60,
        instance_profile="trainer",
    )


def test_everything_about_an_instance_is_said_in_the_one_call_that_launches_it(cloud, ec2, request_):
    ec2.launch(request_)
    assert len(cloud.of("RunInstances")) == 1
    form = cloud.of("RunInstances")[0].form
    specs = {
        form[f"TagSpecification.{n}.ResourceType"]: {
            form[f"TagSpecification.{n}.Tag.{m}.Key"]: form[f"TagSpecification.{n}.Tag.{m}.Value"]
            for m in range(1, 5)
        }
        for n in range(1, 5)
    }
    ours = {
        "gpu-offload:run": "r1",
        "gpu-offload:attempt": "2",
        "gpu-offload:expires": "2026-11-22T21:30:00Z",
        "Name": "gpu-offload r1 #2",
    }
    assert specs == dict.fromkeys(["instance", "volume", "network-interface", "spot-instances-request"], ours)
    assert {name: value for name, value in form.items() if not name.startswith("TagSpecification")} == {
        "Action": "RunInstances",
        "Version": "2016-11-15",
        "ClientToken": client_token("r1", 2, "g4dn.xlarge/us-east-1b/spot"),
        "MinCount": "1",
        "MaxCount": "1",
        "ImageId": request_.image_id,
        "InstanceType": "g4dn.xlarge",
        "InstanceInitiatedShutdownBehavior": "terminate",
        "Placement.AvailabilityZone": "us-east-1b",
        "SubnetId": request_.subnet.id,
        "SecurityGroupId.1": request_.security_group,
        "MetadataOptions.HttpEndpoint": "enabled",
        "MetadataOptions.HttpTokens": "required",
        "MetadataOptions.HttpPutResponseHopLimit": "1",
        "MetadataOptions.InstanceMetadataTags": "disabled",
        "BlockDeviceMapping.1.DeviceName": "/dev/sda1",
        "BlockDeviceMapping.1.Ebs.VolumeSize": "60",
        "BlockDeviceMapping.1.Ebs.VolumeType": "gp3",
        "BlockDeviceMapping.1.Ebs.Encrypted": "true",
        "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true",
        "IamInstanceProfile.Name": "trainer",
        "InstanceMarketOptions.MarketType": "spot",
        "InstanceMarketOptions.SpotOptions.SpotInstanceType": "one-time",
        "InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior": "terminate",
        "UserData": base64.b64encode(b"#cloud-config\n").decode(),
    }


def test_on_demand_differs_from_spot_in_the_market_alone(request_):
    spot, on_demand = launch_parameters(request_), launch_parameters(replace(request_, market="on-demand"))
    changed = {name for name in spot if spot[name] != on_demand.get(name)}
    assert changed == {"ClientToken", "InstanceMarketOptions", "TagSpecifications"}
    assert "InstanceMarketOptions" not in on_demand


def test_a_highest_spot_price_is_passed_on(request_):
    options = launch_parameters(replace(request_, max_price_usd=0.3))["InstanceMarketOptions"]["SpotOptions"]
    assert options["MaxPrice"] == "0.3000"


def test_in_a_subnet_that_gives_no_public_address_one_is_asked_for(cloud, ec2, request_):
    ec2.launch(replace(request_, subnet=replace(request_.subnet, public=False)))
    form = cloud.of("RunInstances")[0].form
    assert form["NetworkInterface.1.AssociatePublicIpAddress"] == "true"
    assert form["NetworkInterface.1.SubnetId"] == request_.subnet.id
    assert form["NetworkInterface.1.SecurityGroupId.1"] == request_.security_group
    assert "SubnetId" not in form
    assert "SecurityGroupId.1" not in form


def test_an_instance_is_found_by_its_run_and_knows_everything_that_was_asked(ec2, request_):
    launched = ec2.launch(request_)
    ec2.launch(replace(request_, run="other", market="on-demand"))
    found = ec2.find("r1")
    assert [instance.id for instance in found] == [launched.id]
    one = found[0]
    assert (one.run, one.attempt, one.expires, one.type, one.zone, one.market) == (
        "r1",
        2,
        EXPIRES,
        "g4dn.xlarge",
        "us-east-1b",
        "spot",
    )
    assert one.public_ip
    assert ec2.get(one.id) == one
    assert not one.ended
    assert one.launch_time.tzinfo is not None
    assert {instance.run for instance in ec2.find()} == {"r1", "other"}
    assert next(instance for instance in ec2.find() if instance.run == "other").market == "on-demand"


def test_instances_that_are_not_ours_are_never_seen(ec2, request_):
    ec2._client.run_instances(ImageId=request_.image_id, MinCount=1, MaxCount=1)
    assert ec2.find() == []
    assert ec2.find("*") == []


def test_a_listing_of_many_pages_is_whole(cloud, ec2, request_):
    for attempt in range(3):
        ec2.launch(replace(request_, attempt=attempt))
    ec2._client.meta.events.register(
        "provide-client-params.ec2.DescribeInstances", lambda params, **_: {**params, "MaxResults": 5}
    )
    assert sorted(instance.attempt for instance in ec2.find("r1")) == [0, 1, 2]


def test_terminating_twice_is_harmless_and_the_instance_is_seen_to_the_end(ec2, request_):
    launched = ec2.launch(request_)
    assert ec2.terminate([launched.id])[launched.id] in {"shutting-down", "terminated"}
    assert ec2.terminate([launched.id])[launched.id] in {"shutting-down", "terminated"}
    found = ec2.find("r1")[0]
    assert (found.state, found.ended, found.reclaimed) == ("terminated", True, False)
    assert found.ended_at is not None
    assert found.ended_at >= found.launch_time.replace(microsecond=0)


def test_an_instance_that_ec2_has_forgotten_counts_as_terminated(ec2, no_waiting):
    assert ec2.terminate(["i-0123456789abcdef0"]) == {"i-0123456789abcdef0": "terminated"}
    with pytest.raises(NotYetVisibleError):
        ec2.get("i-0123456789abcdef0")


def test_a_new_instance_that_ec2_does_not_know_yet_is_terminated_all_the_same(
    cloud, ec2, request_, no_waiting
):
    launched = ec2.launch(request_)
    cloud.fail_once(
        lambda call: call.action == "TerminateInstances", 400, fault("InvalidInstanceID.NotFound"), times=3
    )
    ec2.terminate([launched.id])
    assert ec2.find("r1")[0].ended


def test_no_capacity_is_not_retried_though_aws_calls_it_a_server_error(cloud, ec2, request_):
    cloud.fail_once(
        lambda call: call.action == "RunInstances", 500, fault("InsufficientInstanceCapacity"), times=9
    )
    with pytest.raises(NoCapacityError, match=r"g4dn\.xlarge \(spot\) in us-east-1b") as caught:
        ec2.launch(request_)
    assert caught.value.retry == "elsewhere"
    assert len(cloud.of("RunInstances")) == 1


def test_a_quota_is_not_retried(cloud, ec2, request_):
    cloud.fail_once(lambda call: call.action == "RunInstances", 400, fault("VcpuLimitExceeded"), times=9)
    with pytest.raises(QuotaError, match="ask AWS for more"):
        ec2.launch(request_)
    assert len(cloud.of("RunInstances")) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "RequestLimitExceeded"), (500, "InternalError"), (400, "InvalidGroup.NotFound")],
)
def test_a_passing_failure_is_tried_again_with_the_same_token(cloud, ec2, request_, no_waiting, status, code):
    cloud.fail_once(lambda call: call.action == "RunInstances", status, fault(code), times=2)
    ec2.launch(request_)
    calls = cloud.of("RunInstances")
    assert len(calls) == 3
    assert len({call.form["ClientToken"] for call in calls}) == 1
    assert len(ec2.find("r1")) == 1


def test_after_a_lost_reply_the_launch_is_repeated_as_it_was(cloud, ec2, request_, no_waiting):
    cloud.fail_once(lambda call: call.action == "RunInstances", 500, b"", after=True)
    ec2.launch(request_)
    first, second = (call.form for call in cloud.of("RunInstances"))
    assert first == second


def test_a_client_token_used_for_another_launch_is_an_error(cloud, ec2, request_):
    cloud.fail_once(lambda call: call.action == "RunInstances", 400, fault("IdempotentParameterMismatch"))
    with pytest.raises(TokenMismatchError, match="by its tag"):
        ec2.launch(request_)


def test_a_dry_run_launches_nothing_and_reports_a_refusal(cloud, ec2, request_):
    ec2.check_launch(request_)
    assert ec2.find() == []
    cloud.fail_once(lambda call: call.action == "RunInstances", 403, fault("UnauthorizedOperation"))
    with pytest.raises(DeniedError):
        ec2.check_launch(request_)


@pytest.mark.simulator
def test_no_answer_at_all_is_an_error(no_waiting, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    ec2 = Ec2("us-east-1")
    ec2._client = ec2._make_client(attempts=1)
    with pytest.raises(EndpointError, match="AWS_ENDPOINT_URL"):
        ec2.find()


def test_the_console_is_read_and_an_old_type_that_cannot_show_its_latest_is_asked_without(
    cloud, ec2, request_
):
    launched = ec2.launch(request_)
    latest = ec2.console_output(launched.id)
    assert latest
    cloud.fail_once(lambda call: call.form.get("Latest") == "true", 400, fault("UnsupportedOperation"))
    assert ec2.console_output(launched.id) == latest


def test_an_instance_whose_termination_has_to_be_repeated_is_announced_once(
    cloud, ec2, request_, no_waiting, monkeypatch
):
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0)
    launched = ec2.launch(request_)
    throttled = fault("RequestLimitExceeded")
    cloud.fail_once(lambda call: call.action == "TerminateInstances", 503, throttled, times=10)
    announced = []
    done = terminate_and_wait(
        {"us-east-1": ec2}, lambda _: True, announce=announced.append, sleep=lambda _: None
    )
    assert (done.ended, done.left, done.refused) == ((launched.id,), {}, {})
    assert [instance.id for instance in announced] == [launched.id]


def test_volumes_are_found_by_run_and_deleted_once(ec2):
    client = ec2._client
    made = client.create_volume(
        AvailabilityZone="us-east-1a",
        Size=8,
        TagSpecifications=[
            {"ResourceType": "volume", "Tags": [{"Key": "gpu-offload:run", "Value": "r9"}]},
        ],
    )["VolumeId"]
    client.create_volume(AvailabilityZone="us-east-1a", Size=8)
    volumes = ec2.volumes("r9")
    assert [(volume.id, volume.run, volume.attached_to) for volume in volumes] == [(made, "r9", None)]
    assert [volume.id for volume in ec2.volumes()] == [made]
    assert ec2.delete_volume(made)
    assert not ec2.delete_volume(made)


def test_a_terminated_instance_leaves_no_volume(ec2, request_):
    launched = ec2.launch(request_)
    assert ec2.volumes("r1")
    ec2.terminate([launched.id])
    assert ec2.volumes("r1") == []


@given(st.text(max_size=20), st.integers(1, 99), st.text(max_size=20), st.text(max_size=20))
def test_a_token_is_the_same_for_the_same_launch_and_for_no_other(run, attempt, offer, other):
    token = client_token(run, attempt, offer)
    assert token == client_token(run, attempt, offer)
    assert len(token) == 64
    assert token.isascii()
    assert (client_token(run, attempt, other) == token) == (other == offer)
    assert client_token(run, attempt + 1, offer) != token
