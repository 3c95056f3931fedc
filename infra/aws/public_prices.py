"""Prices from the documents behind AWS's own price pages, for which no account is needed."""

import functools
import json
import math
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import botocore.session

from gpu_offload.infra import http

SPOT_URL = "https://website.spot.ec2.aws.a2z.com/spot.json"
"""Behind https://aws.amazon.com/ec2/spot/pricing/: every region, renewed about once an hour, 3 MB."""
ON_DEMAND_URL = (
    "https://b0.p.awsstatic.com/pricing/2.0/meteredUnitMaps/ec2/USD/current/"
    "ec2-ondemand-without-sec-sel/{}/Linux/index.json"
)
"""Behind https://aws.amazon.com/ec2/pricing/on-demand/: one region, by the name that billing has for it, 0.7 MB. The
documented bulk list holds the same prices in hundreds of megabytes."""
TIMEOUT_S = 5.0

Place = tuple[str, str]
"""An instance type and a region."""


@dataclass(frozen=True, slots=True)
class PublicPrices:
    """Prices of Linux instances in USD/h. What a document does not list is missing."""

    spot: dict[Place, float]
    """Of a whole region: the documents do not know zones."""
    on_demand: dict[Place, float]


def public_prices(types: Collection[str], regions: Sequence[str]) -> PublicPrices:
    """Ask for the prices of instance types in regions.

    AWS promises nothing about these documents: they are no API. A region without a readable document has no on-demand prices.

    Raises:
        HttpError: The spot prices cannot be fetched, or have another format.
    """
    with ThreadPoolExecutor(1 + len(regions)) as pool:
        spot = pool.submit(_document, SPOT_URL)
        # One document for each region, all at once: each takes seconds.
        each = [pool.submit(_on_demand, region, types) for region in regions]
        found = dict(_spot(spot.result(), types, regions))
        return PublicPrices(found, {place: price for one in each for place, price in one.result().items()})


def _document(url: str) -> Any:
    with http.ask(url, timeout=TIMEOUT_S) as reply:
        body = http.read(reply)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _unexpected(url, error) from error


def _unexpected(url: str, error: Exception) -> http.HttpError:
    return http.HttpError(f"{url}: not the price list that was expected ({type(error).__name__}: {error})")


def _spot(document: Any, types: Collection[str], regions: Collection[str]) -> Iterator[tuple[Place, float]]:
    try:
        config = document["config"]
        if config["rate"] != "perhr" or "USD" not in config["currencies"]:
            raise ValueError("its prices are not US dollars an hour")  # noqa: TRY301 - one message for every change of format
        for region in config["regions"]:
            if region["region"] not in regions:
                continue
            for size in (size for family in region["instanceTypes"] for size in family["sizes"]):
                columns = {column["name"]: column["prices"]["USD"] for column in size["valueColumns"]}
                if size["size"] in types and (price := _price(columns.get("linux"))) is not None:
                    yield (size["size"], region["region"]), price
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _unexpected(SPOT_URL, error) from error


def _on_demand(region: str, types: Collection[str]) -> dict[Place, float]:
    url = ON_DEMAND_URL.format(quote(location(region)))
    found: dict[Place, float] = {}
    try:
        for place in _document(url)["regions"].values():
            for product in place.values():
                name, price = product["Instance Type"], _price(product["price"])
                if name in types and price is not None:
                    found[name, region] = min(price, found.get((name, region), math.inf))
    except (http.HttpError, KeyError, TypeError, AttributeError):
        return {}
    return found


def _price(text: Any) -> float | None:
    """Return a price above 0; the documents write `N/A*` where a type is not offered."""
    try:
        price = float(text)
    except (TypeError, ValueError):
        return None
    return price if math.isfinite(price) and price > 0 else None


def location(region: str) -> str:
    """Return a region's name in billing: `EU (Frankfurt)` where botocore says `Europe (Frankfurt)`."""
    return _names().get(region, region).replace("Europe (", "EU (")


@functools.cache
def _names() -> dict[str, str]:
    partitions = botocore.session.get_session().get_data("endpoints")["partitions"]
    return {key: str(of["description"]) for each in partitions for key, of in each["regions"].items()}
