"""Answers that moto lacks: spot price history, quotas, and the price list."""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.call import Call, Reply, error_reply, json_reply, values_of, xml_reply
from gpu_offload.infra.simulator.market import ON_DEMAND, QUOTAS, SimulatedMarket, on_demand_price

EC2_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
PRODUCT = "Linux/UNIX"
PAGE = 1000

Offerings = Callable[[str], Iterable[tuple[str, str]]]
"""Zones and types offered in a region."""
Vcpus = Callable[[str], int]


def spot_price_history(call: Call, market: SimulatedMarket, now: float, offerings: Offerings) -> Reply:
    """DescribeSpotPriceHistory: the changes between two times, and the price in force at the first."""
    form = call.parameters
    filters = {
        name: values_of(form, f"Filter.{number}.Value")
        for number, name in enumerate(values_of(form, "Filter", "Name"), start=1)
    }
    types, zones = values_of(form, "InstanceType"), filters.get("availability-zone")
    products = values_of(form, "ProductDescription")
    # EC2 knows no prices of the future.
    end = min(_time(form.get("EndTime"), now), now)
    start = min(_time(form.get("StartTime"), now - 86400), end)
    rows = []
    if not products or any(product.startswith(PRODUCT) for product in products):
        for place, kind in sorted(set(offerings(call.region))):
            if (types and kind not in types) or (zones and place not in zones):
                continue
            rows += [
                (price.time, place, kind, price.price) for price in market.history(kind, place, start, end)
            ]
    # Newest first, as EC2 lists them.
    rows.sort(key=lambda row: (-row[0], row[1], row[2]))
    first = int(form.get("NextToken") or 0)
    size = min(int(form.get("MaxResults") or PAGE), PAGE)
    items = "".join(
        f"<item><instanceType>{escape(kind)}</instanceType><productDescription>{PRODUCT}</productDescription>"
        f"<spotPrice>{price:.6f}</spotPrice><timestamp>{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S.000Z}</timestamp>"
        f"<availabilityZone>{escape(place)}</availabilityZone></item>"
        for at, place, kind, price in rows[first : first + size]
    )
    token = str(first + size) if first + size < len(rows) else ""
    return xml_reply(
        f'<DescribeSpotPriceHistoryResponse xmlns="{EC2_NAMESPACE}"><requestId>0</requestId>'
        f"<spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken>{token}</nextToken>"
        "</DescribeSpotPriceHistoryResponse>"
    )


def quotas(call: Call, behaviour: Behaviour) -> Reply:
    """Service Quotas: EC2's vCPU quotas of GPU types."""
    market = QUOTAS.get(call.parameters.get("QuotaCode", ""))
    if market is None:
        return error_reply(
            call, "NoSuchResourceException", "the simulated cloud knows only the quotas of GPUs"
        )
    return json_reply({"Quota": {"Value": float(behaviour.quota(market, "gpu"))}})


def products(call: Call, vcpus: Vcpus) -> Reply:
    """GetProducts of the Pricing API: on-demand prices of Linux machines, the same in every region."""
    asked = {str(item.get("Field")): str(item.get("Value")) for item in call.parameters.get("Filters") or []}
    region = asked.get("regionCode", call.region)
    types = [asked["instanceType"]] if "instanceType" in asked else sorted(ON_DEMAND)
    entries = []
    for kind in types:
        attributes = {
            "instanceType": kind,
            "regionCode": region,
            "location": asked.get("location", region),
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "preInstalledSw": "NA",
            "capacitystatus": "Used",
            "licenseModel": "No License required",
            "operation": "RunInstances",
            "marketoption": "OnDemand",
            "vcpu": str(vcpus(kind)),
            "servicecode": "AmazonEC2",
        }
        # A field that is not here does not filter: the real list has many more.
        if any(attributes.get(field, value) != value for field, value in asked.items()):
            continue
        sku = f"SIM{kind.replace('.', '').upper()}"
        dimension = {
            "unit": "Hrs",
            "description": f"{kind} Linux on demand (simulated)",
            "pricePerUnit": {"USD": f"{on_demand_price(kind, vcpus(kind)):.10f}"},
        }
        entries.append(
            json.dumps(
                {
                    "product": {"sku": sku, "productFamily": "Compute Instance", "attributes": attributes},
                    "serviceCode": "AmazonEC2",
                    "terms": {
                        "OnDemand": {
                            f"{sku}.JRTCKXETXF": {
                                "sku": sku,
                                "priceDimensions": {f"{sku}.JRTCKXETXF.6YS6EN2CT7": dimension},
                            }
                        }
                    },
                }
            )
        )
    return json_reply({"FormatVersion": "aws_v1", "PriceList": entries})


def _time(text: str | None, default: float) -> float:
    if not text:
        return default
    parsed = datetime.fromisoformat(text)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
