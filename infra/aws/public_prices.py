"""Prices from the documents behind AWS's own price pages, for which no account is needed."""

import functools
import json
import math
import time
import zlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from typing import Any
from urllib.parse import quote

import botocore.session

from gpu_offload.infra import http
from gpu_offload.infra.aws.gpu_types import GPU_TYPES

SPOT_URL = "https://website.spot.ec2.aws.a2z.com/spot.json"
"""Behind https://aws.amazon.com/ec2/spot/pricing/: nearly every region, renewed about once an hour, 3 MB."""
ON_DEMAND_URL = (
    "https://b0.p.awsstatic.com/pricing/2.0/meteredUnitMaps/ec2/USD/current/"
    "ec2-ondemand-without-sec-sel/{}/Linux/index.json"
)
"""Behind https://aws.amazon.com/ec2/pricing/on-demand/: one region, by the name that billing has for it, 0.7 MB, which AWS
compresses unasked. The documented bulk list holds the same prices in hundreds of megabytes."""
TIMEOUT_S = 5.0
LONGEST_S = 20.0
"""Seconds for a whole document, however steadily it comes."""
OLDEST_SPOT = timedelta(days=7)
"""The document's predecessor went on being served for two years after its last change."""
OLDEST_ON_DEMAND = timedelta(days=180)

NOTED_TIMES = (0.5, 3.0)
"""Bounds of an on-demand price, relative to the noted one: regions differ by a factor of 1.7, price cuts were up to 45 %."""
SPOT_SHARE = (0.05, 1.01)
"""Bounds of a spot price, relative to the on-demand price: AWS names discounts of up to 90 %, and bills no more than on demand,
which the documents round differently."""

Place = tuple[str, str]
"""An instance type and a region."""


@dataclass(frozen=True, slots=True)
class PublicPrices:
    """Prices of Linux instances in USD/h. What a document does not list is missing."""

    spot: dict[Place, float]
    """Of a whole region: the documents do not know zones."""
    on_demand: dict[Place, float]
    spot_published: datetime
    on_demand_published: datetime | None
    """Of the oldest document; None without one."""
    faults: tuple[str, ...] = ()
    """Which prices are missing because a document is, or because they were doubtful, and why."""


@dataclass(slots=True)
class _Prices:
    """What was read of documents. Several prices of one place are kept, to be told from one."""

    read: dict[Place, set[float]] = field(default_factory=dict)
    published: list[datetime] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def plausible(self, market: str, on_demand: dict[Place, float] | None = None) -> dict[Place, float]:
        """Return the prices without doubt; the others become faults. Spot prices are judged by those on demand."""
        found = {}
        for (name, region), prices in sorted(self.read.items()):
            noted = GPU_TYPES[name].on_demand
            low, high = (noted * bound for bound in NOTED_TIMES)
            if on_demand is not None:
                known = on_demand.get((name, region))
                low, high = (known or low) * SPOT_SHARE[0], (known or high) * SPOT_SHARE[1]
            what = f"the {market} price of {name} in {region}"
            if len(prices) > 1:
                self.faults.append(f"{what} is given as {' and '.join(f'${p:g}' for p in sorted(prices))}")
            elif not low <= (price := max(prices)) <= high:
                self.faults.append(f"{what}, ${price:g}, is not between ${low:.3g} and ${high:.3g}")
            else:
                found[name, region] = price
        return found


def public_prices(types: Collection[str], regions: Sequence[str]) -> PublicPrices:
    """Ask for the prices of instance types of `GPU_TYPES` in regions.

    AWS promises nothing about these documents: they are no API. What is doubtful is left out: an old document, another
    currency or format, a price that is far from the noted one.

    Raises:
        HttpError: The spot prices cannot be fetched, are old, or have another format.
    """
    with ThreadPoolExecutor(1 + len(regions)) as pool:
        asked = pool.submit(_spot, types, regions)
        # One document for each region, all at once: each takes seconds.
        each = [pool.submit(_on_demand, region, types) for region in regions]
        spot, on_demand = asked.result(), _Prices()
        for region in (one.result() for one in each):
            on_demand.read |= region.read
            on_demand.published += region.published
            on_demand.faults += region.faults
    by_the_hour = on_demand.plausible("on-demand")
    return PublicPrices(
        spot.plausible("spot", by_the_hour),
        by_the_hour,
        spot.published[0],
        min(on_demand.published, default=None),
        (*spot.faults, *on_demand.faults),
    )


def on_demand_page(types: Collection[str], region: str) -> tuple[dict[str, float], datetime | None]:
    """Return a region's prices on demand by type, without those that are doubtful, and when AWS published them."""
    found = _on_demand(region, types)
    prices = {name: price for (name, _), price in found.plausible("on-demand").items()}
    return prices, min(found.published, default=None)


