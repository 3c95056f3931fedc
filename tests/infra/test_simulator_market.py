"""Prices of the simulated cloud: real levels, moving, and the same for the same seed and time."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.market import (
    ON_DEMAND,
    SPOT,
    STEP_S,
    Rise,
    SimulatedMarket,
    family,
    on_demand_price,
    spot_price,
)

MOMENT = 1.79e9
KINDS = st.sampled_from(sorted(ON_DEMAND))
ZONES = st.sampled_from(["us-east-1a", "us-east-1f", "us-east-2b", "eu-central-1c"])
TIMES = st.floats(1.6e9, 2.0e9)


@given(KINDS, ZONES, TIMES, st.integers(0, 5))
def test_a_spot_price_is_positive_and_never_above_on_demand(kind, zone, at, seed):
    price = spot_price(kind, zone, at, seed=seed)
    assert 0 < price.price <= on_demand_price(kind)
    assert price.time <= at < price.time + STEP_S + 1


@given(KINDS, ZONES, TIMES, st.integers(0, 5))
def test_the_same_seed_and_time_give_the_same_price(kind, zone, at, seed):
    first = spot_price(kind, zone, at, seed=seed)
    assert spot_price(kind, zone, at, seed=seed) == first
    assert spot_price(kind, zone, first.time + 1, seed=seed) == first


def test_prices_stay_near_the_level_of_their_region():
    for (kind, region), level in SPOT.items():
        prices = [
            spot_price(kind, f"{region}{z}", MOMENT + d * 86400, seed=0).price
            for z in "abc"
            for d in range(30)
        ]
        assert 0.6 * level < min(prices)
        assert max(prices) < 1.45 * level


def test_prices_differ_between_zones_and_move_over_time():
    now = {spot_price("g4dn.xlarge", f"us-east-1{z}", MOMENT, seed=0).price for z in "abcdf"}
    days = {spot_price("g4dn.xlarge", "us-east-1a", MOMENT + d * 86400, seed=0).price for d in range(10)}
    assert len(now) >= 4
    assert len(days) >= 8


def test_another_seed_gives_another_market():
    assert spot_price("g5.xlarge", "us-east-1a", MOMENT, seed=1) != spot_price(
        "g5.xlarge", "us-east-1a", MOMENT, seed=2
    )


RISES = st.lists(
    st.builds(
        lambda factor, at, lasts, zone: (factor, at, lasts, zone),
        st.floats(1.1, 5.0), st.floats(-86400, 3 * 86400), st.floats(0.01, 86400),
        st.sampled_from([None, "us-east-1a", "us-east-1b"]),
    ),
    max_size=3,
)  # fmt: skip


@given(TIMES, st.floats(0, 3 * 86400), RISES)
def test_history_goes_back_from_the_end_to_the_price_in_force_at_the_start(start, length, rises):
    market = SimulatedMarket(0, lambda _: 4)
    market.rises += [Rise(factor, start + at, start + at + lasts, zone) for factor, at, lasts, zone in rises]
    history = list(market.history("g4dn.xlarge", "us-east-1a", start, start + length))
    assert history[-1].time <= start
    assert all(later.time > earlier.time for later, earlier in pairwise(history))
    assert all(price.time > start for price in history[:-1])
    assert history[0] == market.price("g4dn.xlarge", "us-east-1a", start + length)
    assert all(0 < price.price <= on_demand_price("g4dn.xlarge") for price in history)


def test_a_rise_multiplies_the_prices_of_its_zone_for_its_time():
    market = SimulatedMarket(0, lambda _: 4, [Rise(1.5, MOMENT, MOMENT + 60, zone="us-east-1a")])

    def price(zone, at):
        return market.price("g4dn.xlarge", zone, at)

    before, during, after = (price("us-east-1a", MOMENT + s) for s in (-1, 30, 60))
    assert during.price == round(1.5 * before.price, 4)
    assert (during.time, after.time, after.price) == (MOMENT, MOMENT + 60, before.price)
    assert price("us-east-1b", MOMENT + 30) == price("us-east-1b", MOMENT - 1)


def test_capacity_is_by_zone_and_type_and_the_first_pattern_that_fits_counts():
    behaviour = Behaviour(capacity={"us-east-1a:g4dn.*": 0, "us-east-1?:*": 3})
    assert behaviour.free("us-east-1a", "g4dn.xlarge") == 0
    assert behaviour.free("us-east-1a", "g5.xlarge") == 3
    assert behaviour.free("us-east-2a", "g5.xlarge") is None


def test_gpu_types_count_against_the_gpu_quota():
    assert {family("g4dn.xlarge"), family("g6e.2xlarge"), family("vt1.3xlarge")} == {"gpu"}
    assert {family("c7i.large"), family("t3.micro")} == {"standard"}
