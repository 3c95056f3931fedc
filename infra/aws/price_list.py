"""On-demand prices from AWS's Pricing API; without the API from AWS's price page, or from a dated table."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import boto3

from gpu_offload.infra.aws.client_config import make_client
from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.error_codes import aws_errors
from gpu_offload.infra.aws.errors import CloudError, MissingError
from gpu_offload.infra.aws.gpu_types import GPU_TYPES, NOTED, NOTED_REGION
from gpu_offload.infra.aws.public_prices import are_for, on_demand_page

PRICING_REGION = "us-east-1"
"""The Pricing API has endpoints in few regions; this one has the prices of all."""


@dataclass(frozen=True, slots=True)
class OnDemandPrices:
    """Prices in USD/h by type; a type without a price is missing. `source` is a phrase that a receipt can print."""

    usd_per_hour: dict[str, float]
    source: str


def on_demand_prices(
    types: Iterable[str], region: str, *, session: boto3.Session | None = None
) -> OnDemandPrices:
    """Return on-demand prices. Never fails: `source` names their origin and the reason."""
    wanted = sorted(set(types))
    try:
        session = session or open_session(region)
        with aws_errors("asking for on-demand prices"):
            client = make_client(session, "pricing", PRICING_REGION, attempts=2, read_timeout=20)
            found = {}
            # A type has dozens of products: operating systems, licences, dedicated hosts, capacity that is reserved.
            for name in wanted:
                pages = client.get_paginator("get_products").paginate(
                    ServiceCode="AmazonEC2",
                    Filters=[
                        {"Type": "TERM_MATCH", "Field": field, "Value": value}
                        for field, value in {
                            "instanceType": name,
                            "regionCode": region,
                            "operatingSystem": "Linux",
                            "tenancy": "Shared",
                            "preInstalledSw": "NA",
                            "capacitystatus": "Used",
                        }.items()
                    ],
                )
                prices = [price_of(document) for page in pages for document in page["PriceList"]]
                if positive := [price for price in prices if price]:
                    found[name] = min(positive)
        if not found and wanted:
            raise MissingError(f"the Pricing API knows none of {', '.join(wanted)} in {region}")
    except CloudError as error:
        return _page_prices(wanted, region, str(error)) or noted_prices(wanted, region, why=str(error))
    return OnDemandPrices(found, f"AWS Pricing API, {region}")


def _page_prices(types: Iterable[str], region: str, why: str) -> OnDemandPrices | None:
    """Return the prices of AWS's page: those of other regions than the noted one are up to 70 % higher."""
    if not are_for(os.environ):
        return None
    prices, published = on_demand_page([name for name in types if name in GPU_TYPES], region)
    if not prices:
        return None
    return OnDemandPrices(prices, f"AWS's price page, {published:%Y-%m-%dT%H:%MZ} (Pricing API: {why})")


def noted_prices(types: Iterable[str], region: str, *, why: str = "not asked") -> OnDemandPrices:
    """Return the table's prices, and say that they are from it."""
    place = "" if region == NOTED_REGION else f" for {NOTED_REGION}, {region} may differ"
    return OnDemandPrices(
        {name: GPU_TYPES[name].on_demand for name in types if name in GPU_TYPES},
        f"noted in {NOTED}{place} (Pricing API: {why})",
    )


def price_of(document: str) -> float | None:
    """Read the hourly on-demand price, USD, out of a product document of the Pricing API; None if it has none."""
    product: dict[str, Any] = json.loads(document)
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            price = dimension.get("pricePerUnit", {}).get("USD")
            # Other units are those of upfront fees and of included quantities.
            if dimension.get("unit") == "Hrs" and price is not None:
                return float(price)
    return None
