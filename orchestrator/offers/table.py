"""Offers from the shipped price table, for a plan without access to any prices."""

from dataclasses import replace

from gpu_offload.infra.aws.gpu_types import GPU_TYPES, NOTED
from gpu_offload.orchestrator.offers.offer import GPUS, Market, Offer


def offer_of(
    name: str, region: str, market: Market, usd_per_hour: float, basis: str, on_demand: float | None
) -> Offer:
    """Return a type of our table in a region, without a zone, at a price."""
    kind = GPU_TYPES[name]
    gpu = replace(GPUS[kind.gpu], count=kind.gpus)
    return Offer(
        "ec2", name, region, None, market, usd_per_hour, basis, gpu, kind.vcpus, kind.memory_gib, on_demand
    )


def _table() -> tuple[Offer, ...]:
    """Return every type in each listed region and both markets."""
    basis = f"table of {NOTED}, not today's prices"
    markets: tuple[Market, ...] = ("spot", "on-demand")
    return tuple(
        offer_of(name, region, market, price, basis, kind.on_demand)
        for name, kind in GPU_TYPES.items()
        for region, spot in kind.spot.items()
        for market, price in zip(markets, (spot, kind.on_demand), strict=True)
    )


TABLE: tuple[Offer, ...] = _table()
