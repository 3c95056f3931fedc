"""Dry runs against AWS: whether a run would be allowed, without spending anything."""

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import boto3

from gpu_offload.infra.aws.client_config import client_config
from gpu_offload.infra.aws.ec2 import Ec2
from gpu_offload.infra.aws.error_codes import aws_errors
from gpu_offload.infra.aws.errors import CloudError
from gpu_offload.infra.aws.image import Image
from gpu_offload.infra.aws.launch import LaunchRequest
from gpu_offload.infra.aws.security_group import Subnet

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG = client_config(attempts=3, read_timeout=15)
PROBE_GROUP_S = 900
"""Seconds until `offload tend` removes the group of a doctor that was killed."""

UNUSED_CIDR = "203.0.113.1/32"
"""An address for documentation (RFC 5737), which no host has: the group for a dry run admits no one."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity that AWS sees. `skew_s`: seconds by which this machine's clock is ahead of AWS's."""

    arn: str
    account: str
    skew_s: float

    @property
    def role(self) -> str | None:
        """The name of the assumed role; None for a user."""
        found = re.fullmatch(r"arn:[^:]+:sts::\d+:assumed-role/([^/]+)/.*", self.arn)
        return found[1] if found else None


def caller(session: boto3.Session) -> Caller:
    """Ask AWS for the caller's identity and the time. Raises CloudError."""
    with aws_errors("asking AWS who we are"):
        client = session.client("sts", region_name=session.region_name or "us-east-1", config=CONFIG)
        reply = client.get_caller_identity()
    headers: Mapping[str, str] = reply["ResponseMetadata"].get("HTTPHeaders", {})
    return Caller(reply["Arn"], reply["Account"], skew(headers.get("date", ""), datetime.now(UTC)))


def skew(date: str, now: datetime) -> float:
    """Return how far `now` is ahead of an HTTP Date header, in seconds; 0 without a valid header.

    The header has whole seconds, so anything below 2 is nothing.
    """
    try:
        return (now - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def try_launch(
    ec2: Ec2,
    image: Image,
    subnet: Subnet,
    *,
    instance_type: str,
    market: Any,
    volume_gib: int,
    instance_profile: str | None,
    store: str,
) -> None:
    """Ask EC2 whether the launch of a run would be allowed, without launching.

    A launch needs a tagged security group, so one that admits no one is created and deleted again.

    Raises:
        CloudError: It is denied, or AWS did not answer. EC2 does not check quotas here.
    """
    run, expires = f"doctor-{secrets.token_hex(6)}", datetime.now(UTC) + timedelta(seconds=PROBE_GROUP_S)
    group = ec2.create_security_group(run, UNUSED_CIDR, vpc=subnet.vpc, expires=expires, store=store)
    try:
        ec2.check_launch(
            LaunchRequest(
                run=run,
                attempt=1,
                expires=expires,
                instance_type=instance_type,
                market=market,
                subnet=subnet,
                image_id=image.id,
                root_device=image.root_device,
                security_group=group,
                user_data="",
                volume_gib=max(volume_gib, image.size_gib),
                instance_profile=instance_profile,
                store=store,
            )
        )
    finally:
        ec2.delete_security_group(group)


def may_terminate(session: boto3.Session, region: str, instance_id: str) -> None:
    """Ask EC2 whether terminating an instance would be allowed, without doing so. Raises CloudError."""
    import botocore.exceptions as aws

    with aws_errors(f"asking whether we may terminate {instance_id}"):
        client = session.client("ec2", region_name=region, config=CONFIG)
        try:
            client.terminate_instances(InstanceIds=[instance_id], DryRun=True)
        except aws.ClientError as error:
            if error.response["Error"]["Code"] != "DryRunOperation":
                raise
            return
    raise CloudError(f"asking whether we may terminate {instance_id}: the reply says neither yes nor no")
