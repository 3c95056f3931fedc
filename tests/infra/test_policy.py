"""What each role may and may not do to instances, tried by a simulator of IAM, conditions included."""

import copy
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from policy_case import ACCOUNT, BUCKET, OURS, ROLES, SITE, launch, may, on
from policy_simulator import launch_requests

from gpu_offload.infra.account.site import Site
from gpu_offload.infra.aws.schedule import schedule_parameters
from gpu_offload.infra.aws.tags import store_mark
from gpu_offload.infra.simulator.iam import Request


@pytest.mark.parametrize("public", [True, False], ids=["public subnet", "other subnet"])
@pytest.mark.parametrize("market", ["spot", "on-demand"])
def test_the_launcher_may_launch_what_we_launch(market, public):
    assert may("launcher", *launch_requests(launch(market, public=public)))


def test_a_launch_has_the_mark_of_the_store_also_of_one_outside_aws():
    """By it a sweep, and each role, tells its own runs from those of another project in the account."""
    assert SITE.mark == store_mark(f"s3://{BUCKET}")
    elsewhere = replace(SITE, endpoint_url="https://r2.example")
    assert elsewhere.mark == store_mark(f"s3://{BUCKET}", "https://r2.example")
    assert not may("launcher", *launch_requests(launch()), site=elsewhere)


def changed(**changes):
    parameters = copy.deepcopy(launch())
    parameters |= changes
    return {name: value for name, value in parameters.items() if value is not None}


def disk(**changes):
    parameters = copy.deepcopy(launch())
    parameters["BlockDeviceMappings"][0]["Ebs"] |= changes
    return parameters


def without_tag(kind, key):
    parameters = copy.deepcopy(launch())
    for spec in parameters["TagSpecifications"]:
        if spec["ResourceType"] == kind:
            spec["Tags"] = [tag for tag in spec["Tags"] if tag["Key"] != key]
    return parameters


def with_tag(key):
    parameters = copy.deepcopy(launch())
    for spec in parameters["TagSpecifications"]:
        spec["Tags"] = [*spec["Tags"], {"Key": key, "Value": "x"}]
    return parameters


OURS_TAGS = {"gpu-offload:run": "abc-1"}
METADATA = launch()["MetadataOptions"]
REFUSED_LAUNCHES = {
    "a wrong type": (changed(InstanceType="p4d.24xlarge"), {}),
    "a larger size of the family": (changed(InstanceType="g4dn.metal"), {}),
    "a capacity block": (changed(InstanceMarketOptions={"MarketType": "capacity-block"}), {}),
    "a wrong region": (launch(), {"region": "eu-central-1"}),
    "a stranger's image": (launch(), {"image_owner": "999988887777"}),
    "an image of this account that is not allowed": (launch(), {"image_owner": ACCOUNT}),
    "IMDSv1": (changed(MetadataOptions={**METADATA, "HttpTokens": "optional"}), {}),
    "no word on metadata": (changed(MetadataOptions=None), {}),
    "a hop limit of 2": (changed(MetadataOptions={**METADATA, "HttpPutResponseHopLimit": 2}), {}),
    "an unencrypted volume": (disk(Encrypted=False), {}),
    "a huge volume": (disk(VolumeSize=101), {}),
    "a dear volume": (disk(VolumeType="io2"), {}),
    "IOPS that cost": (disk(Iops=16_000), {}),
    "throughput that costs": (disk(Throughput=1_000), {}),
    "a dedicated instance": (changed(Placement={"Tenancy": "dedicated"}), {}),
    "a dedicated host": (changed(Placement={"Tenancy": "host"}), {}),
    "another profile": (changed(IamInstanceProfile={"Name": "admin"}), {}),
    "no profile": (changed(IamInstanceProfile=None), {}),
    "a key pair": (changed(KeyName="mine"), {}),
    "no tags": (changed(TagSpecifications=[]), {}),
    "no tag of a run on the instance": (without_tag("instance", "gpu-offload:run"), {}),
    "no expiry on the instance": (without_tag("instance", "gpu-offload:expires"), {}),
    "no tag of a run on the volume": (without_tag("volume", "gpu-offload:run"), {}),
    "another owner's tag": (with_tag("team"), {}),
    "a security group that is not ours": (launch(), {"group_tags": {}}),
    "a security group of another store's": (
        launch(),
        {"group_tags": {**OURS_TAGS, "gpu-offload:store": "x"}},
    ),
    "no mark of a store": (without_tag("instance", "gpu-offload:store"), {}),
    **{
        f"no mark of a store on the {kind}": (without_tag(kind, "gpu-offload:store"), {})
        for kind in ("volume", "network-interface", "spot-instances-request")
    },
    "the mark of another store": (with_tag("gpu-offload:store"), {}),
    "one operation a second more than the price includes": (disk(Iops=3_001), {}),
    "one MiB a second more than the price includes": (disk(Throughput=126), {}),
}


