"""Offers: the built-in table, and the order in which they are tried."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from orchestrator.interval import Interval
from orchestrator.offers import GPUS, TABLE, Offer, Refusal, cpu_offer, in_region, ladder

INTERVALS = {
    "g4dn.xlarge": Interval(3000, 3600, 5000),
    "g5.xlarge": Interval(1500, 1800, 2600),
    "g6.xlarge": Interval(2800, 3400, 4700),
    "g6e.xlarge": Interval(900, 1000, 1500),
}


def spot(kind="g4dn.xlarge", zone="us-east-2a", usd=0.2, market="spot"):
    return Offer("ec2", kind, "us-east-2", zone, market, usd, "test", GPUS["T4"], 4, 16)


def climb(offers, refusals=(), now=0.0, seconds_left=1e6, usd_left=100.0):
    return ladder(offers, INTERVALS, seconds_left=seconds_left, usd_left=usd_left, refusals=refusals, now=now)


def test_the_table_is_dated_and_holds_the_design_s_prices():
    assert {offer.price_basis for offer in TABLE} == {"table of 2026-07, not measured"}
    prices = {(o.instance_type, o.region, o.market): o.usd_per_hour for o in TABLE}
    assert prices["g4dn.xlarge", "us-east-1", "spot"] == 0.213
    assert prices["g4dn.xlarge", "us-east-2", "spot"] == 0.145
    assert prices["g6e.xlarge", "us-east-1", "on-demand"] == 1.861
    assert len(prices) == len(TABLE) == 16
    assert all(o.on_demand_usd_per_hour >= o.usd_per_hour for o in TABLE)
    assert len(in_region(TABLE, "us-east-2")) == 8


def test_an_offer_survives_the_journal():
    adapter = TypeAdapter(Offer)
    for offer in (*TABLE, cpu_offer(4)):
        assert adapter.validate_json(adapter.dump_json(offer)) == offer


def test_the_cheapest_expected_total_goes_first_not_the_cheapest_hour():
    """An hour of g5 costs more than one of g4dn, but half an hour is enough."""
    slow, fast = spot(usd=0.2), spot("g5.xlarge", usd=0.3)
    assert climb([slow, fast]) == (fast, slow)


def test_spot_goes_before_on_demand_at_the_same_price():
    on_demand, cheap = spot(market="on-demand"), spot()
    assert climb([on_demand, cheap]) == (cheap, on_demand)


def test_a_zone_without_capacity_is_left_out_until_it_has_cooled_down():
    a, b = spot(zone="us-east-2a", usd=0.1), spot(zone="us-east-2b", usd=0.2)
    refusal = Refusal(a, "capacity", at=1000.0)
    assert climb([a, b], [refusal], now=1500.0) == (b,)
    assert climb([a, b], [refusal], now=2200.0) == (a, b)


def test_a_refused_zone_at_a_new_price_is_still_the_refused_zone():
    a = spot(usd=0.1)
    assert climb([replace(a, usd_per_hour=0.09)], [Refusal(a, "capacity", at=0.0)], now=1.0) == ()


def test_after_a_reclaim_another_zone_comes_first_and_the_same_one_last():
    a, b = spot(zone="us-east-2a", usd=0.1), spot(zone="us-east-2b", usd=0.2)
    assert climb([a, b], [Refusal(a, "reclaimed", at=0.0)], now=60.0) == (b, a)


@pytest.mark.parametrize("reason", ["quota", "denied"])
def test_a_quota_is_never_asked_again_in_any_zone(reason):
    a, b, c = spot(), spot("g5.xlarge", "us-east-2b"), spot(market="on-demand", usd=0.5)
    assert climb([a, b, c], [Refusal(a, reason, at=0.0)], now=1e9) == (c,)


def test_a_type_that_a_zone_does_not_have_is_never_asked_there_again():
    assert climb([spot()], [Refusal(spot(), "unsupported", at=0.0)], now=1e9) == ()


def test_what_would_be_late_or_dear_at_most_is_left_out():
    offer = spot(usd=0.2)
    assert climb([offer], seconds_left=4999) == ()
    assert climb([offer], seconds_left=5000) == (offer,)
    assert climb([offer], usd_left=0.27) == ()
    assert climb([offer], usd_left=0.28) == (offer,)


def test_a_type_that_nobody_estimated_is_not_offered():
    assert climb([spot("p5.48xlarge")]) == ()


offers_ = st.lists(
    st.builds(
        spot,
        kind=st.sampled_from(sorted(INTERVALS)),
        zone=st.sampled_from(["us-east-2a", "us-east-2b", None]),
        usd=st.floats(0.01, 5),
        market=st.sampled_from(["spot", "on-demand"]),
    ),
    max_size=12,
    unique=True,
)


@given(offers_, st.randoms(use_true_random=False), st.floats(0, 5), st.floats(0, 10_000))
def test_the_order_does_not_depend_on_how_the_offers_came(offers, chance, usd, seconds):
    shuffled = list(offers)
    chance.shuffle(shuffled)
    once = climb(offers, seconds_left=seconds, usd_left=usd)
    assert [o.usd_per_hour for o in once] == [
        o.usd_per_hour for o in climb(shuffled, seconds_left=seconds, usd_left=usd)
    ]
    assert set(once) <= set(offers)
    assert len(once) == len(set(once))


@given(offers_, st.floats(0, 5), st.floats(0, 5))
def test_more_money_never_leaves_fewer_offers(offers, usd, more):
    assert set(climb(offers, usd_left=usd)) <= set(climb(offers, usd_left=usd + more))


def test_an_offer_s_name_is_short_and_unmistakable():
    assert spot().name == "g4dn.xlarge spot us-east-2a"
    assert spot(zone=None).name == "g4dn.xlarge spot us-east-2"
    assert cpu_offer(4).name == "this CPU"
