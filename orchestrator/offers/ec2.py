"""EC2's offers of now: types, zones, prices and quotas from the API."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from gpu_offload.infra.aws.caller import caller
from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.errors import CloudError, NoCredentialsError
from gpu_offload.infra.aws.price_list import OnDemandPrices, on_demand_prices
from gpu_offload.infra.aws.spot_market import InstanceType, Quotas, SpotMarket, SpotPrice, is_counted
from gpu_offload.orchestrator.offers.offer import GPUS, Market, Offer
from gpu_offload.orchestrator.offers.public import public_offers
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.settings.machines import Ec2Settings


@dataclass(frozen=True, slots=True)
class Region:
    """What the API answered for one region."""

    name: str
    types: tuple[InstanceType, ...]
    zones: Mapping[str, tuple[str, ...]]
    """Zones by instance type."""
    spot: tuple[SpotPrice, ...]
    on_demand: OnDemandPrices
    quotas: Quotas


def ec2_offers(settings: Ec2Settings, console: Console) -> tuple[Offer, ...] | None:
    """Ask EC2 for its offers; those of AWS's price pages, or None after a note, without credentials or access."""
    try:
        caller(open_session(settings.regions[0]))
    except NoCredentialsError:
        console.note("no AWS credentials to ask EC2 for today's prices")
        return public_offers(settings, console)
    except CloudError as error:
        console.note(f"EC2 gave no prices: {error}")
        return public_offers(settings, console)
    with ThreadPoolExecutor(len(settings.regions)) as pool:
        asked = list(pool.map(lambda name: _ask(name, settings), settings.regions))
    regions = [found for found in asked if isinstance(found, Region)]
    for fault in (found for found in asked if isinstance(found, str)):
        console.note(f"a region was left out: {fault}")
    if not regions:
        return public_offers(settings, console)
    now = datetime.now(UTC)
    offers: list[Offer] = []
    for region in regions:
        found, notes = offers_of(region, settings.market, now)
        offers += found
        for note in notes:
            console.note(note)
    return tuple(offers)


def _ask(name: str, settings: Ec2Settings) -> Region | str:
    """Ask one region; return an error message if it did not answer."""
    # A session per thread: boto3 sessions are not thread-safe.
    session = open_session(name)
    market = SpotMarket(name, session=session)
    try:
        families = sorted({kind.partition(".")[0] for kind in settings.types})
        types = tuple(t for t in market.instance_types(families) if t.name in settings.types)
        names = [t.name for t in types]
        if not names:
            return f"{name} has none of {', '.join(settings.types)}"
        return Region(
            name=name,
            types=types,
            zones=market.offerings(names),
            spot=tuple(market.spot_prices(names)),
            on_demand=on_demand_prices(names, name, session=session),
            quotas=market.quotas(),
        )
    except CloudError as error:
        return str(error)


def offers_of(region: Region, market: str, now: datetime) -> tuple[tuple[Offer, ...], tuple[str, ...]]:
    """Return a region's offers, one per type, zone and market, and what was left out and why; `now` dates the prices."""
    offers: list[Offer] = []
    notes: list[str] = []
    basis = f"EC2 API, {now:%Y-%m-%dT%H:%MZ}"
    prices = region.on_demand.usd_per_hour
    spot = {(price.type, price.zone): price.usd_per_hour for price in region.spot}
    for kind in region.types:
        gpu = (known := GPUS.get(kind.gpu)) and replace(known, count=kind.gpus)
        if gpu is None:
            notes.append(f"{kind.name} was left out: we know no speed of the GPU {kind.gpu}")
            continue
        if "x86_64" not in kind.architectures:
            notes.append(f"{kind.name} was left out: our image is for x86_64")
            continue
        for zone in region.zones.get(kind.name, ()):
            common = Offer(
                # Without an on-demand price only the spot offer below is made, with a price of its own.
                "ec2", kind.name, region.name, zone, "on-demand", prices.get(kind.name, 0.0),
                region.on_demand.source, gpu, kind.vcpus, round(kind.memory / 1024, 1), prices.get(kind.name),
            )  # fmt: skip
            if market != "on-demand" and kind.spot and (kind.name, zone) in spot:
                offers.append(
                    replace(common, market="spot", usd_per_hour=spot[kind.name, zone], price_basis=basis)
                )
            if market != "spot" and kind.name in prices:
                offers.append(common)
    kept, refused = _within_quotas(offers, region.quotas)
    notes += [f"{region.name}: {text}" for text in refused]
    return kept, tuple(notes)


def _within_quotas(offers: Sequence[Offer], quotas: Quotas) -> tuple[tuple[Offer, ...], list[str]]:
    limits: dict[Market, float | None] = {"spot": quotas.spot_vcpus, "on-demand": quotas.on_demand_vcpus}
    kept: list[Offer] = []
    refused: dict[str, None] = {}
    for offer in offers:
        limit = limits[offer.market] if offer.market else None
        if limit is not None and offer.vcpus > limit and is_counted(offer.instance_type or ""):
            # A key, because each zone would give the same reason again.
            refused[
                f"{offer.instance_type} {offer.market} needs {offer.vcpus} vCPUs, the account's quota is {limit:.0f}; "
                "ask for more under Service Quotas, EC2, "
                + (
                    "'All G and VT Spot Instance Requests'"
                    if offer.market == "spot"
                    else "'Running On-Demand G and VT instances'"
                )
            ] = None
        else:
            kept.append(offer)
    return tuple(kept), list(refused)
