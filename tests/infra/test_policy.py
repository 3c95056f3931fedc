"""What each role may and may not do, tried by a simulator of IAM, conditions included."""

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_simulator import (
    Request,
    allowed,
    launch_requests,
    list_request,
    object_request,
    token_request,
)

from gpu_offload.infra.account.policies import policies, policy
from gpu_offload.infra.account.site import Site, SiteError
from gpu_offload.infra.account.template import in_cloudformation, template
from gpu_offload.infra.aws.launch import LaunchRequest, launch_parameters
from gpu_offload.infra.aws.schedule import schedule_parameters
from gpu_offload.infra.aws.security_group import Subnet
from gpu_offload.infra.aws.tags import store_mark

ACCOUNT = "111122223333"
BUCKET = "octo-models"
SITE = Site(
    "octo-org/octo-repo", BUCKET, owner_id=123456, repository_id=456789, account=ACCOUNT, partition="aws"
)
ROLES = ("launcher", "janitor", "publisher", "trainer", "scheduler")
ONCE = {"If-None-Match": "*"}
SAME = {"If-Match": '"etag"'}


def may(role, *requests, site=SITE):
    """Whether a role may all of this; the bucket's own policy has its say, too."""
    documents = [policy(site, role), policy(site, "bucket")]
    return all(allowed(documents, request) for request in requests)


def launch(market="spot", *, public=True):
    """The very parameters by which we launch."""
    return launch_parameters(
        LaunchRequest(
            run="abc-1",
            attempt=1,
            expires=datetime(2026, 11, 22, tzinfo=UTC),
            instance_type="g4dn.xlarge",
            market=market,
            subnet=Subnet("subnet-1", "vpc-1", "us-east-1a", public),
            image_id="ami-0123456789abcdef0",
            root_device="/dev/sda1",
            security_group="sg-1",
            user_data="",
            volume_gib=60,
            instance_profile="gpu-offload-trainer",
            store=SITE.mark,
        )
    )


# ------------------------------------------------------------------------------------- launching


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
    "an image of this account that nobody allowed": (launch(), {"image_owner": ACCOUNT}),
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
    "a tag of somebody else's": (with_tag("team"), {}),
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
def test_nobody_else_launches(role):
    assert not any(may(role, request) for request in launch_requests(launch()))


# ---------------------------------------------------------------- what is there already, and its end

OURS = {"aws:ResourceTag/gpu-offload:run": "abc-1"}


ENDS = (
    ("ec2:DeleteVolume", "volume"),
    ("ec2:DeleteSecurityGroup", "security-group"),
    ("ec2:CancelSpotInstanceRequests", "spot-instances-request"),
)
"""What ends or removes what an instance can leave."""


def on(action, kind, context=OURS, region="us-east-1"):
    common = {"aws:RequestedRegion": region}
    return Request(action, f"arn:aws:ec2:{region}:{ACCOUNT}:{kind}/x-1", {**common, **context})


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
    """Could somebody tag a stranger's instance, he could then terminate it."""
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


# --------------------------------------------------------------------------------------- the store

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
def test_nobody_deletes_what_is_published(role):
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


# ------------------------------------------------------------------------------------------- trust

