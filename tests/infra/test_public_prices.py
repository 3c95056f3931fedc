"""Prices without an account: from the documents behind AWS's own price pages, or clearly not at all."""

import pytest
from local_http import LocalServer

from gpu_offload.infra.aws import public_prices as prices
from gpu_offload.infra.http import HttpError

pytestmark = pytest.mark.simulator

TYPES = ("g4dn.xlarge", "g6.xlarge")


def size(name, linux):
    columns = {"linux": linux, "mswin": "9.99"}
    return {"size": name, "valueColumns": [{"name": n, "prices": {"USD": p}} for n, p in columns.items()]}


def spot(*regions, rate="perhr"):
    families = [
        {
            "type": "gpu",
            "sizes": [size("g4dn.xlarge", "0.2041"), size("g6.xlarge", "N/A*"), size("m7i.large", "1")],
        }
    ]
    return {
        "vers": 0.01,
        "config": {
            "rate": rate,
            "currencies": ["USD"],
            "regions": [{"region": region, "instanceTypes": families} for region in regions],
        },
    }


def on_demand(place, *named):
    return {
        "regions": {place: {f"{n} {i}": {"Instance Type": n, "price": p} for i, (n, p) in enumerate(named)}}
    }


@pytest.fixture
def pages(monkeypatch):
    """AWS's pages on this machine: documents by path."""
    documents = {"/spot.json": spot("us-east-2", "eu-central-1", "us-east-1-atl-1")}

    def reply(request):
        found = documents.get(request.path)
        return (404, "") if found is None else (200, found)

    with LocalServer(reply) as server:
        monkeypatch.setattr(prices, "SPOT_URL", f"{server.url}/spot.json")
        monkeypatch.setattr(prices, "ON_DEMAND_URL", f"{server.url}/{{}}/index.json")
        yield documents


def test_prices_of_the_wanted_types_and_regions_are_read(pages):
    """A type that is not offered has no price, and a region whose document is missing none on demand."""
    pages["/US%20East%20%28Ohio%29/index.json"] = on_demand(
        "US East (Ohio)", ("g4dn.xlarge", "0.5260000000"), ("g4dn.xlarge", "0.0000000000"), ("m7i.large", "1")
    )
    found = prices.public_prices(TYPES, ("us-east-2", "eu-central-1"))
    assert found.spot == {("g4dn.xlarge", "us-east-2"): 0.2041, ("g4dn.xlarge", "eu-central-1"): 0.2041}
    assert found.on_demand == {("g4dn.xlarge", "us-east-2"): 0.526}


@pytest.mark.parametrize(
    "document",
    [
        b"callback({})",
        b"[" * 200_000,
        [],
        {"config": None},
        {"config": {"rate": "perhr", "currencies": ["USD"], "regions": [{"region": "us-east-2"}]}},
        spot("us-east-2", rate="permonth"),
    ],
)
def test_another_format_is_an_error_and_no_price(pages, document):
    pages["/spot.json"] = document
    with pytest.raises(HttpError, match="not the price list that was expected"):
        prices.public_prices(TYPES, ("us-east-2",))


def test_a_page_that_does_not_answer_is_an_error(pages):
    del pages["/spot.json"]
    with pytest.raises(HttpError, match="404"):
        prices.public_prices(TYPES, ("us-east-2",))


@pytest.mark.parametrize(
    ("region", "name"),
    [
        ("us-east-1", "US East (N. Virginia)"),
        ("eu-central-1", "EU (Frankfurt)"),
        ("xx-nowhere-1", "xx-nowhere-1"),
    ],
)
def test_a_region_is_asked_for_by_the_name_that_billing_has_for_it(region, name):
    assert prices.location(region) == name
