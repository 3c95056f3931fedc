"""Prices without an account: from the documents behind AWS's own price pages, or clearly not at all."""

import contextlib
import gzip
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import ClassVar

import pytest
from local_http import LocalServer

from gpu_offload.infra import http
from gpu_offload.infra.aws import public_prices as prices
from gpu_offload.infra.http import HttpError

pytestmark = pytest.mark.simulator

TYPES = ("g4dn.xlarge", "g6.xlarge")
OHIO = "/US%20East%20%28Ohio%29/index.json"
NOW = datetime(2026, 11, 26, 19, tzinfo=UTC)


def size(name, linux):
    columns = {"linux": linux, "mswin": "9.99"}
    return {"size": name, "valueColumns": [{"name": n, "prices": {"USD": p}} for n, p in columns.items()]}


def spot(*regions, rate="perhr", price="0.2041", sizes=()):
    sizes = sizes or (size("g4dn.xlarge", price), size("g6.xlarge", "N/A*"), size("m7i.large", "1"))
    families = [{"type": "gpu", "sizes": list(sizes)}]
    return {
        "vers": 0.01,
        "config": {
            "rate": rate,
            "currencies": ["USD"],
            "regions": [{"region": region, "instanceTypes": families} for region in regions],
        },
    }


def on_demand(*named, currency="USD", place="US East (Ohio)"):
    return {
        "manifest": {"currencyCode": currency},
        "regions": {
            place: {
                f"{name} {number}": {"Instance Type": name, "Operating System": "Linux", "price": price}
                for number, (name, price) in enumerate(named)
            }
        },
    }


@pytest.fixture
def pages(monkeypatch):
    """AWS's pages on this machine: documents by path, or replies; `headers` are those of all of them."""

    class Pages(dict):
        headers: ClassVar = {"Last_Modified": format_datetime(NOW - timedelta(hours=1), usegmt=True)}

        def reply(self, request):
            found = self.get(request.path)
            if callable(found):
                found(request)
            else:
                # The server's own header is replaced by the time of these tests.
                request.date_time_string = lambda: format_datetime(NOW, usegmt=True)
                request.write(404 if found is None else 200, found or "", **self.headers)

    documents = Pages({"/spot.json": spot("us-east-2", "eu-central-1", "us-east-1-atl-1")})
    with LocalServer(documents.reply) as server:
        monkeypatch.setattr(prices, "SPOT_URL", f"{server.url}/spot.json")
        monkeypatch.setattr(prices, "ON_DEMAND_URL", f"{server.url}/{{}}/index.json")
        yield documents


def asked(*regions):
    return prices.public_prices(TYPES, regions or ("us-east-2",))


@pytest.mark.parametrize("packed", [False, True])
def test_prices_of_the_wanted_types_and_regions_are_read(pages, packed):
    """A type that is not offered has no price. AWS compresses the prices on demand unasked, without saying so."""
    document = on_demand(("g4dn.xlarge", "0.5260000000"), ("g4dn.xlarge", "0.0000000000"), ("m7i.large", "1"))
    pages[OHIO] = gzip.compress(json.dumps(document).encode()) if packed else document
    found = asked("us-east-2", "eu-central-1")
    assert found.spot == {("g4dn.xlarge", "us-east-2"): 0.2041, ("g4dn.xlarge", "eu-central-1"): 0.2041}
    assert found.on_demand == {("g4dn.xlarge", "us-east-2"): 0.526}
    assert found.spot_published == found.on_demand_published == NOW - timedelta(hours=1)
    assert len(found.faults) == 1
    assert "no on-demand prices of eu-central-1" in found.faults[0]


def test_a_region_that_the_spot_prices_do_not_name_is_a_fault(pages):
    """As AWS leaves out the Middle East."""
    assert any(
        "no spot prices of me-central-1" in fault for fault in asked("us-east-2", "me-central-1").faults
    )


