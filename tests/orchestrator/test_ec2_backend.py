"""The EC2 backend on the simulated cloud: one launch that says everything, refusals, and an end that leaves nothing."""

import base64
import io
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from commands import wait_until
from run_case import attempt_of, run_of

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from recording_cloud import Recording

from gpu_offload.infra.aws.tags import store_mark
from gpu_offload.infra.ssh.key import HostKey
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.backends.ec2_access import rented_training
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan.prerequisites import RentingError, check_renting
from gpu_offload.orchestrator.run.backend import LaunchDeniedError, RefusedError
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import DatasetSettings, Ec2Settings, StoreSettings

ROLE = "arn:aws:iam::123456789012:role/gpu-offload-scheduler"


@pytest.fixture
def cloud(monkeypatch, hurried):
    """A simulated cloud, and an environment that leads there."""
    with Recording() as simulated:
        for name, value in simulated.environment().items():
            monkeypatch.setenv(name, value)
        yield simulated


def settings_of(tmp_path, **ec2):
    return Settings(
        root=tmp_path,
        dataset=DatasetSettings(path="shapes"),
        store=StoreSettings(url="s3://gpu-offload/project"),
        ec2=Ec2Settings(**ec2),
    )


def renting(tmp_path, **ec2):
    settings = settings_of(tmp_path, **ec2)
    journal = Journal(open_store(settings.store_url))
    return rented_training(settings, journal, Console(io.StringIO()), renew=lambda: None)


@pytest.fixture
def rented(cloud, tmp_path):
    rented = renting(tmp_path, schedule_role=ROLE)
    yield rented
    rented.close()


def launched(rented, run):
    """Launch as the drive does, and wait until EC2 shows the instance running."""
    record = attempt_of(run)
    host = rented.launch(run, record)
    seen = ObservedAttempt(record, host=host)
    wait_until(lambda: any(i.state == "running" for i in rented.instances(run, (seen,))))
    return seen


def end(rented, run, seen):
    """Terminate and clean up, as the drive does."""
    give_up = time.monotonic() + 30
    while True:
        live = [i.id for i in rented.instances(run, (seen,)) if i.state in {"pending", "running"}]
        rented.terminate(tuple(live))
        if all(i.state == "terminated" for i in rented.instances(run, (seen,))):
            break
        assert time.monotonic() < give_up
    while left := rented.leftovers(run, (seen,)):
        rented.clean_up(left)
        assert time.monotonic() < give_up


def test_everything_that_keeps_an_instance_from_leaking_is_said_in_its_one_launch(cloud, rented):
    run = run_of()
    seen = launched(rented, run)
    [call] = cloud.of("RunInstances")
    form = dict(call.parameters)
    user_data = base64.b64decode(form.pop("UserData"))
    tags = {}
    kinds = []
    for i in range(1, 10):
        kind = form.pop(f"TagSpecification.{i}.ResourceType", None)
        if kind:
            kinds.append(kind)
            for j in range(1, 9):
                key = form.pop(f"TagSpecification.{i}.Tag.{j}.Key", None)
                if key:
                    tags.setdefault(kind, {})[key] = form.pop(f"TagSpecification.{i}.Tag.{j}.Value")
    group = form.pop("SecurityGroupId.1")
    subnet = form.pop("SubnetId")
    assert subnet.startswith("subnet-")
    assert len(form.pop("ClientToken")) == 64
    assert form == {
        "Action": "RunInstances",
        "Version": "2016-11-15",
        "ImageId": "ami-00000000000000001",
        "InstanceType": "g4dn.xlarge",
        "MinCount": "1",
        "MaxCount": "1",
        "InstanceInitiatedShutdownBehavior": "terminate",
        "Placement.AvailabilityZone": "us-east-1a",
        "MetadataOptions.HttpEndpoint": "enabled",
        "MetadataOptions.HttpTokens": "required",
        "MetadataOptions.HttpPutResponseHopLimit": "1",
        "MetadataOptions.InstanceMetadataTags": "disabled",
        "BlockDeviceMapping.1.DeviceName": "/dev/sda1",
        "BlockDeviceMapping.1.Ebs.VolumeSize": "60",
        "BlockDeviceMapping.1.Ebs.VolumeType": "gp3",
        "BlockDeviceMapping.1.Ebs.Encrypted": "true",
        "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true",
        "IamInstanceProfile.Name": "gpu-offload-instance",
        "InstanceMarketOptions.MarketType": "spot",
        "InstanceMarketOptions.SpotOptions.SpotInstanceType": "one-time",
        "InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior": "terminate",
    }
    assert sorted(kinds) == ["instance", "network-interface", "spot-instances-request", "volume"]
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(seen.record.expires_at)))
    for found in tags.values():
        assert found == {
            "gpu-offload:run": "abc-1",
            "gpu-offload:attempt": "1",
            "gpu-offload:expires": expires,
            "gpu-offload:store": store_mark("s3://gpu-offload/project"),
            "Name": "gpu-offload abc-1 #1",
        }
    assert len(user_data) < 16_384
    document = json.loads(user_data.decode().removeprefix("#cloud-config\n"))
    first = document["bootcmd"][0]
    assert str(int(seen.record.expires_at)) in first, (
        "the dead-man switch comes first, with the attempt's end"
    )
    assert document["ssh_keys"]["ed25519_private"] == rented.launcher.keys[1].host.private
    assert document["users"][0]["ssh_authorized_keys"] == [str(rented.launcher.keys[1].client.public)]
    [rule] = cloud.of("AuthorizeSecurityGroupIngress")
    assert rule.parameters["GroupId"] == group
    assert rule.parameters["IpPermissions.1.IpRanges.1.CidrIp"] == "127.0.0.1/32"
    assert (
        rule.parameters["IpPermissions.1.FromPort"]
        == rule.parameters["IpPermissions.1.ToPort"]
        == str(cloud.ssh_port)
    )
    assert len(cloud.leftovers().schedules) == 1
    end(rented, run, seen)
    assert not cloud.leftovers(), "instance, volume, group and schedule are gone"


