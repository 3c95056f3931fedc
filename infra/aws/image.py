"""The machine image: Amazon's newest deep-learning image by its public parameter, or the configured one."""

from dataclasses import dataclass

import boto3

from gpu_offload.infra.aws.caller import caller
from gpu_offload.infra.aws.client_config import make_client
from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.error_codes import aws_errors
from gpu_offload.infra.aws.errors import DeniedError, InvalidRequestError, MissingError

PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
"""Deep Learning Base AMI: Ubuntu 22.04 with NVIDIA's open driver, which g4dn and newer need. AWS renews it often, so
driver and image do not rot. https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html"""

ARCHITECTURE = "x86_64"

TRUSTED = ("amazon", "self")
"""Trusted owners of images. An image runs as root with the role's credentials, and anyone can publish one."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that fits. `size_gib` is the least that the root volume can be."""

    id: str
    name: str
    owner: str
    root_device: str
    size_gib: int


def find_image(
    region: str,
    wanted: str | None = None,
    *,
    session: boto3.Session | None = None,
    owners: tuple[str, ...] = TRUSTED,
) -> Image:
    """Return the image to start, after checks of its owner, state, architecture and root device.

    Args:
        region: An image's id belongs to one region.
        wanted: An AMI's id, the name of an SSM parameter that holds one (it begins with `/`), or None for
            Amazon's deep-learning image. A parameter below `/aws/service/` must name an image of Amazon's.
        session: The caller's session; None for `open_session`.
        owners: Allowed owners of the image: "amazon", "self" or account ids.

    Raises:
        InvalidRequestError: There is no such image, or it does not fit.
        DeniedError: Its owner is not trusted.
    """
    session = session or open_session(region)
    wanted = (wanted or PARAMETER).removeprefix("resolve:ssm:")
    source = wanted
    if not wanted.startswith("ami-"):
        wanted = _parameter(region, wanted, session)
        # Only AWS writes parameters there, so another owner's image would be a mistake of the settings.
        if source.startswith("/aws/service/"):
            owners = ("amazon",)
    with aws_errors(f"looking for image {wanted} in {region}"):
        client = make_client(session, "ec2", region)
        # A deprecated image still starts, and is described on request only.
        found = client.describe_images(ImageIds=[wanted], IncludeDeprecated=True)["Images"]
    if not found:
        raise InvalidRequestError(
            f"image {wanted} (from {source}) is not in {region}",
            remedy="images have another id in each region",
        )
    item = found[0]
    owner_id = item.get("OwnerId", "")
    owner = item.get("ImageOwnerAlias") or owner_id
    trusted = (
        owner in owners or owner_id in owners or ("self" in owners and caller(session).account == owner_id)
    )
    if not trusted:
        raise DeniedError(
            f"image {wanted} ({item.get('Name', 'without a name')}) belongs to {owner}, not to {' or '.join(owners)}",
            remedy="take an image of Amazon's or of this account's (copy it with: aws ec2 copy-image)",
        )
    root = item.get("RootDeviceName") or ""
    sizes = [
        mapping["Ebs"].get("VolumeSize", 0)
        for mapping in item.get("BlockDeviceMappings", [])
        if mapping.get("DeviceName") == root and "Ebs" in mapping
    ]
    faults = [
        text
        for wrong, text in (
            (item.get("State") != "available", f"is {item.get('State')}"),
            (
                item.get("Architecture") != ARCHITECTURE,
                f"is for {item.get('Architecture')}, not {ARCHITECTURE}",
            ),
            (item.get("RootDeviceType") != "ebs" or not root, "has no EBS root device"),
            (item.get("Platform") == "windows", "is Windows"),
        )
        if wrong
    ]
    if faults:
        raise InvalidRequestError(f"image {wanted} {' and '.join(faults)}", remedy="correct ec2.image")
    return Image(
        id=wanted,
        name=item.get("Name", ""),
        owner=owner,
        root_device=root,
        size_gib=max(sizes, default=0),
    )


def _parameter(region: str, name: str, session: boto3.Session) -> str:
    operation = f"reading the parameter {name} in {region}"
    try:
        with aws_errors(operation):
            client = make_client(session, "ssm", region)
            value: str = client.get_parameter(Name=name)["Parameter"]["Value"]
    except MissingError as error:
        raise InvalidRequestError(
            f"{operation}: there is none", code=error.code, remedy="correct ec2.image, or leave it out"
        ) from None
    if not value.startswith("ami-"):
        raise InvalidRequestError(
            f"{operation}: it holds {value!r}, no image's id", remedy="correct ec2.image"
        )
    return value
