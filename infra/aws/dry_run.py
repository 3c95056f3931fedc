"""A dry run of a launch: whether a run would be allowed, without spending anything."""

import secrets
from datetime import UTC, datetime, timedelta

from gpu_offload.infra.aws.ec2 import Ec2
from gpu_offload.infra.aws.image import Image
from gpu_offload.infra.aws.launch import LaunchRequest, Market
from gpu_offload.infra.aws.security_group import Subnet

PROBE_GROUP_S = 900
"""Seconds until `offload tend` removes the group of a doctor that was killed."""

UNUSED_CIDR = "203.0.113.1/32"
"""An address for documentation (RFC 5737), which no host has: the group for a dry run admits no one."""


def try_launch(
    ec2: Ec2,
    image: Image,
    subnet: Subnet,
    *,
    instance_type: str,
    market: Market,
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