@pytest.mark.parametrize("case", REFUSED_LAUNCHES)
def test_the_launcher_may_not_launch_with(case):
    parameters, around = REFUSED_LAUNCHES[case]
    assert not may("launcher", *launch_requests(parameters, **around))


def test_a_disk_may_be_as_fast_as_its_price_includes():
    assert may("launcher", *launch_requests(disk(Iops=3_000, Throughput=125)))


def test_a_stack_for_spot_alone_does_not_launch_on_demand():
    """The market that the settings leave out is left out of the role as well."""
    site = Site("octo-org/octo-repo", BUCKET, markets=("spot",), account=ACCOUNT, partition="aws")
    assert may("launcher", *launch_requests(launch("spot")), site=site)
    assert not may("launcher", *launch_requests(launch("on-demand")), site=site)


@pytest.mark.parametrize("role", ["janitor", "publisher", "trainer", "scheduler"])
def test_no_other_role_launches(role):
    assert not any(may(role, request) for request in launch_requests(launch()))


ENDS = (
    ("ec2:DeleteVolume", "volume"),
    ("ec2:DeleteSecurityGroup", "security-group"),
    ("ec2:CancelSpotInstanceRequests", "spot-instances-request"),
)
"""What ends or removes what an instance can leave."""


@pytest.mark.parametrize("role", ["launcher", "janitor", "scheduler"])
def test_what_bears_our_tag_may_be_terminated_and_nothing_else(role):
    """In a region where launches are not allowed, too: a stray ends wherever it is."""
    for region in ("us-east-1", "eu-central-1"):
        assert may(role, on("ec2:TerminateInstances", "instance", region=region))
        assert not may(role, on("ec2:TerminateInstances", "instance", {}, region))
    assert not may(role, on("ec2:TerminateInstances", "instance", {"aws:ResourceTag/Name": "gpu-offload"}))


@pytest.mark.parametrize("role", ["launcher", "janitor", "scheduler"])
def test_what_another_repository_of_the_account_rents_is_out_of_reach(role):
    """Stacks side by side, each of a repository: instances, disks, groups and requests bear the mark of a store."""
    for store, mine in ((SITE.mark, True), (store_mark("s3://another-bucket"), False)):
        marked = {**OURS, "aws:ResourceTag/gpu-offload:store": store}
        assert may(role, on("ec2:TerminateInstances", "instance", marked)) is mine
        for action, kind in () if role == "scheduler" else ENDS:
            assert may(role, on(action, kind, marked)) is mine
    for action in ("ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"):
        assert not may("launcher", on(action, "security-group", marked))
    assert not may("launcher", on("ec2:GetConsoleOutput", "instance", marked))


@pytest.mark.parametrize("role", ROLES)
def test_nothing_that_exists_can_be_made_to_look_like_ours(role):
    """A role that could tag any instance could then terminate it."""
    tag = {"aws:RequestTag/gpu-offload:run": "abc-1", "aws:TagKeys": ["gpu-offload:run"]}
    assert not may(role, on("ec2:CreateTags", "instance", tag))
    assert not may(role, on("ec2:CreateTags", "instance", {**tag, "ec2:CreateAction": "CreateImage"}))


@pytest.mark.parametrize("role", ["launcher", "janitor"])
def test_what_an_instance_leaves_is_deleted_by_tag_and_schedules_by_name(role):
    for action, kind in (("ec2:DeleteVolume", "volume"), ("ec2:DeleteSecurityGroup", "security-group")):
        assert may(role, on(action, kind))
        assert not may(role, on(action, kind, {}))
    at = datetime(2026, 11, 22, tzinfo=UTC)
    mine, another = (
        schedule_parameters("abc-1", 1, "i-1", at, SITE.role("scheduler"), store=store_mark(url))["Name"]
        for url in (f"s3://{BUCKET}", "s3://another-bucket")
    )
    name = mine
    arn = f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule"
    for action in ("Delete", "Get", *(("Create", "Update") if role == "launcher" else ())):
        assert not may(role, Request(f"scheduler:{action}Schedule", f"{arn}/default/{another}")), "another's"
        assert may(role, Request(f"scheduler:{action}Schedule", f"{arn}/default/{name}"))
    assert not may(role, Request("scheduler:DeleteSchedule", f"{arn}/default/backup"))
    assert not may(role, Request("scheduler:DeleteSchedule", f"{arn}/other/{name}"))