ENVIRONMENT = "repo:octo-org/octo-repo:environment:gpu"
BRANCH = "repo:octo-org/octo-repo:ref:refs/heads/main"
SUBJECTS = {
    ENVIRONMENT: {"launcher"},
    "repo:octo-org@123456/octo-repo@456789:environment:gpu": {"launcher"},
    BRANCH: {"janitor", "publisher"},
    "repo:octo-org@123456/octo-repo@456789:ref:refs/heads/main": {"janitor", "publisher"},
    "repo:octo-org/octo-repo:pull_request": set(),
    "repo:octo-org@123456/octo-repo@456789:pull_request": set(),
    "repo:stranger/octo-repo:environment:gpu": set(),
    "repo:stranger/octo-repo:ref:refs/heads/main": set(),
    "repo:octo-org@999/octo-repo@456789:environment:gpu": set(),
    "repo:octo-org@123456/octo-repo@1:ref:refs/heads/main": set(),
    "repo:octo-org/octo-repo:ref:refs/heads/feature": set(),
    "repo:octo-org/octo-repo:ref:refs/tags/main": set(),
    "repo:octo-org/octo-repo:environment:gpu2": set(),
    "repo:octo-org/octo-repo-2:environment:gpu": set(),
    "repo:octo-org/octo-repo:*": set(),
    "repo:*": set(),
    "*": set(),
    "REPO:octo-org/octo-repo:environment:gpu": set(),
    "": set(),
}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_who_becomes_which_role(subject):
    trusted = {
        role
        for role in ("launcher", "janitor", "publisher")
        if allowed([policy(SITE, f"{role}-trust")], token_request(subject))
    }
    assert trusted == SUBJECTS[subject]


@pytest.mark.parametrize("audience", ["https://github.com/octo-org", "", "*", "sts.amazonaws.com.evil"])
def test_a_token_for_somebody_else_is_refused(audience):
    assert not allowed([policy(SITE, "launcher-trust")], token_request(ENVIRONMENT, audience))
    assert not allowed([policy(SITE, "janitor-trust")], token_request(BRANCH, audience))


@given(st.text(max_size=60), st.sampled_from(["launcher", "janitor", "publisher"]))
def test_no_other_subject_ever_gets_in(subject, role):
    if role not in SUBJECTS.get(subject, set()):
        assert not allowed([policy(SITE, f"{role}-trust")], token_request(subject))


@pytest.mark.parametrize("role", ["launcher", "janitor", "publisher"])
@pytest.mark.parametrize(
    "claims",
    [
        {"ref": "refs/heads/feature"},
        {"ref": "refs/tags/main"},
        {"ref": "refs/pull/1/merge"},
        {"ref": None},
        {"repository_id": "1"},
        {"repository_id": None},
    ],
)
def test_a_token_of_another_branch_or_repository_is_refused_whatever_its_subject(role, claims):
    """An environment's subject names no branch, and a repository that takes over a name has another number."""
    subject = ENVIRONMENT if role == "launcher" else BRANCH
    assert allowed([policy(SITE, f"{role}-trust")], token_request(subject))
    assert not allowed([policy(SITE, f"{role}-trust")], token_request(subject, **claims))


def test_a_stack_can_trust_one_workflow_file_alone():
    workflow = "octo-org/octo-repo/.github/workflows/offload.yml@refs/heads/main"
    trust = policy(replace(SITE, job_workflow_ref=workflow), "janitor-trust")
    assert allowed([trust], token_request(BRANCH, job_workflow_ref=workflow))
    for other in (None, workflow.replace("offload", "evil"), workflow.replace("heads/main", "heads/x")):
        assert not allowed([trust], token_request(BRANCH, job_workflow_ref=other))


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


