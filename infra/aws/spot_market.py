"""GPU instance types, their zones, spot prices and quotas, from EC2."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3

from gpu_offload.infra.aws.client_config import make_client
from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.error_codes import aws_errors
from gpu_offload.infra.aws.errors import CloudError, MissingError
from gpu_offload.infra.aws.gpu_types import FAMILIES

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef

PRODUCT = "Linux/UNIX"
SPOT_QUOTA = "L-3819A6DF"
"""All G and VT Spot Instance Requests, in vCPUs."""

ON_DEMAND_QUOTA = "L-DB2E81BA"
"""Running On-Demand G and VT instances, in vCPUs."""


def is_counted(instance_type: str) -> bool:
    """Whether these quotas count an instance type; P instances, for example, have quotas of their own."""
    return instance_type.startswith(("g", "vt"))


@dataclass(frozen=True, slots=True)
class InstanceType:
    """A type. Memory in MiB."""

    name: str
    vcpus: int
    memory: int
    gpu: str
    gpus: int
    architectures: tuple[str, ...]
    spot: bool


@dataclass(frozen=True, slots=True)
class SpotPrice:
    """A price in USD/h, since `since`."""

    type: str
    zone: str
    usd_per_hour: float
    since: datetime


@dataclass(frozen=True, slots=True)
class Quotas:
    """The account's quotas for G and VT instances, in vCPUs; None where reading is denied."""

    spot_vcpus: float | None
    on_demand_vcpus: float | None
    reason: str = ""
    """Why one is None."""


class SpotMarket:
    """The market of one region. Nothing is cached; a caller asks once per plan."""

    def __init__(self, region: str, *, session: boto3.Session | None = None) -> None:
        self.region = region
        self._session = session or open_session(region)

    @cached_property
    def _client(self) -> "EC2Client":
        client: EC2Client = make_client(self._session, "ec2", self.region)
        return client

    def instance_types(self, families: Iterable[str] = FAMILIES) -> list[InstanceType]:
        """Return the region's GPU types of these families, by name."""
        filters: list[FilterTypeDef] = [
            {"Name": "instance-type", "Values": [f"{family}.*" for family in families]}
        ]
        with aws_errors(f"asking for the instance types of {self.region}"):
            pages = self._client.get_paginator("describe_instance_types").paginate(Filters=filters)
            found = [_type(item) for page in pages for item in page["InstanceTypes"] if "GpuInfo" in item]
        return sorted(found, key=lambda item: item.name)

    def offerings(self, types: Iterable[str] | None = None) -> dict[str, tuple[str, ...]]:
        """Return the zones that offer a type, by type: those asked for, or those of `FAMILIES`."""
        wanted = [item.name for item in self.instance_types()] if types is None else list(types)
        if not wanted:
            return {}
        with aws_errors(f"asking what the zones of {self.region} offer"):
            pages = self._client.get_paginator("describe_instance_type_offerings").paginate(
                LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": wanted}]
            )
            pairs = sorted(
                (str(item["InstanceType"]), item["Location"])
                for page in pages
                for item in page["InstanceTypeOfferings"]
            )
        return {
            name: tuple(zone for other, zone in pairs if other == name)
            for name in sorted({pair[0] for pair in pairs})
        }

    def spot_prices(
        self, types: Iterable[str], zones: Iterable[str] | None = None, *, at: datetime | None = None
    ) -> list[SpotPrice]:
        """Return the price of each type in each zone at a time (now), cheapest first."""
        at = at or datetime.now(UTC)
        latest: dict[tuple[str, str], SpotPrice] = {}
        # For an empty span of time EC2 returns the price in force, with the time of its last change.
        for price in self._prices(list(types), None if zones is None else list(zones), at, at):
            key = (price.type, price.zone)
            if price.since <= at and (key not in latest or latest[key].since < price.since):
                latest[key] = price
        return sorted(latest.values(), key=lambda price: (price.usd_per_hour, price.type, price.zone))

    def spot_price_history(
        self, instance_type: str, zone: str, start: datetime, end: datetime
    ) -> list[tuple[datetime, float]]:
        """Return when the price changed and to what, USD/h, oldest first; the first is the one in force at `start`.

        EC2 keeps 90 days.
        """
        found = {
            price.since: price.usd_per_hour
            for price in self._prices([instance_type], [zone], start, end)
            if price.since <= end
        }
        # Of the changes before `start` only the last one matters: its price was in force then.
        before = [since for since in found if since <= start]
        return [(since, found[since]) for since in sorted(found) if since > start or since == max(before)]

    def quotas(self) -> Quotas:
        """Return the account's quotas in this region; None where reading is denied."""
        reasons: list[str] = []
        values = [self._quota(code, reasons) for code in (SPOT_QUOTA, ON_DEMAND_QUOTA)]
        return Quotas(values[0], values[1], "; ".join(dict.fromkeys(reasons)))

    def _prices(
        self, types: list[str], zones: list[str] | None, start: datetime, end: datetime
    ) -> list[SpotPrice]:
        if not types or zones == []:
            return []
        filters: list[FilterTypeDef] = [{"Name": "availability-zone", "Values": zones}] if zones else []
        with aws_errors(f"asking for spot prices in {self.region}"):
            pages = self._client.get_paginator("describe_spot_price_history").paginate(
                InstanceTypes=types,  # type: ignore[arg-type]  # names, as users write them
                ProductDescriptions=[PRODUCT],
                StartTime=start,
                EndTime=end,
                Filters=filters,
            )
            return [
                SpotPrice(
                    str(item["InstanceType"]),
                    item["AvailabilityZone"],
                    float(item["SpotPrice"]),
                    item["Timestamp"].astimezone(UTC),
                )
                for page in pages
                for item in page["SpotPriceHistory"]
            ]

    def _quota(self, code: str, reasons: list[str]) -> float | None:
        """Read the account's value, or AWS's default where the account has none."""
        operation = f"asking for the quota {code} in {self.region}"
        try:
            client = make_client(self._session, "service-quotas", self.region)
            try:
                with aws_errors(operation):
                    found = client.get_service_quota(ServiceCode="ec2", QuotaCode=code)
            except MissingError:
                with aws_errors(operation):
                    found = client.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=code)
            return float(found["Quota"]["Value"])
        except CloudError as error:
            # A quota is only a hint before the launch; EC2 refuses launches above it.
            reasons.append(str(error))
        return None


def _type(item: Mapping[str, Any]) -> InstanceType:
    gpus = item["GpuInfo"]["Gpus"]
    return InstanceType(
        name=item["InstanceType"],
        vcpus=item["VCpuInfo"]["DefaultVCpus"],
        memory=item["MemoryInfo"]["SizeInMiB"],
        gpu=gpus[0]["Name"],
        gpus=sum(gpu["Count"] for gpu in gpus),
        architectures=tuple(item.get("ProcessorInfo", {}).get("SupportedArchitectures", [])),
        spot="spot" in item.get("SupportedUsageClasses", []),
    )