@pytest.mark.parametrize(
    "document",
    [
        b"callback({})",
        b"[" * 200_000,
        gzip.compress(b" " * (http.DOCUMENT + 1)),
        gzip.compress(b"{}")[:-9],
        b"\x1f\x8bnot compressed",
        [],
        {"config": None},
        {"config": {"rate": "perhr", "currencies": ["USD"], "regions": [{"region": "us-east-2"}]}},
        spot("us-east-2", rate="permonth"),
        spot("us-east-2", sizes=[{"size": "g4dn.xlarge", "valueColumns": []}]),
        *(
            spot("us-east-2", price=price)
            for price in ("-0.2", "NaN", "1e999", "about 1", None, 0.2, True, 10**400)
        ),
    ],
)
def test_another_format_is_an_error_and_no_price(pages, document):
    pages["/spot.json"] = document
    with pytest.raises(HttpError, match="not the price list that was expected"):
        asked()


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (b"<html>", "not the price list"),
        (on_demand(("g4dn.xlarge", "0.526"), currency="EUR"), "EUR"),
        (on_demand(("g4dn.xlarge", "0.526"), place="US East (N. Virginia)"), "Ohio"),
        (on_demand(("g4dn.xlarge", "0.000526")), "not between"),
        (on_demand(("g4dn.xlarge", "526")), "not between"),
        (on_demand(("g4dn.xlarge", "0.526"), ("g4dn.xlarge", "0.71")), "$0.526 and $0.71"),
    ],
)
def test_a_doubtful_price_on_demand_is_a_fault_and_no_price(pages, document, fault):
    pages[OHIO] = document
    found = asked()
    assert found.on_demand == {}
    assert fault in found.faults[0]


@pytest.mark.parametrize(
    ("price", "on_demand_price", "is_known"),
    [
        ("0.0002", None, False),
        ("0.02", "0.526", False),
        ("0.54", "0.526", False),
        ("0.5261", "0.526", True),
        ("0.54", None, True),
        ("204", None, False),
        ("0.03", "0.526", True),
    ],
)
def test_a_spot_price_far_from_that_on_demand_is_a_fault_and_no_price(
    pages, price, on_demand_price, is_known
):
    pages["/spot.json"] = spot("us-east-2", price=price)
    if on_demand_price:
        pages[OHIO] = on_demand(("g4dn.xlarge", on_demand_price))
    found = asked()
    assert bool(found.spot) == is_known
    assert any("spot price of g4dn.xlarge in us-east-2" in fault for fault in found.faults) != is_known


def test_two_spot_prices_of_one_place_are_a_fault(pages):
    pages["/spot.json"] = spot("us-east-2", sizes=[size("g4dn.xlarge", "0.2"), size("g4dn.xlarge", "0.3")])
    assert (asked().spot, "$0.2 and $0.3" in asked().faults[0]) == ({}, True)


@pytest.mark.parametrize("modified", [NOW - timedelta(days=8), None])
def test_spot_prices_of_another_week_or_of_unknown_age_are_an_error(pages, modified):
    """The age is by the server's clock: this machine's may be years behind."""
    pages.headers = {"Last_Modified": format_datetime(modified, usegmt=True)} if modified else {}
    with pytest.raises(HttpError, match="too old" if modified else "how old"):
        asked()


def test_a_page_that_does_not_answer_is_an_error(pages):
    del pages["/spot.json"]
    with pytest.raises(HttpError, match="404"):
        asked()


def test_no_redirect_is_followed(pages):
    pages["/elsewhere"] = pages["/spot.json"]
    pages["/spot.json"] = lambda request: request.write(302, b"", Location="/elsewhere")
    with pytest.raises(HttpError, match="302"):
        asked()


@pytest.mark.parametrize("how", ["truncated", "steady", "endless"])
def test_a_document_that_does_not_end_is_an_error(pages, monkeypatch, how):
    def reply(request):
        request.write(200, b"[", Content_Length=str(10**6 if how != "endless" else 10**12), **pages.headers)
        with contextlib.suppress(OSError):
            while how != "truncated":
                request.wfile.write(b" " * (1 << 16))

    pages["/spot.json"] = reply
    monkeypatch.setattr(http, "DOCUMENT", 1 << 20)
    monkeypatch.setattr(prices, "LONGEST_S", 0.0 if how == "steady" else 60.0)
    with pytest.raises(
        HttpError, match={"truncated": "ended after", "steady": "longer", "endless": "larger"}[how]
    ):
        asked()


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
