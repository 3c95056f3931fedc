"""The stack whose policies are tried, and requests about its resources."""

from datetime import UTC, datetime

from gpu_offload.infra.account.policies import policies
from gpu_offload.infra.account.site import Site
from gpu_offload.infra.aws.launch import LaunchRequest, launch_parameters
from gpu_offload.infra.aws.security_group import Subnet
from gpu_offload.infra.simulator.iam import Request, allowed

ACCOUNT = "111122223333"
BUCKET = "octo-models"
SITE = Site(
    "octo-org/octo-repo", BUCKET, owner_id=123456, repository_id=456789, account=ACCOUNT, partition="aws"
)
ROLES = ("launcher", "janitor", "publisher", "trainer", "scheduler")
ONCE = {"If-None-Match": "*"}
SAME = {"If-Match": '"etag"'}


def policy(site, name, *, plain_public=False):
    """Return one policy's document."""
    return next(each.json() for each in policies(site, plain_public=plain_public) if each.name == name)


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


OURS = {"aws:ResourceTag/gpu-offload:run": "abc-1"}


def on(action, kind, context=OURS, region="us-east-1"):
    common = {"aws:RequestedRegion": region}
    return Request(action, f"arn:aws:ec2:{region}:{ACCOUNT}:{kind}/x-1", {**common, **context})
