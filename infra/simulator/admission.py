"""Checks a launch as AWS does: offers, quotas, price and capacity, with AWS's error texts."""

import base64
import binascii
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES
from moto.iam.models import iam_backends

from gpu_offload.infra.aws.instance_state import ENDED
from gpu_offload.infra.simulator.account import PROFILE
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.call import Call
from gpu_offload.infra.simulator.market import SimulatedMarket, family
from gpu_offload.infra.simulator.rented import Rented

USER_DATA_LIMIT = 16_384


@dataclass(frozen=True, slots=True)
class Admission:
    """The rules that a launch meets: offers per zone, quota, price, capacity."""

    behaviour: Behaviour
    """With the capacity that there is now."""
    market: SimulatedMarket
    rented: Collection[Rented]
    now: float
    """Unix seconds."""
    free_spot: Callable[[str], int | None]
    """Spot instances that a zone has for us now; None for plenty."""

    def zone(self, call: Call, wanted: str | None, count: int) -> str:
        """Return the zone that a launch goes to, `wanted` where it says so; refuse by raising EC2ClientError."""
        kind, region = call.instance_type or "m1.small", call.region  # EC2's default type
        if kind not in INSTANCE_TYPES:
            raise EC2ClientError("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
        spot = call.parameters.get("InstanceMarketOptions.MarketType") == "spot"
        offered = sorted(place for place, name in offerings(region) if name == kind)
        zone = wanted or next((z for z in offered if self._free(z, kind, count, spot=spot)), f"{region}a")
        if zone not in offered:
            raise EC2ClientError(
                "Unsupported",
                f"Your requested instance type ({kind}) is not supported in your requested Availability Zone "
                f"({zone}). Please retry your request by not specifying an Availability Zone or choosing "
                f"{', '.join(offered)}.",
            )
        self._check_quota(region, kind, count, spot=spot)
        highest = call.parameters.get("InstanceMarketOptions.SpotOptions.MaxPrice")
        price = self.market.price(kind, zone, self.now).price
        if spot and highest and float(highest) < price:
            raise EC2ClientError(
                "SpotMaxPriceTooLow",
                f"Your Spot request price of {highest} is lower than the minimum required Spot request "
                f"fulfillment price of {price}.",
            )
        if not self._free(zone, kind, count, spot=spot):
            where = ", ".join(z for z in offered if z != zone and self._free(z, kind, count, spot=spot))
            raise EC2ClientError(
                "InsufficientInstanceCapacity",
                f"We currently do not have sufficient {kind} capacity in the Availability Zone you requested "
                f"({zone}). Our system will be working on provisioning additional capacity. You can currently get "
                f"{kind} capacity by not specifying an Availability Zone in your request or choosing {where}.",
            )
        return zone

    def _check_quota(self, region: str, kind: str, count: int, *, spot: bool) -> None:
        limit = self.behaviour.quota("spot" if spot else "on-demand", family(kind))
        used = sum(
            vcpus(one.instance.instance_type)
            for one in self.rented
            if one.region == region
            and one.state in {"pending", "running"}
            and one.spot == spot
            and family(one.instance.instance_type) == family(kind)
        )
        if used + count * vcpus(kind) <= limit:
            return
        if spot:
            raise EC2ClientError("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        raise EC2ClientError(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance "
            "bucket that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/"
            "ec2-request to request an adjustment to this limit.",
        )

    def _free(self, zone: str, kind: str, count: int, *, spot: bool) -> bool:
        here = [one for one in self.rented if one.instance.placement.zone == zone and one.state not in ENDED]
        # Only our own instances take from what is free for us.
        free = self.behaviour.free(zone, kind)
        if free is not None and sum(one.instance.instance_type == kind for one in here) + count > free:
            return False
        free = self.free_spot(zone) if spot else None
        return free is None or sum(one.spot for one in here) + count <= free


def vcpus(kind: str) -> int:
    """Return a type's vCPUs."""
    return int(INSTANCE_TYPES.get(kind, {}).get("VCpuInfo", {}).get("DefaultVCpus", 4))


def offerings(region: str) -> Iterator[tuple[str, str]]:
    """Zones and the types that are offered in them, as moto has them from AWS."""
    for offering in INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, []):
        yield offering["Location"], offering["InstanceType"]


class NewProfiles:
    """Instance profiles that EC2 does not know yet: IAM's changes reach it late."""

    def __init__(self, account: str, behaviour: Behaviour) -> None:
        self._account = account
        self._behaviour = behaviour
        self._refused = 0

    def check(self, call: Call) -> None:
        """Refuse a launch with a profile that is too new, by raising EC2ClientError."""
        name = call.profile
        profiles = iam_backends[self._account]["aws"].instance_profiles.values()
        found = next((profile for profile in profiles if profile.name == name), None)
        if found is None or name == PROFILE:  # moto refuses the first; the second was never new
            return
        age = time.time() - found.create_date.replace(tzinfo=UTC).timestamp()
        behaviour = self._behaviour
        if age >= behaviour.profile_lag_seconds and self._refused >= behaviour.profile_lag_calls:
            return
        self._refused += 1
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({name}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
        )


def decoded_user_data(form: dict[str, Any]) -> bytes:
    """Return the user data of a launch; refuse it by raising EC2ClientError."""
    try:
        data = base64.b64decode(form.get("UserData", ""), validate=True)
    except binascii.Error:
        raise EC2ClientError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None
    if len(data) > USER_DATA_LIMIT:
        raise EC2ClientError("InvalidParameterValue", f"User data is limited to {USER_DATA_LIMIT} bytes")
    return data