def test_a_launch_whose_reply_is_lost_is_asked_for_again_and_gives_one_instance(cloud, rented):
    cloud.inject("api:RunInstances:lost-reply:times=1")
    run = run_of()
    seen = launched(rented, run)
    assert len(cloud.of("RunInstances")) == 2
    assert len({c.parameters["ClientToken"] for c in cloud.of("RunInstances")}) == 1
    assert cloud.leftovers().instances == (seen.host.instance_id,)
    end(rented, run, seen)


def test_a_host_with_another_key_gets_nothing(cloud, rented):
    run = run_of()
    seen = launched(rented, run)
    rented.launcher.keys[1] = replace(rented.launcher.keys[1], host=HostKey.generate())
    reason, message = rented.train(run, seen)
    assert reason == "died"
    assert "not our instance" in message
    assert not list(Path(cloud._folder).glob("*/*/var/lib/gpu-offload/jobs/*")), "nothing was started"
    end(rented, run, seen)


def test_no_capacity_is_a_refusal_that_another_zone_may_mend_and_a_quota_is_not(cloud, rented):
    run = run_of()
    cloud.ec2.set_capacity("us-east-1a:*", 0)
    with pytest.raises(RefusedError, match="InsufficientInstanceCapacity") as none_free:
        rented.launch(run, attempt_of(run))
    assert not none_free.value.quota
    cloud.compute.behaviour = replace(cloud.behaviour, quota_spot_gpu=0)
    cloud.ec2.set_capacity("us-east-1a:*", None)
    with pytest.raises(RefusedError, match="servicequotas") as no_quota:
        rented.launch(run, attempt_of(run, 2))
    assert no_quota.value.quota
    assert not cloud.leftovers().instances


def test_a_denial_with_a_disk_above_the_policy_names_both_sizes(cloud, rented):
    regions, run = rented.launcher.regions, run_of()
    regions._images["us-east-1"] = replace(regions.image("us-east-1"), size_gib=150)
    cloud.inject("api:RunInstances:error=UnauthorizedOperation:times=2")
    with pytest.raises(LaunchDeniedError, match=r"150 GiB.*100 GiB"):
        rented.launch(run, attempt_of(run))
    regions._images["us-east-1"] = replace(regions.image("us-east-1"), size_gib=80)
    with pytest.raises(LaunchDeniedError) as denied:
        rented.launch(run, attempt_of(run, 2))
    assert "GiB" not in str(denied.value)


def test_a_driver_without_the_keys_starts_nothing_and_says_why(cloud, rented, tmp_path):
    run = run_of()
    seen = launched(rented, run)
    other = renting(tmp_path)
    other.instances(run, (seen,))
    assert other.train(run, seen)[0] == "orphaned"
    end(rented, run, seen)


def test_training_on_ec2_needs_a_bucket_and_a_role_and_says_both_before_anything_begins(tmp_path):
    settings = Settings(root=tmp_path, dataset=DatasetSettings(path="shapes"))
    with pytest.raises(RentingError) as error:
        check_renting(settings, {})
    assert "store.url" in str(error.value)
    assert "ec2.instance-profile" in str(error.value)


@pytest.mark.parametrize("url", ["file:models", "sftp://me@files.example.org/srv", "hf://me/models"])
def test_an_instance_is_rented_for_no_store_but_a_bucket(tmp_path, url):
    """It has no key of an SFTP server and no token of the Hub, and would cost money until it fails."""
    settings = settings_of(tmp_path, instance_profile="trainer").model_copy(
        update={"store": StoreSettings(url=url)}
    )
    with pytest.raises(RentingError, match=r"store\.url is .*set store\.url to s3://BUCKET"):
        check_renting(settings, {})


def test_a_store_outside_aws_needs_keys_of_its_own_on_an_instance(tmp_path):
    store = StoreSettings(url="s3://bucket", endpoint_url="https://account.store.example")
    settings = settings_of(tmp_path, instance_profile="trainer").model_copy(update={"store": store})
    with pytest.raises(RentingError, match="set STORE_ACCESS_KEY_ID and STORE_SECRET_ACCESS_KEY"):
        check_renting(settings, {"AWS_ACCESS_KEY_ID": "of AWS's"})
    keys = {"STORE_ACCESS_KEY_ID": "id", "STORE_SECRET_ACCESS_KEY": "key"}
    check_renting(settings, keys)
    console = Console(io.StringIO())
    rented = rented_training(
        settings, Journal(open_store("file:/nowhere")), console, renew=int, environment=keys
    )
    assert rented.store_keys == keys
