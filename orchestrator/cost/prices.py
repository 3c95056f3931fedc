"""Prices of volumes, addresses and stores."""

from dataclasses import dataclass
from decimal import Decimal

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import Offer

LEAST_BILLED_S = 60
"""EC2 bills Linux by the second, a minute at least (EC2 User Guide, "On-Demand Instances")."""

FIRST_HOUR_S = 3600
"""A Linux spot instance that EC2 itself interrupts in its first hour is not charged; a volume and an address are
(EC2 User Guide, "Billing for interrupted Spot Instances")."""

MONTH_S = 30 * 24 * 3600
"""The shortest month but February: prorating by it errs upwards."""

VOLUME_GIB = 50
"""An instance's disk where nothing else is said: the image, the environment with CUDA, the dataset."""


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
    """What hangs on an instance, in US dollars: gp3 by the GB-month, a public IPv4 address by the hour."""

    volume_gb_month: Decimal = Decimal("0.08")
    ipv4_hour: Decimal = Decimal("0.005")


def expected_cost(
    offer: Offer, interval: Interval, *, volume_gib: int = VOLUME_GIB, prices: EbsPrices | None = None
) -> tuple[float, float]:
    """Return what an offer will cost for so long, in US dollars: (likely, high).

    On EC2 a volume and a public address are included, and a minute at least. A spot price may rise, but what runs
    is stopped at `max-cost-usd`, so the high bound takes today's.
    """
    if offer.where == "cpu":
        return (
            offer.usd_per_hour * interval.likely / 3600,
            offer.usd_per_hour * interval.high / 3600,
        )
    prices = prices or EbsPrices()
    hourly = (
        offer.usd_per_hour
        + float(prices.ipv4_hour)
        + volume_gib * float(prices.volume_gb_month) * 3600 / MONTH_S
    )
    likely, high = (
        max(seconds, LEAST_BILLED_S) / 3600 * hourly for seconds in (interval.likely, interval.high)
    )
    return likely, high
