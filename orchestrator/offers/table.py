"""Offers from the shipped price table, for a plan without access to the API."""

from dataclasses import replace

from gpu_offload.infra.aws.gpu_types import GPU_TYPES, NOTED
from gpu_offload.orchestrator.offers.offer import GPUS, Market, Offer


def _table() -> tuple[Offer, ...]:
    """Return every type in each listed region and both markets, without a zone."""
    basis = f"table of {NOTED}, not measured"
    markets: tuple[Market, ...] = ("spot", "on-demand")
    return tuple(
        Offer(
            "ec2",
            name,
            region,
            None,
            market,
            price,
            basis,
            replace(GPUS[kind.gpu], count=kind.gpus),
            kind.vcpus,
            kind.memory_gib,
            kind.on_demand,
        )
        for name, kind in GPU_TYPES.items()
        for region, spot in kind.spot.items()
        for market, price in zip(markets, (spot, kind.on_demand), strict=True)
    )


TABLE: tuple[Offer, ...] = _table()
