"""A simulated account in moto: its first bucket, roles and images, and its removal."""

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

from moto.core.base_backend import BackendDict
from moto.ec2.models.amis import Ami
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.ssm.models import Parameter, ssm_backends

from gpu_offload.infra.simulator.stack_roles import StackRoles

BUCKET = "gpu-offload"
"""A bucket that is there from the start."""
PROFILE = "gpu-offload-instance"
"""The role and instance profile that are there from the start."""
TRUST = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}'  # fmt: skip

PARAMETERS = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id",
)
NAME = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu {release}) (simulated)"
IMAGE_ID = "ami-00000000000000001"
AMAZON = "898082745236"
"""The account that owns the Deep Learning images."""


def provision(account: str, region: str, roles: StackRoles | None) -> None:
    """Create what a set-up account has: a bucket, the role of instances, and the roles of a stack."""
    # Bucket names are global, also over the clouds of one process.
    if BUCKET not in s3_backends.bucket_accounts:
        s3_backends[account]["aws"].create_bucket(BUCKET, region)
    iam = iam_backends[account]["aws"]
    stack = {name: json.dumps(trust) for name, trust in roles.trusts().items()} if roles is not None else {}
    for name, trust in {PROFILE: TRUST, **stack}.items():
        iam.create_role(
            role_name=name,
            assume_role_policy_document=trust,
            path="/",
            permissions_boundary=None,
            description="",
            tags=[],
            max_session_duration="3600",
        )
        if name == PROFILE or name.endswith("-trainer"):
            iam.create_instance_profile(name=name, path="/", role_names=[], tags=[])
            iam.add_role_to_instance_profile(name, name)


def forget(account: str) -> None:
    """Remove an account from moto, whose state belongs to the process."""
    with contextlib.suppress(KeyError):
        s3_backends[account]["aws"].reset()
    for backends in list(BackendDict._instances):  # noqa: SLF001  moto has no other list
        backends.pop(account, None)


def add_image(account: str, region: str, backend: Any) -> None:
    """Register the images in a region, owned by `amazon`, and point the public parameters to them."""
    parameters = ssm_backends[account][region]._parameters  # noqa: SLF001  /aws/service is not writable from outside
    for number, name in enumerate(PARAMETERS, start=1):
        image_id = f"ami-0{number:016x}"
        release = name.rpartition("ubuntu-")[2].partition("/")[0]
        backend.amis[image_id] = Ami(
            backend,
            image_id,
            name=NAME.format(release=release),
            description="What the simulated cloud boots: this machine's own files",
            owner_id=AMAZON,
            owner_alias="amazon",
            public=True,
            virtualization_type="hvm",
            architecture="x86_64",
            root_device_type="ebs",
            root_device_name="/dev/sda1",
            region_name=f"{region}a",
        )
        parameters[name].append(
            Parameter(
                account_id=account,
                name=name,
                value=image_id,
                parameter_type="String",
                description=None,
                allowed_pattern=None,
                keyid=None,
                last_modified_date=datetime.now(UTC),
                version=1,
                data_type="aws:ec2:image",
            )
        )
