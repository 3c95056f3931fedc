"""Offers at the prices of AWS's own pages, for a plan without credentials."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime

from gpu_offload.infra.aws.gpu_types import GPU_TYPES
from gpu_offload.infra.aws.public_prices import public_prices
from gpu_offload.infra.http import HttpError
from gpu_offload.orchestrator.offers.offer import Market, Offer
from gpu_offload.orchestrator.offers.table import offer_of
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.settings.machines import Ec2Settings


def public_offers(
    settings: Ec2Settings, console: Console, environment: Mapping[str, str] = os.environ
) -> tuple[Offer, ...] | None:
    """Return the types that may be rented in each region and market, without a zone; None, after a note, without prices.

    Where `AWS_ENDPOINT_URL` leads to another cloud than AWS's, its pages are not asked.
    """
    if environment.get("AWS_ENDPOINT_URL"):
        return None
    types = [name for name in settings.types if name in GPU_TYPES]
    try:
        prices = public_prices(types, settings.regions)
    except HttpError as error:
        console.note(f"prices are from our table: {error}")
        return None
    basis = f"AWS's price pages, {datetime.now(UTC):%Y-%m-%dT%H:%MZ}"
    markets: tuple[tuple[Market, dict[tuple[str, str], float]], ...] = (
        ("spot", prices.spot),
        ("on-demand", prices.on_demand),
    )
    return tuple(
        offer_of(name, region, market, found[name, region], basis, prices.on_demand.get((name, region)))
        for name in types
        for region in settings.regions
        for market, found in markets
        if (name, region) in found
    )
