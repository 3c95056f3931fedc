"""The one image that we launch, and the public parameters that lead to it."""

from datetime import UTC, datetime
from typing import Any

from moto.ec2.models.amis import Ami
from moto.ssm.models import Parameter, ssm_backends

PARAMETERS = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id",
)
NAME = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu {release}) (simulated)"
IMAGE_ID = "ami-00000000000000001"
AMAZON = "898082745236"
"""The account that owns the Deep Learning images."""


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
