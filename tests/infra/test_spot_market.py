"""What there is, where, and for how much; and where a price is from."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from gpu_offload.infra.aws import price_list
from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.gpu_types import GPU_TYPES
from gpu_offload.infra.aws.price_list import on_demand_prices, price_of
from gpu_offload.infra.aws.spot_market import SpotMarket

T0 = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def session():
    return open_session("us-east-1")


@pytest.fixture
def market(cloud, session):
    market = SpotMarket("us-east-1", session=session)
    yield market
    market._client.close()


def prices(*rows):
    """DescribeSpotPriceHistory's answer: (type, zone, price, time)."""
    items = "".join(
        f"<item><instanceType>{name}</instanceType><productDescription>Linux/UNIX</productDescription>"
        f"<spotPrice>{price}</spotPrice><timestamp>{at:%Y-%m-%dT%H:%M:%S}.000Z</timestamp>"
        f"<availabilityZone>{zone}</availabilityZone></item>"
        for name, zone, price, at in rows
    )
    return (
        '<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><spotPriceHistorySet>'
        f"{items}</spotPriceHistorySet></DescribeSpotPriceHistoryResponse>"
    )


def test_the_gpu_types_are_known_with_their_gpus(market):
    types = {item.name: item for item in market.instance_types()}
    assert {name.split(".")[0] for name in types} == {"g4dn", "g5", "g6", "g6e"}
    g4dn = types["g4dn.xlarge"]
    assert (g4dn.vcpus, g4dn.gpu, g4dn.gpus, g4dn.spot) == (4, "T4", 1, True)
    assert g4dn.architectures == ("x86_64",)


def test_it_is_known_which_zones_offer_a_type(market):
    offered = market.offerings(["g4dn.xlarge"])
    assert list(offered) == ["g4dn.xlarge"]
    assert all(zone.startswith("us-east-1") for zone in offered["g4dn.xlarge"])
    assert "g5.xlarge" in market.offerings()


def test_the_price_now_is_the_latest_of_each_zone_cheapest_first(cloud, market):
    cloud.fail_once(
        lambda call: call.action == "DescribeSpotPriceHistory",
        200,
        prices(
            ("g4dn.xlarge", "us-east-1a", 0.3, T0 - timedelta(hours=9)),
            ("g4dn.xlarge", "us-east-1a", 0.2, T0 - timedelta(hours=1)),
            ("g4dn.xlarge", "us-east-1b", 0.1, T0 - timedelta(hours=2)),
            ("g4dn.xlarge", "us-east-1b", 9.9, T0 + timedelta(hours=2)),
        ),
    )
    found = market.spot_prices(["g4dn.xlarge"], ["us-east-1a", "us-east-1b"], at=T0)
    assert [(price.zone, price.usd_per_hour) for price in found] == [("us-east-1b", 0.1), ("us-east-1a", 0.2)]
    form = cloud.of("DescribeSpotPriceHistory")[0].form
    assert form["ProductDescription.1"] == "Linux/UNIX"
    assert form["Filter.1.Value.2"] == "us-east-1b"


def test_a_history_begins_with_the_price_in_force_at_its_start(cloud, market):
    cloud.fail_once(
        lambda call: call.action == "DescribeSpotPriceHistory",
        200,
        prices(
            ("g4dn.xlarge", "us-east-1a", 0.4, T0 + timedelta(hours=1)),
            ("g4dn.xlarge", "us-east-1a", 0.3, T0 - timedelta(hours=1)),
            ("g4dn.xlarge", "us-east-1a", 0.2, T0 - timedelta(hours=5)),
        ),
    )
    history = market.spot_price_history("g4dn.xlarge", "us-east-1a", T0, T0 + timedelta(hours=2))
    assert history == [(T0 - timedelta(hours=1), 0.3), (T0 + timedelta(hours=1), 0.4)]


def test_no_type_and_no_zone_have_no_price_and_ask_nothing(cloud, market):
    assert market.spot_prices([]) == []
    assert market.spot_prices(["g4dn.xlarge"], []) == []
    assert cloud.of("DescribeSpotPriceHistory") == []