def are_for(environment: Mapping[str, str]) -> bool:
    """Whether AWS's pages are about the cloud that is used: `AWS_ENDPOINT_URL` leads to another one."""
    return not environment.get("AWS_ENDPOINT_URL")


def _document(url: str, oldest: timedelta) -> tuple[Any, datetime]:
    """Return a document and when it was published. A price from another address than AWS's is none: no redirects."""
    with http.ask(url, timeout=TIMEOUT_S, redirects=False) as reply:
        until, parts = time.monotonic() + LONGEST_S, []
        for part in http.chunks(reply, http.DOCUMENT):
            parts.append(part)
            if time.monotonic() > until:
                raise http.NoAnswerError(url, f"it takes longer than {LONGEST_S:.0f} s")
        published = _published(reply, url, oldest)
    try:
        return json.loads(_unpacked(b"".join(parts))), published
    except (ValueError, RecursionError, zlib.error) as error:
        raise _unexpected(url, error) from error


def _unpacked(body: bytes) -> bytes:
    """Return a body without its compression, which AWS applies whatever is accepted, and does not always announce."""
    if not body.startswith(b"\x1f\x8b"):
        return body
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    content = unpacking.decompress(body, http.DOCUMENT)
    if not unpacking.eof:
        raise ValueError("its compression does not end")
    return content


def _published(reply: HTTPResponse, url: str, oldest: timedelta) -> datetime:
    """Return when a document was changed last, by the server's clock: this machine's may be wrong."""
    try:
        published = parsedate_to_datetime(reply.headers["Last-Modified"]).astimezone(UTC)
        now = parsedate_to_datetime(reply.headers["Date"]).astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise http.HttpError(f"{url}: does not say how old it is") from error
    if now - published > oldest:
        raise http.HttpError(f"{url}: is of {published:%Y-%m-%d}, which is too old")
    return published


def _unexpected(url: str, error: Exception) -> http.HttpError:
    return http.HttpError(f"{url}: not the price list that was expected ({type(error).__name__}: {error})")


FORMAT = (KeyError, TypeError, AttributeError, ValueError)
"""Errors of a document that is not as it was."""


def _spot(types: Collection[str], regions: Collection[str]) -> _Prices:
    document, published = _document(SPOT_URL, OLDEST_SPOT)
    found, seen = _Prices(published=[published]), set()
    try:
        config = document["config"]
        if config["rate"] != "perhr" or "USD" not in config["currencies"]:
            raise ValueError("its prices are not US dollars an hour")
        for region in config["regions"]:
            if (name := region["region"]) in regions:
                seen.add(name)
                for size in (size for family in region["instanceTypes"] for size in family["sizes"]):
                    if size["size"] in types and (price := _linux(size)) is not None:
                        found.read.setdefault((size["size"], name), set()).add(price)
    except FORMAT as error:
        raise _unexpected(SPOT_URL, error) from error
    found.faults += [f"no spot prices of {name} on AWS's price page" for name in regions if name not in seen]
    return found


def _linux(size: Any) -> float | None:
    return _price({column["name"]: column["prices"]["USD"] for column in size["valueColumns"]}["linux"])


def _on_demand(region: str, types: Collection[str]) -> _Prices:
    found, place = _Prices(), location(region)
    url = ON_DEMAND_URL.format(quote(place))
    try:
        document, published = _document(url, OLDEST_ON_DEMAND)
        try:
            if (currency := document["manifest"]["currencyCode"]) != "USD":
                raise ValueError(f"its prices are in {currency}")
            for product in document["regions"][place].values():
                name, is_ours = product["Instance Type"], product["Operating System"] == "Linux"
                if name in types and is_ours and (price := _price(product["price"])) is not None:
                    found.read.setdefault((name, region), set()).add(price)
        except FORMAT as error:
            raise _unexpected(url, error) from error
        found.published.append(published)
    except http.HttpError as error:
        return _Prices(faults=[f"no on-demand prices of {region}: {error}"])
    return found


def _price(text: Any) -> float | None:
    """Return a price; None where a type is not offered (`N/A*`), or its price is not known (0). Raises ValueError for another text."""
    if isinstance(text, str) and text.startswith("N/A"):
        return None
    price = float(text) if isinstance(text, str) else math.nan
    if not (math.isfinite(price) and price >= 0):
        raise ValueError(f"{text!r:.40} is no price")
    return price or None


def location(region: str) -> str:
    """Return a region's name in billing: `EU (Frankfurt)` where botocore says `Europe (Frankfurt)`."""
    return _names().get(region, region).replace("Europe (", "EU (")


@functools.cache
def _names() -> dict[str, str]:
    partitions = botocore.session.get_session().get_data("endpoints")["partitions"]
    return {key: str(of["description"]) for each in partitions for key, of in each["regions"].items()}
