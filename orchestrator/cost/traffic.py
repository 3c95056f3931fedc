"""Transfers between a store and an instance, and AWS's charges for them."""

from dataclasses import dataclass
from decimal import Decimal

GB = Decimal(10**9)

BETWEEN_REGIONS_GB = {
    region: Decimal(price)
    for price, regions in {
        "0.08": "ap-northeast-2",
        "0.086": "ap-south-1",
        "0.09": "ap-northeast-1 ap-northeast-3 ap-southeast-1",
        "0.098": "ap-southeast-2",
        "0.138": "sa-east-1",
        "0.147": "af-south-1",
    }.items()
    for region in regions.split()
}
"""USD a GB out of a region into another one, where it is not `USUAL_BETWEEN_REGIONS_GB`
(aws.amazon.com/ec2/pricing/on-demand, "Data Transfer", a snapshot of 2026-07, not asked for at run time)."""

USUAL_BETWEEN_REGIONS_GB = Decimal("0.02")

TO_INTERNET_GB = {
    region: Decimal(price)
    for price, regions in {
        "0.1093": "ap-south-1",
        "0.114": "ap-northeast-1 ap-northeast-3 ap-southeast-2",
        "0.12": "ap-southeast-1",
        "0.126": "ap-northeast-2",
        "0.15": "sa-east-1",
        "0.154": "af-south-1",
    }.items()
    for region in regions.split()
}
"""USD a GB out of AWS, where it is not `USUAL_TO_INTERNET_GB`; the first 100 GB a month of an account are free."""

USUAL_TO_INTERNET_GB = Decimal("0.09")

READ_BACK = 3
"""How often a driver, outside of AWS, reads the model: verifying it, verifying it again before it is published, and once
published."""

CHECKPOINT_BYTES, MODEL_BYTES = 24, 4
"""Per parameter of Ultralytics' models, at most: weights, their average and the optimiser's state; the published model."""


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Where a store is, as far as AWS's charges depend on it. By default nothing is charged."""

    in_aws: bool = False
    region: str | None = None
    """In AWS; None where nothing says which."""
    outside: bool = False
    """Reached over the internet, such as R2 or MinIO."""

    def read_gb(self, region: str | None) -> Decimal:
        """Return what an instance in a region pays AWS to read from the store, USD a GB."""
        if not self.in_aws or region is None or self.region in {None, region}:
            return Decimal(0)
        return BETWEEN_REGIONS_GB.get(self.region or "", USUAL_BETWEEN_REGIONS_GB)

    def write_gb(self, region: str | None) -> Decimal:
        """Return what an instance in a region pays AWS to write to the store, USD a GB."""
        if self.outside:
            return TO_INTERNET_GB.get(region or "", USUAL_TO_INTERNET_GB)
        if not self.in_aws or region is None or self.region in {None, region}:
            return Decimal(0)
        return BETWEEN_REGIONS_GB.get(region, USUAL_BETWEEN_REGIONS_GB)

    @property
    def read_here_gb(self) -> Decimal:
        """What a driver outside of AWS pays AWS to read from the store, USD a GB."""
        return TO_INTERNET_GB.get(self.region or "", USUAL_TO_INTERNET_GB) if self.in_aws else Decimal(0)


UNCHARGED = StorePlace()


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one attempt passes to and from the store, in bytes."""

    store: StorePlace = UNCHARGED
    inputs: int = 0
    """Read once, at its start: the dataset."""
    epoch: int = 0
    """Written for each epoch: the checkpoint."""
    result: int = 0
    """Written at the end: the model."""

    def usd(self, region: str | None, epochs: int) -> float:
        """Return what an attempt in a region that trains so many epochs to the end is charged, in US dollars."""
        written = self.epoch * epochs + self.result
        # Reading counts in the store's region, writing in that of the instance: AWS charges what leaves a region.
        charged = self.inputs * self.store.read_gb(region) + written * self.store.write_gb(region)
        return float((charged + READ_BACK * self.result * self.store.read_here_gb) / GB)