def quota(cloud, action, status, answer):
    cloud.fail_once(lambda call: call.action == action, status, json.dumps(answer), times=2)


def test_quotas_are_the_accounts_own(cloud, market):
    quota(cloud, "GetServiceQuota", 200, {"Quota": {"Value": 4.0}})
    found = market.quotas()
    assert (found.spot_vcpus, found.on_demand_vcpus, found.reason) == (4.0, 4.0, "")
    asked = [json.loads(call.body) for call in cloud.of("GetServiceQuota")]
    assert [item["QuotaCode"] for item in asked] == ["L-3819A6DF", "L-DB2E81BA"]


def test_a_quota_that_the_account_never_changed_is_awss_default(cloud, market):
    quota(cloud, "GetServiceQuota", 404, {"__type": "NoSuchResourceException", "message": "x"})
    quota(cloud, "GetAWSDefaultServiceQuota", 200, {"Quota": {"Value": 0.0}})
    assert market.quotas().spot_vcpus == 0.0


def test_a_quota_that_we_may_not_ask_for_is_unknown_with_a_reason(cloud, market):
    quota(cloud, "GetServiceQuota", 400, {"__type": "AccessDeniedException", "message": "not authorized"})
    found = market.quotas()
    assert (found.spot_vcpus, found.on_demand_vcpus) == (None, None)
    assert "not authorized" in found.reason


PRODUCT = json.dumps(
    {
        "product": {"attributes": {"instanceType": "g5.xlarge"}},
        "terms": {
            "OnDemand": {
                "a": {"priceDimensions": {"b": {"unit": "Hrs", "pricePerUnit": {"USD": "1.0060000000"}}}}
            },
            "Reserved": {
                "c": {"priceDimensions": {"d": {"unit": "Hrs", "pricePerUnit": {"USD": "0.4000000000"}}}}
            },
        },
    }
)


def test_an_on_demand_price_is_read_from_the_price_list(cloud, session):
    cloud.fail_once(lambda call: call.action == "GetProducts", 200, json.dumps({"PriceList": [PRODUCT]}))
    found = on_demand_prices(["g5.xlarge"], "us-east-2", session=session)
    assert found.usd_per_hour == {"g5.xlarge": 1.006}
    assert found.source == "AWS Pricing API, us-east-2"
    asked = {item["Field"]: item["Value"] for item in json.loads(cloud.of("GetProducts")[0].body)["Filters"]}
    assert (asked["instanceType"], asked["regionCode"], asked["operatingSystem"]) == (
        "g5.xlarge",
        "us-east-2",
        "Linux",
    )


def test_where_the_price_list_cannot_be_asked_a_noted_price_says_that_it_is_one(cloud, session):
    cloud.fail_once(lambda call: call.action == "GetProducts", 400, '{"__type": "AccessDeniedException"}')
    found = on_demand_prices(["g5.xlarge", "p5.48xlarge"], "us-east-2", session=session)
    assert found.usd_per_hour == {"g5.xlarge": GPU_TYPES["g5.xlarge"].on_demand}
    assert "noted in" in found.source
    assert "us-east-2 may differ" in found.source
    assert "AccessDenied" in found.source


def test_where_the_price_list_cannot_be_asked_the_price_page_is(cloud, session, monkeypatch):
    """A price of another region would let a run cost more than its limit."""
    cloud.fail_once(lambda call: call.action == "GetProducts", 400, '{"__type": "AccessDeniedException"}')
    monkeypatch.setattr(price_list, "are_for", lambda _: True)
    monkeypatch.setattr(price_list, "on_demand_page", lambda *_: ({"g5.xlarge": 1.6}, T0))
    found = on_demand_prices(["g5.xlarge"], "sa-east-1", session=session)
    assert found.usd_per_hour == {"g5.xlarge": 1.6}
    assert "price page, 2026-11-22" in found.source


def test_a_product_without_an_hourly_price_has_none():
    assert price_of("{}") is None
    assert (
        price_of(json.dumps({"terms": {"OnDemand": {"a": {"priceDimensions": {"b": {"unit": "Quantity"}}}}}}))
        is None
    )
