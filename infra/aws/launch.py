"""The parameters of RunInstances."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from gpu_offload.infra.aws.security_group import Subnet
from gpu_offload.infra.aws.tags import ATTEMPT_TAG, RUN_TAG, tags

Market = Literal["spot", "on-demand"]


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One instance of one attempt. `volume_gib` is at least the image's own size; `expires` is absolute."""

    run: str
    attempt: int
    expires: datetime
    instance_type: str
    market: Market
    subnet: Subnet
    image_id: str
    root_device: str
    security_group: str
    user_data: str
    volume_gib: int
    instance_profile: str | None = None
    max_price_usd: float | None = None
    """Highest spot price, USD/h; None for the on-demand price, which AWS never exceeds."""
    store: str | None = None
    """The mark of the store that has the run's journal."""

    @property
    def offer(self) -> str:
        """The market of the launch."""
        return f"{self.instance_type}/{self.subnet.zone}/{self.market}"


def client_token(run: str, attempt: int, offer: str, store: str | None = None) -> str:
    """Return the token by which EC2 recognises a repeated launch: 64 characters, from these four alone.

    Two stores in one account can have runs of the same name, and each needs its own instance.

    https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
    """
    return hashlib.sha256("\0".join((run, str(attempt), offer, store or "")).encode()).hexdigest()


def launch_parameters(request: LaunchRequest) -> dict[str, Any]:
    """Return the parameters of RunInstances for a request, with every safeguard against leaks."""
    name = f"gpu-offload {request.run} #{request.attempt}"
    labels = tags(
        {RUN_TAG: request.run, ATTEMPT_TAG: str(request.attempt), "Name": name},
        request.expires,
        request.store,
    )
    tagged = ["instance", "volume", "network-interface"]
    # A subnet without public addresses gives one on request only, and the request belongs to a network interface.
    placement: dict[str, Any] = {"SubnetId": request.subnet.id, "SecurityGroupIds": [request.security_group]}
    if not request.subnet.public:
        placement = {
            "NetworkInterfaces": [
                {
                    "DeviceIndex": 0,
                    "SubnetId": request.subnet.id,
                    "Groups": [request.security_group],
                    "AssociatePublicIpAddress": True,
                    "DeleteOnTermination": True,
                }
            ]
        }
    parameters: dict[str, Any] = {
        "ClientToken": client_token(request.run, request.attempt, request.offer, request.store),
        "MinCount": 1,
        "MaxCount": 1,
        "ImageId": request.image_id,
        "InstanceType": request.instance_type,
        # The default is `stop`, after which the volume still costs money.
        "InstanceInitiatedShutdownBehavior": "terminate",
        "Placement": {"AvailabilityZone": request.subnet.zone},
        **placement,
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,  # a container, one hop further, cannot reach the role's credentials
            "InstanceMetadataTags": "disabled",
        },
        "BlockDeviceMappings": [
            {
                "DeviceName": request.root_device,
                "Ebs": {
                    "VolumeSize": request.volume_gib,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
        "UserData": request.user_data,
    }
    if request.instance_profile:
        parameters["IamInstanceProfile"] = {"Name": request.instance_profile}
    if request.market == "spot":
        tagged.append("spot-instances-request")  # EC2 refuses this tag for an on-demand launch
        # One-time: a persistent request would launch again after each termination.
        options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        if request.max_price_usd is not None:
            options["MaxPrice"] = f"{request.max_price_usd:.4f}"
        parameters["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
    parameters["TagSpecifications"] = [{"ResourceType": kind, "Tags": labels} for kind in tagged]
    return parameters
