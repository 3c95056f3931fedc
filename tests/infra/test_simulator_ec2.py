"""EC2 of the simulated cloud, through boto3 over HTTP: honest where moto is not."""

import base64
import json
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from commands import wait_until
from simulated_time import hasten

from gpu_offload.infra.simulator.account import IMAGE_ID
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.cloud import SimulatedCloud

PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
QUICK = Behaviour(boot_seconds=0.05, shutdown_seconds=0.05, lag_seconds=0.0)
SPOT = {"InstanceMarketOptions": {"MarketType": "spot"}}


@pytest.fixture
def cloud():
    with SimulatedCloud(QUICK) as one:
        yield one
        assert [event for event in one.events if event.kind == "error"] == []


def launch(cloud, token=None, ec2=None, **options):
    ec2 = ec2 or cloud.client("ec2")
    wanted = {"InstanceType": "g4dn.xlarge", "ImageId": IMAGE_ID, "MinCount": 1, "MaxCount": 1, **SPOT}
    if token:
        wanted["ClientToken"] = token
    return ec2.run_instances(**(wanted | options))["Instances"][0]


def see(cloud, instance_id):
    found = cloud.client("ec2").describe_instances(InstanceIds=[instance_id])
    return found["Reservations"][0]["Instances"][0]


@contextmanager
def refused(code):
    with pytest.raises(ClientError) as caught:
        yield caught
    assert caught.value.response["Error"]["Code"] == code


# ------------------------------------------------------------------ launches


def test_a_launch_repeated_with_its_token_gives_the_same_instance(cloud):
    first = launch(cloud, "once")
    assert launch(cloud, "once")["InstanceId"] == first["InstanceId"]
    assert launch(cloud, "twice")["InstanceId"] != first["InstanceId"]


def test_a_token_with_changed_parameters_is_refused(cloud):
    launch(cloud, "once")
    with refused("IdempotentParameterMismatch"):
        launch(cloud, "once", InstanceType="g5.xlarge")


def test_a_token_is_remembered_after_termination_but_not_for_ever(cloud):
    first = launch(cloud, "once")
    cloud.client("ec2").terminate_instances(InstanceIds=[first["InstanceId"]])
    cloud.settle()
    again = launch(cloud, "once")
    assert (again["InstanceId"], again["State"]["Name"]) == (first["InstanceId"], "terminated")
    cloud.advance(3700)
    assert launch(cloud, "once")["InstanceId"] != first["InstanceId"]


def test_a_failed_launch_does_not_use_its_token_up(cloud):
    cloud.ec2.set_capacity("*:*", 0)
    with refused("InsufficientInstanceCapacity"):
        launch(cloud, "once")
    cloud.ec2.set_capacity("*:*", None)
    assert launch(cloud, "once")["State"]["Name"] == "pending"


def test_no_capacity_is_by_zone_and_type_and_the_sdk_does_not_repeat_it(cloud):
    cloud.ec2.set_capacity("us-east-1a:g4dn.xlarge", 1)
    launch(cloud, Placement={"AvailabilityZone": "us-east-1a"})
    before = cloud.calls["ec2.RunInstances"]
    with refused("InsufficientInstanceCapacity") as caught:
        launch(cloud, Placement={"AvailabilityZone": "us-east-1a"})
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert cloud.calls["ec2.RunInstances"] == before + 1
    assert launch(cloud)["Placement"]["AvailabilityZone"] != "us-east-1a"


def test_capacity_is_by_the_zone_of_the_subnet_too(cloud):
    ec2 = cloud.client("ec2")
    subnet = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1b"]}])[
        "Subnets"
    ][0]
    cloud.ec2.set_capacity("us-east-1b:*", 0)
    with refused("InsufficientInstanceCapacity"):
        launch(cloud, SubnetId=subnet["SubnetId"])


def test_a_type_is_launched_only_where_it_is_offered(cloud):
    ec2 = cloud.client("ec2")
    offered = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["g4dn.xlarge"]}]
    )["InstanceTypeOfferings"]
    zones = {zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]}
    missing = sorted(zones - {offer["Location"] for offer in offered})
    with refused("Unsupported"):
        launch(cloud, Placement={"AvailabilityZone": missing[0]})
    with refused("InvalidParameterValue"):
        launch(cloud, InstanceType="g99.nano")


