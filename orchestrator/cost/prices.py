"""Prices of volumes, addresses and stores."""

from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import Offer

LEAST_BILLED_S = 60
"""EC2 bills Linux by the second, a minute at least (EC2 User Guide, "On-Demand Instances")."""

FIRST_HOUR_S = 3600
"""A Linux spot instance that EC2 itself interrupts in its first hour is not charged; a volume and an address are
(EC2 User Guide, "Billing for interrupted Spot Instances")."""

MONTH_S = 30 * 24 * 3600
"""Seconds of a 30-day month: prorating by it never undercounts, February excepted."""

VOLUME_GIB = 50
"""Default size of an instance's disk: the image, the environment with CUDA, the dataset."""


@dataclass(frozen=True, slots=True)
class StorePrices:
    """What an object store charges, in US dollars; a month is 30 days, a GB 10^9 bytes."""

    name: str
    storage_gb_month: Decimal
    puts_1000: Decimal
    gets_1000: Decimal
    egress_gb: Decimal
    note: str


S3 = StorePrices(
    "S3", Decimal("0.023"), Decimal("0.005"), Decimal("0.0004"), Decimal("0.09"), "us-east, before free tiers"
)

R2 = StorePrices(
    "R2", Decimal("0.015"), Decimal("0.0045"), Decimal("0.00036"), Decimal(0), "before its free tier"
)

FOLDER = StorePrices("folder", Decimal(0), Decimal(0), Decimal(0), Decimal(0), "a folder costs nothing")


@dataclass(frozen=True, slots=True)
class EbsPrices:
    """Prices of what is attached to an instance, in US dollars: gp3 per GB-month, a public IPv4 address per hour."""

    volume_gb_month: Decimal = Decimal("0.08")
    ipv4_hour: Decimal = Decimal("0.005")

    def per_hour(self, volume_gib: int) -> float:
        """Return the hourly price of a volume of this size and an address."""
        return float(self.ipv4_hour + volume_gib * self.volume_gb_month * 3600 / MONTH_S)


GP3_GB_MONTH = {
    region: Decimal(price)
    for price, regions in {
        "0.08": "us-east-1 us-east-2 us-west-2",
        "0.0836": "eu-north-1",
        "0.088": "eu-west-1 ca-central-1",
        "0.0912": "ap-south-1 ap-northeast-2",
        "0.0924": "eu-south-1",
        "0.0928": "eu-west-2 eu-west-3",
        "0.0952": "eu-central-1",
        "0.096": "us-west-1 ap-northeast-1 ap-northeast-3 ap-southeast-1 ap-southeast-2",
        "0.1047": "af-south-1",
        "0.152": "sa-east-1",
    }.items()
    for region in regions.split()
}
"""gp3 by region, USD a GB-month (aws.amazon.com/ebs/pricing, a snapshot of 2026-07, not asked for at run time)."""


@cache
def ebs_prices(region: str | None) -> EbsPrices:
    """Return the prices of a region; those of the dearest known one where the region is not known."""
    if region is None:
        return EbsPrices()
    return EbsPrices(volume_gb_month=GP3_GB_MONTH.get(region, max(GP3_GB_MONTH.values())))


def expected_cost(
    offer: Offer, interval: Interval, *, volume_gib: int = VOLUME_GIB, traffic_usd: float = 0.0
) -> tuple[float, float]:
    """Return the cost of an offer for a duration, in US dollars: (likely, high).

    On EC2 it includes a volume, a public address, `traffic_usd`, and a minute at least; elsewhere it is 0. The high bound
    takes today's spot price: what runs is stopped at `max-cost-usd`.
    """
    if not offer.is_rented:
        return 0.0, 0.0
    hourly = offer.usd_per_hour + ebs_prices(offer.region).per_hour(volume_gib)
    likely, high = (
        max(seconds, LEAST_BILLED_S) / 3600 * hourly + traffic_usd
        for seconds in (interval.likely, interval.high)
    )
    return likely, high