def test_the_scheduler_is_trusted_for_this_account_only():
    document = policy(SITE, "scheduler-trust")
    group = f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule-group/default"
    assume = "sts:AssumeRole"
    mine = {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": group}
    other = {"aws:SourceAccount": "999988887777", "aws:SourceArn": group.replace(ACCOUNT, "999988887777")}
    assert allowed([document], Request(assume, "*", mine))
    assert not allowed([document], Request(assume, "*", other))
    assert not allowed([document], Request(assume, "*", {}))


# ------------------------------------------------------------------------------- all of them together


def statements():
    return [
        pytest.param(found.name, statement, id=f"{found.name}/{statement.sid}")
        for found in policies(SITE)
        for statement in found.statements
    ]


@pytest.mark.parametrize(("name", "statement"), statements())
def test_every_statement_has_a_reason_a_link_and_no_wildcard_action(name, statement):
    assert len(statement.reason) > 20
    assert statement.link.startswith(
        ("https://docs.aws.amazon.com/", "https://docs.github.com/", "https://github.blog/")
    )
    if statement.effect == "Allow":
        assert not [action for action in statement.actions if "*" in action]
        assert statement.principal != "*" or name == "bucket"


READS = ("Describe", "Get", "List")
BESIDE = {"LaunchImage", "LaunchInSubnet", "CreateGroupInNetwork"}
"""Resources that a call of ours uses beside the one that must bear our tag: image, subnet and network are others'."""


@pytest.mark.parametrize(("name", "statement"), statements())
def test_what_changes_something_in_ec2_does_so_by_tag_and_never_everywhere(name, statement):
    changing = [a for a in statement.actions if not a.split(":")[1].startswith(READS)]
    if statement.effect == "Deny" or not changing or not statement.resources:
        return
    assert "*" not in statement.resources
    if any(action.startswith("ec2:") for action in changing) and statement.sid not in BESIDE:
        keys = statement.conditions["Null"]
        assert (
            keys.get("aws:ResourceTag/gpu-offload:run", keys.get("aws:RequestTag/gpu-offload:run")) == "false"
        )


@cache
def aws_data():
    """AWS's own list of actions, resources and condition keys, as cfn-lint carries it."""
    found = find_spec("cfnlint")  # not imported: that takes seconds
    if found is None or found.origin is None:
        pytest.skip("cfn-lint is not installed")
    path = Path(found.origin).parent / "data" / "AdditionalSpecs" / "Policies.json"
    return json.loads(path.read_text())


@pytest.mark.parametrize(("name", "statement"), statements())
def test_aws_knows_the_actions_and_the_keys_for_the_resources_that_we_name(name, statement):
    """A condition key that a resource does not have never holds, or always: neither is what one meant."""
    data = aws_data()
    for action in statement.actions:
        service, verb = action.lower().split(":")
        if verb == "*":
            continue
        assert verb in data[service]["Actions"], action
        kinds = data[service]["Actions"][verb].get("Resources", [])
        if service != "ec2" or statement.resources == ("*",):
            continue
        for resource in statement.resources:
            kind = resource.split(":", 5)[5].split("/")[0]
            assert kind in kinds, f"{action} on {kind}"
            known = [k.replace("/${TagKey}", "") for k in data["ec2"]["Resources"][kind]["ConditionKeys"]]
            for keys in statement.conditions.values():
                for key in keys:
                    assert key.split("/")[0] in [*known, "aws:RequestedRegion", "ec2:CreateAction"], key


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_policy_fits_into_what_iam_takes(role):
    """10,240 characters for a role's own policies, white space not counted."""
    size = len(json.dumps(policy(SITE, role), separators=(",", ":")))
    assert size < 10_240
    assert len(json.dumps(policy(SITE, "bucket"))) < 20_480


def test_faults_of_a_site_come_all_at_once():
    with pytest.raises(SiteError) as caught:
        Site(
            "octo-org/*",
            "My_Bucket",
            owner_id=1,
            branch="*",
            environment="gpu:x",
            prefix="../",
            markets=("free",),
        )
    assert len(caught.value.faults) == 7
    for text in ("repository", "bucket", "branch", "environment", "prefix", "market", "together"):
        assert text in str(caught.value)


@given(st.text(alphabet="*?${}:/ @\"'ab\n", min_size=1, max_size=12))
def test_no_name_smuggles_a_wildcard_or_a_variable_into_a_policy(text):
    for field in ("repository", "branch", "environment", "bucket", "prefix", "name"):
        values = {"repository": "octo-org/octo-repo", "bucket": BUCKET, field: text}
        try:
            site = Site(**values)
        except SiteError:
            continue
        assert not set("*?${}:@\n \"'") & set(getattr(site, field))


# ------------------------------------------------------------------------------------- the template


def resolved(value):
    """What CloudFormation makes of the template's documents in our account."""
    if isinstance(value, dict):
        if set(value) == {"Fn::Sub"}:
            text = value["Fn::Sub"].replace("${AWS::AccountId}", ACCOUNT).replace("${AWS::Partition}", "aws")
            return text.replace("${!", "${")
        return {key: resolved(each) for key, each in value.items()}
    return [resolved(each) for each in value] if isinstance(value, list) else value


OPEN = Site("octo-org/octo-repo", BUCKET, owner_id=123456, repository_id=456789)


def test_the_template_holds_the_very_policies_that_were_tried():
    resources = template(OPEN)["Resources"]
    for role in ROLES:
        properties = resources[f"{role.title()}Role"]["Properties"]
        assert resolved(properties["AssumeRolePolicyDocument"]) == policy(SITE, f"{role}-trust")
        assert [resolved(p["PolicyDocument"]) for p in properties["Policies"]] == [policy(SITE, role)]
    assert resolved(resources["BucketPolicy"]["Properties"]["PolicyDocument"]) == policy(SITE, "bucket")
    assert resources["TrainerProfile"]["Properties"]["InstanceProfileName"] == "gpu-offload-trainer"


def test_iams_own_variables_survive_cloudformation():
    text = "arn:${AWS::Partition}:s3:::b/${aws:userid}/*"
    assert in_cloudformation([text]) == [{"Fn::Sub": "arn:${AWS::Partition}:s3:::b/${!aws:userid}/*"}]
    assert resolved(in_cloudformation(text)) == "arn:aws:s3:::b/${aws:userid}/*"
    assert in_cloudformation("${aws:userid}") == "${aws:userid}"


def test_the_bucket_is_encrypted_versioned_kept_and_public_by_policy_only():
    bucket = template(OPEN)["Resources"]["Bucket"]
    properties = bucket["Properties"]
    assert bucket["DeletionPolicy"] == "Retain"
    assert properties["PublicAccessBlockConfiguration"] == {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": False,
        "RestrictPublicBuckets": False,
    }
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    rules = {rule["Id"]: rule for rule in properties["LifecycleConfiguration"]["Rules"]}
    assert rules["end-runs"]["Prefix"] == "runs/"
    assert "Prefix" not in rules["abort-uploads"]
    assert all("models" not in rule.get("Prefix", "") for rule in rules.values())
    assert not [r for r in rules.values() if "ExpirationInDays" in r and not r.get("Prefix")]


def test_the_provider_is_made_where_there_is_none_and_the_budget_where_there_is_an_address():
    found = template(OPEN)
    assert found["Resources"]["GitHubProvider"]["Condition"] == "MakeProvider"
    assert found["Resources"]["GitHubProvider"]["Properties"]["ClientIdList"] == ["sts.amazonaws.com"]
    assert found["Resources"]["Budget"]["Condition"] == "MakeBudget"


@pytest.mark.parametrize("plain", [False, True])
def test_cfn_lint_finds_nothing(plain):
    api = pytest.importorskip("cfnlint.api", reason="cfn-lint is not installed")
    site = Site("octo-org/octo-repo", BUCKET, prefix="keys/", image_owners=("amazon", "${AWS::AccountId}"))
    found = api.lint(json.dumps(template(site, plain_public=plain)))
    assert [str(match) for match in found] == []


def test_cfn_lint_does_find_what_is_wrong():
    """A silent linter would prove nothing."""
    api = pytest.importorskip("cfnlint.api", reason="cfn-lint is not installed")
    wrong = template(OPEN)
    wrong["Resources"]["Bucket"]["Properties"]["Versioning"] = "yes"
    wrong["Resources"]["LauncherRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"][0][
        "Efect"
    ] = "Allow"
    assert {match.rule.id[0] for match in api.lint(json.dumps(wrong))} == {"E"}