@pytest.mark.simulator
def test_the_spot_quota_counts_vcpu_of_what_runs():
    with SimulatedCloud(Behaviour(quota_spot_gpu=4)) as cloud:
        launch(cloud)
        with refused("MaxSpotInstanceCountExceeded"):
            launch(cloud)
        quota = cloud.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode="L-3819A6DF")
        assert quota["Quota"]["Value"] == 4


@pytest.mark.simulator
def test_the_on_demand_quota_has_its_own_error():
    with SimulatedCloud(Behaviour(quota_on_demand_gpu=0)) as cloud:
        with refused("VcpuLimitExceeded"):
            launch(cloud, InstanceMarketOptions={})
        quota = cloud.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode="L-DB2E81BA")
        assert quota["Quota"]["Value"] == 0


def test_a_highest_price_below_the_market_is_refused(cloud):
    options = {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.01", "SpotInstanceType": "one-time"}}
    with refused("SpotMaxPriceTooLow"):
        launch(cloud, InstanceMarketOptions=options)


@pytest.mark.simulator
def test_a_spot_instance_is_reclaimed_once_its_price_is_above_its_highest():
    with SimulatedCloud(replace(QUICK, reclaim_notice_seconds=0.0)) as cloud:
        spot = {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.45", "SpotInstanceType": "one-time"}}
        cheap, dear = (launch(cloud, **o)["InstanceId"] for o in ({"InstanceMarketOptions": spot}, {}))
        cloud.inject("market:rise=3")
        wait_until(lambda: see(cloud, cheap)["State"]["Name"] == "terminated")
        assert see(cloud, cheap)["StateReason"]["Code"] == "Server.SpotInstanceTermination"
        assert see(cloud, dear)["State"]["Name"] == "running"
        with refused("SpotMaxPriceTooLow"):
            launch(cloud, InstanceMarketOptions=spot)


def test_user_data_above_16_kib_and_unknown_images_are_refused(cloud):
    launch(cloud, UserData="#" * 16_384)
    with refused("InvalidParameterValue"):
        launch(cloud, UserData="#" * 16_385)
    with refused("InvalidAMIID.NotFound"):
        launch(cloud, ImageId="ami-0123456789abcdef0")


def test_a_dry_run_launches_nothing(cloud):
    with refused("DryRunOperation"):
        launch(cloud, DryRun=True)
    assert not cloud.leftovers()


def test_an_unknown_instance_profile_is_refused_and_the_known_one_is_not(cloud):
    with pytest.raises(ClientError):
        launch(cloud, IamInstanceProfile={"Name": "nobody"})
    assert launch(cloud, IamInstanceProfile={"Name": "gpu-offload-instance"})["InstanceId"]


def test_a_spot_instance_says_so_and_has_a_request(cloud):
    spot, demand = launch(cloud), launch(cloud, InstanceMarketOptions={})
    assert spot["InstanceLifecycle"] == "spot"
    assert spot["SpotInstanceRequestId"].startswith("sir-")
    assert "InstanceLifecycle" not in demand
    assert "SpotInstanceRequestId" not in demand


def test_an_address_leads_to_this_machine_and_nowhere_else(cloud):
    addresses = {launch(cloud)["PublicIpAddress"] for _ in range(3)}
    assert len(addresses) == 3
    assert all(address.startswith("127.77.") for address in addresses)


# ------------------------------------------------------------------ states


@pytest.mark.simulator
def test_an_instance_is_pending_then_running_then_shutting_down_then_terminated():
    with SimulatedCloud(Behaviour(boot_seconds=3600, shutdown_seconds=3600, lag_seconds=0)) as cloud:
        name = launch(cloud)["InstanceId"]
        assert see(cloud, name)["State"]["Name"] == "pending"
        hasten(cloud)
        wait_until(lambda: see(cloud, name)["State"]["Name"] == "running")
        cloud.client("ec2").terminate_instances(InstanceIds=[name])
        down = see(cloud, name)
        assert down["State"]["Name"] == "shutting-down"
        assert down["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
        hasten(cloud)
        wait_until(lambda: see(cloud, name)["State"]["Name"] == "terminated")
        gone = see(cloud, name)
        assert gone["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
        assert gone["StateTransitionReason"] == down["StateTransitionReason"]
        assert "GMT" in gone["StateTransitionReason"]
        assert "PublicIpAddress" not in gone


@pytest.mark.simulator
def test_a_new_instance_is_unknown_for_a_while():
    with SimulatedCloud(Behaviour(lag_seconds=3600)) as cloud:
        ec2 = cloud.client("ec2")
        name = launch(
            cloud, TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "k", "Value": "v"}]}]
        )["InstanceId"]
        with refused("InvalidInstanceID.NotFound"):
            ec2.describe_instances(InstanceIds=[name])
        with refused("InvalidInstanceID.NotFound"):
            ec2.terminate_instances(InstanceIds=[name])
        by_tag = [{"Name": "tag:k", "Values": ["v"]}]
        assert ec2.describe_instances(Filters=by_tag)["Reservations"] == []
        hasten(cloud)
        assert ec2.describe_instances(Filters=by_tag)["Reservations"]
        assert see(cloud, name)["InstanceId"] == name


