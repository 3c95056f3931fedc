"""Offers at the prices of AWS's own pages, for a plan without credentials."""

import os
from collections.abc import Mapping

from gpu_offload.infra.aws.gpu_types import GPU_TYPES
from gpu_offload.infra.aws.public_prices import PublicPrices, are_for, public_prices
from gpu_offload.infra.http import HttpError
from gpu_offload.orchestrator.offers.offer import Market, Offer
from gpu_offload.orchestrator.offers.table import TABLE, offer_of
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.settings.machines import Ec2Settings


def public_offers(
    settings: Ec2Settings, console: Console, environment: Mapping[str, str] = os.environ
) -> tuple[Offer, ...] | None:
    """Return the types that may be rented in each region and market, without a zone; None, after a note, without prices."""
    types = [name for name in settings.types if name in GPU_TYPES]
    for name in settings.types:
        if name not in GPU_TYPES:
            console.note(f"{name} was left out: its price is known with AWS credentials only")
    if not are_for(environment) or not types:
        return None
    try:
        prices = public_prices(types, settings.regions)
        for fault in prices.faults:
            console.note(fault)
        offers = _offers(settings, types, prices)
        if not offers:
            raise HttpError("AWS's price pages have none that can be used")  # noqa: TRY301 - one end without prices
    except HttpError as error:
        console.note(f"prices are from our table: {error}")
        known = {offer.region for offer in TABLE}
        if lacking := [region for region in settings.regions if region not in known]:
            console.note(f"the table has no prices of {', '.join(lacking)}: no instance there is compared")
        return None
    return offers


def _offers(settings: Ec2Settings, types: list[str], prices: PublicPrices) -> tuple[Offer, ...]:
    markets: tuple[Market, ...] = ("spot", "on-demand")
    found = dict(zip(markets, (prices.spot, prices.on_demand), strict=True))
    published = dict(zip(markets, (prices.spot_published, prices.on_demand_published), strict=True))
    return tuple(
        offer_of(
            name,
            region,
            market,
            found[market][name, region],
            f"AWS's price pages, {published[market]:%Y-%m-%dT%H:%MZ}",
            prices.on_demand.get((name, region)),
        )
        for name in types
        for region in settings.regions
        for market in markets
        if (name, region) in found[market]
    )