def test_only_the_launcher_makes_and_opens_groups_and_only_ours():
    born = {
        "aws:RequestTag/gpu-offload:run": "abc-1",
        "aws:RequestTag/gpu-offload:store": SITE.mark,
        "aws:TagKeys": ["gpu-offload:run", "gpu-offload:store", "Name"],
    }
    group = on("ec2:CreateSecurityGroup", "security-group", born)
    tags = on("ec2:CreateTags", "security-group", {**born, "ec2:CreateAction": "CreateSecurityGroup"})
    ingress = on("ec2:AuthorizeSecurityGroupIngress", "security-group")
    assert may("launcher", group, on("ec2:CreateSecurityGroup", "vpc", {}), tags, ingress)
    assert not may("launcher", on("ec2:CreateSecurityGroup", "security-group", {}))
    for store in ({}, {"aws:RequestTag/gpu-offload:store": store_mark("s3://another-bucket")}):
        unmarked = {k: v for k, v in born.items() if "store" not in k} | store
        assert not may("launcher", on("ec2:CreateSecurityGroup", "security-group", unmarked)), "another's"
    assert not may("launcher", on("ec2:AuthorizeSecurityGroupIngress", "security-group", {}))
    assert not any(may(role, group) or may(role, ingress) for role in ROLES if role != "launcher")


@pytest.mark.parametrize(
    ("role", "service", "yes"),
    [
        ("gpu-offload-trainer", "ec2.amazonaws.com", True),
        ("gpu-offload-scheduler", "scheduler.amazonaws.com", True),
        ("gpu-offload-trainer", "lambda.amazonaws.com", False),
        ("gpu-offload-scheduler", "ec2.amazonaws.com", False),
        ("gpu-offload-launcher", "ec2.amazonaws.com", False),
        ("gpu-offload-trainer2", "ec2.amazonaws.com", False),
        ("admin", "ec2.amazonaws.com", False),
    ],
)
def test_the_launcher_passes_exactly_two_roles_to_exactly_their_services(role, service, yes):
    request = Request("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/{role}", {"iam:PassedToService": service})
    assert may("launcher", request) is yes


def test_the_launcher_makes_the_spot_service_its_role_and_no_other():
    base = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role"
    spot = f"{base}/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
    make = "iam:CreateServiceLinkedRole"
    assert may("launcher", Request(make, spot, {"iam:AWSServiceName": "spot.amazonaws.com"}))
    assert not may("launcher", Request(make, spot, {"iam:AWSServiceName": "eks.amazonaws.com"}))
    assert not may("launcher", Request("iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/x"))


@pytest.mark.parametrize(
    "action",
    [
        "ec2:DescribeInstances",
        "ec2:DescribeSpotPriceHistory",
        "servicequotas:GetServiceQuota",
        "pricing:GetProducts",
    ],
)
def test_the_launcher_sees_what_a_plan_needs(action):
    assert may("launcher", Request(action))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "action",
    [
        "iam:PutRolePolicy",
        "iam:AttachRolePolicy",
        "iam:UpdateAssumeRolePolicy",
        "s3:PutBucketPolicy",
        "s3:PutBucketVersioning",
        "s3:DeleteBucket",
        "s3:DeleteObjectVersion",
        "s3:PutObjectAcl",
        "s3:BypassGovernanceRetention",
        "ec2:StopInstances",
        "ec2:ModifyInstanceAttribute",
        "ec2:ModifyInstanceMetadataOptions",
        "ec2:RequestSpotInstances",
        "ec2:AssociateIamInstanceProfile",
        "sts:AssumeRole",
    ],
)
def test_no_role_can_widen_its_own_rights_or_go_round_a_limit(role, action):
    for resource in (
        "*",
        SITE.role(role),
        f"arn:aws:s3:::{BUCKET}",
        f"arn:aws:s3:::{BUCKET}/models/1/model.pt",
        f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance/i-1",
    ):
        assert not may(role, Request(action, resource, {**OURS, "aws:SecureTransport": "true"}))


def test_a_stack_can_bind_launches_to_a_network():
    bound = replace(SITE, vpc="vpc-0123456789abcdef0", subnets=("subnet-0123456789abcdef0",))
    good = {"vpc": "vpc-0123456789abcdef0", "subnet": "subnet-0123456789abcdef0"}
    assert may("launcher", *launch_requests(launch(), **good), site=bound)
    for changed in ({"vpc": "vpc-0fedcba9876543210"}, {"subnet": "subnet-0fedcba9876543210"}):
        assert not may("launcher", *launch_requests(launch(), **{**good, **changed}), site=bound)
    group = on("ec2:CreateSecurityGroup", "vpc", {})
    assert may("launcher", group)
    assert not may("launcher", group, site=bound)


def test_the_janitor_cancels_persistent_spot_requests_of_ours_only():
    assert may("janitor", Request("ec2:DescribeSpotInstanceRequests"))
    assert may("janitor", on("ec2:CancelSpotInstanceRequests", "spot-instances-request"))
    assert not may("janitor", on("ec2:CancelSpotInstanceRequests", "spot-instances-request", {}))