@pytest.mark.simulator
def test_a_new_instance_is_missed_by_so_many_calls():
    with SimulatedCloud(Behaviour(lag_seconds=0, lag_calls=2)) as cloud:
        name = launch(cloud)["InstanceId"]
        for _ in range(2):
            with refused("InvalidInstanceID.NotFound"):
                see(cloud, name)
        assert see(cloud, name)["InstanceId"] == name


@pytest.mark.simulator
def test_a_terminated_instance_vanishes():
    with SimulatedCloud(Behaviour(lag_seconds=0, shutdown_seconds=0.05, vanish_seconds=3600)) as cloud:
        name = launch(cloud)["InstanceId"]
        cloud.client("ec2").terminate_instances(InstanceIds=[name])
        cloud.settle()
        assert see(cloud, name)["State"]["Name"] == "terminated"

        def vanished():
            try:
                see(cloud, name)
            except ClientError as error:
                return error.response["Error"]["Code"] == "InvalidInstanceID.NotFound"
            return False

        hasten(cloud)
        wait_until(vanished)


def test_terminating_twice_is_harmless(cloud):
    ec2, name = cloud.client("ec2"), launch(cloud)["InstanceId"]
    for _ in range(2):
        ec2.terminate_instances(InstanceIds=[name])
        cloud.settle()
    assert not cloud.leftovers()


# ------------------------------------------------------------------ what hangs on an instance


def volume(delete):
    return [
        {
            "DeviceName": "/dev/sda1",
            "Ebs": {"VolumeSize": 60, "VolumeType": "gp3", "DeleteOnTermination": delete},
        }
    ]


def test_a_volume_is_there_while_the_instance_is_and_goes_with_it(cloud):
    ec2 = cloud.client("ec2")
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "gpu-offload:run", "Value": "r"}]}]
    name = launch(cloud, BlockDeviceMappings=volume(delete=True), TagSpecifications=tags)["InstanceId"]
    (found,) = ec2.describe_volumes(Filters=[{"Name": "tag:gpu-offload:run", "Values": ["r"]}])["Volumes"]
    assert (found["Size"], found["VolumeType"], found["State"]) == (60, "gp3", "in-use")
    ec2.terminate_instances(InstanceIds=[name])
    cloud.settle()
    assert ec2.describe_volumes()["Volumes"] == []


def test_a_volume_that_is_not_deleted_with_its_instance_is_left_over(cloud):
    name = launch(cloud, BlockDeviceMappings=volume(delete=False))["InstanceId"]
    cloud.client("ec2").terminate_instances(InstanceIds=[name])
    cloud.settle()
    left = cloud.leftovers()
    assert (left.instances, len(left.volumes), left.costs_money) == ((), 1, True)


def test_a_security_group_in_use_cannot_be_deleted(cloud):
    ec2 = cloud.client("ec2")
    group = ec2.create_security_group(GroupName="mine", Description="d")["GroupId"]
    assert cloud.leftovers().security_groups == (group,)
    name = launch(cloud, SecurityGroupIds=[group])["InstanceId"]
    with refused("DependencyViolation"):
        ec2.delete_security_group(GroupId=group)
    ec2.terminate_instances(InstanceIds=[name])
    cloud.settle()
    ec2.delete_security_group(GroupId=group)
    assert not cloud.leftovers()


def test_the_image_is_found_by_its_public_parameter_and_belongs_to_amazon(cloud):
    name = cloud.client("ssm").get_parameter(Name=PARAMETER)["Parameter"]["Value"]
    (image,) = cloud.client("ec2").describe_images(ImageIds=[name], Owners=["amazon"])["Images"]
    assert (image["ImageOwnerAlias"], image["State"], image["Architecture"]) == (
        "amazon",
        "available",
        "x86_64",
    )


# ------------------------------------------------------------------ prices


def test_spot_prices_differ_by_zone_and_say_since_when(cloud):
    now = datetime.now(UTC)
    rows = cloud.client("ec2").describe_spot_price_history(
        InstanceTypes=["g4dn.xlarge"], ProductDescriptions=["Linux/UNIX"], StartTime=now, EndTime=now
    )["SpotPriceHistory"]
    zones = [row["AvailabilityZone"] for row in rows]
    assert len(zones) == len(set(zones)) >= 3
    assert all(0.1 < float(row["SpotPrice"]) < 0.4 for row in rows)
    assert all(row["Timestamp"] <= now + timedelta(seconds=1) for row in rows)


def test_spot_price_history_can_be_filtered_and_paged(cloud):
    ec2 = cloud.client("ec2")
    days = datetime.now(UTC) - timedelta(days=3)
    pages = ec2.get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=["g5.xlarge", "g4dn.xlarge"],
        Filters=[{"Name": "availability-zone", "Values": ["us-east-1a"]}],
        StartTime=days,
        PaginationConfig={"PageSize": 5},
    )
    rows = [row for page in pages for row in page["SpotPriceHistory"]]
    assert {row["AvailabilityZone"] for row in rows} == {"us-east-1a"}
    assert {row["InstanceType"] for row in rows} == {"g4dn.xlarge", "g5.xlarge"}
    assert len(rows) >= 36
    assert len({row["SpotPrice"] for row in rows}) > 10


def test_spot_prices_move_with_the_clouds_time(cloud):
    ec2 = cloud.client("ec2")

    def price():
        zone = [{"Name": "availability-zone", "Values": ["us-east-1a"]}]
        rows = ec2.describe_spot_price_history(InstanceTypes=["g4dn.xlarge"], Filters=zone)
        return rows["SpotPriceHistory"][0]["SpotPrice"]

    before = price()
    cloud.advance(86400)
    assert price() != before


def test_windows_has_no_price_here(cloud):
    rows = cloud.client("ec2").describe_spot_price_history(ProductDescriptions=["Windows"])
    assert rows["SpotPriceHistory"] == []


def test_on_demand_prices_come_from_the_pricing_api(cloud):
    filters = {
        "instanceType": "g4dn.xlarge",
        "regionCode": "us-east-2",
        "operatingSystem": "Linux",
        "tenancy": "Shared",
    }
    (entry,) = cloud.client("pricing").get_products(
        ServiceCode="AmazonEC2",
        Filters=[{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters.items()],
    )["PriceList"]
    (term,) = json.loads(entry)["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    assert (float(dimension["pricePerUnit"]["USD"]), dimension["unit"]) == (0.526, "Hrs")


# ------------------------------------------------------------------ schedules


def schedule(cloud, instance_id, at, **options):
    cloud.client("scheduler").create_schedule(
        Name="end",
        ScheduleExpression=f"at({at:%Y-%m-%dT%H:%M:%S})",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={
            "Arn": "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances",
            "RoleArn": "arn:aws:iam::123456789012:role/r",
            "Input": json.dumps({"InstanceIds": [instance_id]}),
        },
        **options,
    )


def test_a_schedule_terminates_at_its_time_and_goes(cloud):
    name = launch(cloud)["InstanceId"]
    schedule(cloud, name, datetime.now(UTC) + timedelta(hours=2), ActionAfterCompletion="DELETE")
    assert cloud.leftovers().schedules == ("end",)
    assert cloud.leftovers().instances == (name,)
    cloud.advance(2 * 3600 + 1)
    wait_until(lambda: not cloud.leftovers())
    assert see(cloud, name)["State"]["Name"] == "terminated"


def test_a_schedule_fires_by_itself_when_the_time_comes(cloud):
    name = launch(cloud)["InstanceId"]
    schedule(cloud, name, datetime.now(UTC) + timedelta(seconds=1))
    wait_until(lambda: not cloud.leftovers().instances)
    assert cloud.leftovers().schedules == ("end",)


def test_a_disabled_or_deleted_schedule_does_nothing(cloud):
    name = launch(cloud)["InstanceId"]
    at = datetime.now(UTC) + timedelta(hours=1)
    schedule(cloud, name, at, State="DISABLED")
    cloud.advance(7200)
    cloud.client("scheduler").delete_schedule(Name="end")
    assert cloud.leftovers().instances == (name,)


# ------------------------------------------------------------------ books


def test_calls_are_counted_by_operation(cloud):
    launch(cloud)
    cloud.client("s3").put_object(Bucket="gpu-offload", Key="k", Body=b"v")
    cloud.client("s3").get_object(Bucket="gpu-offload", Key="k")
    assert (cloud.calls["ec2.RunInstances"], cloud.calls["s3.PutObject"], cloud.calls["s3.GetObject"]) == (
        1,
        1,
        1,
    )


def test_two_clouds_at_once_do_not_see_each_other(cloud):
    with SimulatedCloud(QUICK) as other:
        launch(cloud)
        assert not other.leftovers()
        assert other.client("ec2").describe_instances()["Reservations"] == []
    assert cloud.leftovers().instances


def test_another_region_is_another_place(cloud):
    launch(cloud, ec2=cloud.client("ec2", region="us-east-2"))
    assert cloud.client("ec2").describe_instances()["Reservations"] == []
    assert len(cloud.leftovers().instances) == 1


def test_twenty_racers_for_one_object_have_one_winner(cloud):
    from concurrent.futures import ThreadPoolExecutor

    s3 = cloud.client("s3", config=Config(max_pool_connections=20))

    def race(number):
        try:
            s3.put_object(Bucket="gpu-offload", Key="race", Body=str(number).encode(), IfNoneMatch="*")
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(race, range(20))) == 1


def test_eight_launches_at_once_get_eight_instances_and_one_token_gets_one(cloud):
    from concurrent.futures import ThreadPoolExecutor

    ec2 = cloud.client("ec2")
    with ThreadPoolExecutor(8) as pool:
        different = set(pool.map(lambda n: launch(cloud, f"t{n}", ec2)["InstanceId"], range(8)))
        same = set(pool.map(lambda _: launch(cloud, "same", ec2)["InstanceId"], range(8)))
    assert (len(different), len(same)) == (8, 1)


def test_the_console_says_what_the_boot_printed(cloud):
    ec2 = cloud.client("ec2")
    user_data = "#cloud-config\nruncmd: [echo hello-from-the-boot]\n"
    name = launch(cloud, UserData=user_data)["InstanceId"]
    wait_until(
        lambda: (
            "hello-from-the-boot" in ec2.get_console_output(InstanceId=name, Latest=True).get("Output", "")
        )
    )
    ec2.terminate_instances(InstanceIds=[name])
    cloud.settle()
    assert "hello-from-the-boot" in ec2.get_console_output(InstanceId=name)["Output"]
    assert base64.b64decode(
        ec2.describe_instance_attribute(InstanceId=name, Attribute="userData")["UserData"]["Value"]
    ).startswith(b"#cloud-config")
