"""Whole runs in a model cloud whose spot capacity follows a series in each of two zones: in time, at the forecast's cost.

Time is the model's: a run of ten hours takes a second. `CAPACITY_SERIES` names a folder of real series, in the format of
the data of Wu et al., "Can't Be Late" (NSDI 2024), to run on these by hand.
"""

import json
import os
import random
import sys
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import crash_world
import pytest
from crash_scenario import T0, Scenario, cost_of
from trace_world import TracedWorld, read_series

from gpu_offload.orchestrator.run.alternatives import policy_alternatives
from gpu_offload.orchestrator.run.forecast import Forecast, forecast
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.spot_prices import SpotPrices

ZONES = ["us-east-1a", "us-east-1b"]
HOUR = 3600.0
SCENARIO = {"epochs": 30, "epoch_s": 600.0, "deadline_s": 12 * HOUR, "max_cost_usd": 10.0}


def play(series, gap_s, **changes):
    world = TracedWorld(Scenario(**(SCENARIO | changes)), series, gap_s)
    world.play()
    assert world.outcome() == "published"
    end = max(a.end.at for a in world.attempts)
    assert end <= world.run.deadline_at
    return world, cost_of(world.attempts, end), end


def stretches(*lengths, first=1):
    """Return a series that is up and down in turn, for so many steps."""
    return [(first + i) % 2 for i, n in enumerate(lengths) for _ in range(n)]


def test_a_run_in_two_zones_follows_their_capacity_and_costs_what_was_forecast(tmp_path):
    """The first zone is taken back after 75 minutes and comes and goes; the second one comes up and lasts."""
    for zone, data in {
        "a": stretches(15, 30, 3, 96),
        "b": stretches(10, 134, first=0),
    }.items():
        document = {"metadata": {"gap_seconds": 300}, "data": data}
        (tmp_path / f"{zone}.json").write_text(json.dumps(document))
    world, usd, end = play(*read_series(tmp_path, ZONES, 12))
    assert sum(a.end.reason == "reclaimed" for a in world.attempts) == 1
    markets = [(a.record.offer.market, a.record.offer.zone) for a in world.attempts if a.host]
    assert markets == [("spot", ZONES[0]), ("spot", ZONES[1])]
    expected = forecast(world.run)
    assert usd <= expected.worst
    assert 0.5 * expected.expected < usd < 1.5 * expected.expected
    others = {
        a.label: float(a.usd)
        for a in policy_alternatives(world.run, world.attempts, end, paid=Decimal(str(usd)))
    }
    assert others["the optimum in hindsight"] <= usd <= others["on-demand only"]


def test_a_zone_whose_price_rises_is_left_for_one_that_costs_less():
    """Prices are those of the moment, not of the plan: the cheaper zone becomes the dearer one after two hours."""
    up = dict.fromkeys(ZONES, [1] * 144)
    world = TracedWorld(Scenario(**SCENARIO), up, 300.0)
    rise = {("g4dn.xlarge", ZONES[0]): 0.5}
    read = SpotPrices(lambda _region, _types, at: rise if at >= T0 + 2 * HOUR else {})
    world.prices = read
    world.play()
    first, second = world.attempts
    assert (first.record.offer.zone, first.end.reason) == (ZONES[0], "moved")
    assert T0 + 2 * HOUR < first.end.at < T0 + 3 * HOUR
    assert (second.record.offer.zone, second.record.offer.market) == (ZONES[1], "spot")


def test_prices_are_asked_for_while_they_matter_and_kept_where_ec2_does_not_answer():
    asked, answers = [], {T0 + 700: {("g4dn.xlarge", ZONES[0]): 0.1}}

    def read(region, types, at):
        asked.append((region, types, at))
        return answers.get(at, {})

    run, prices = crash_world.run_record(Scenario()), SpotPrices(read)

    def offers(at, **seen):
        found = prices(run, Observation(now=T0 + at, me="me", **seen)).candidates
        return {c.offer.name: c.offer.usd_per_hour for c in found}

    planned = {c.offer.name: c.offer.usd_per_hour for c in run.candidates}
    changed = planned | {f"g4dn.xlarge spot {ZONES[0]}": 0.1}
    assert offers(500) == offers(700, driver="another") == offers(700, published=True) == planned
    assert not asked, "the plan's prices are as new"
    assert offers(700) == offers(1000) == offers(1400) == changed
    assert [at for _, _, at in asked] == [T0 + 700, T0 + 1400]


def test_an_offer_without_a_zone_has_the_price_of_the_dearest_one():
    """It is of a plan without credentials; the launch takes any zone."""
    found = {
        ("g4dn.xlarge", "us-east-1a"): 0.2,
        ("g4dn.xlarge", "us-east-1b"): 0.3,
        ("g4dn.xlarge", "us-east-2a"): 0.4,
    }
    run = crash_world.run_record(Scenario())
    spot = next(c for c in run.candidates if c.offer.market == "spot")
    offer = replace(spot.offer, region="us-east-1", zone=None, usd_per_hour=0.1)
    run = run.model_copy(update={"candidates": (spot.model_copy(update={"offer": offer}),)})
    [candidate] = SpotPrices(lambda *_: found)(run, Observation(now=T0 + 700, me="me")).candidates
    assert candidate.offer.usd_per_hour == 0.3
    assert candidate.offer.zone is None


def test_without_any_spot_the_wait_ends_in_time_and_the_worst_case_is_what_was_said():
    world, usd, _ = play({zone: [0] * 144 for zone in ZONES}, 300.0)
    attempt = next(a for a in world.attempts if a.host)
    assert attempt.record.offer.market == "on-demand"
    expected = forecast(world.run)
    assert attempt.record.created_at <= expected.waits_until + 60
    assert usd <= expected.worst


@pytest.mark.parametrize("seed", range(4))
def test_whatever_two_zones_do_a_run_is_in_time_and_within_its_worst_case(seed):
    dice = random.Random(seed)
    series = {
        zone: stretches(*[dice.choice([1, 2, 4, 30]) for _ in range(144)], first=dice.randint(0, 1))[:144]
        for zone in ZONES
    }
    world, usd, _ = play(series, 300.0, deadline_s=7 * HOUR)
    assert usd <= forecast(world.run).worst


@pytest.mark.parametrize("policy", ["uniform-progress", "greedy", "on-demand"])
def test_named_policies_keep_the_deadline_where_spot_comes_and_goes(policy, monkeypatch):
    made = crash_world.run_record
    monkeypatch.setattr(crash_world, "run_record", lambda s: made(s).model_copy(update={"policy": policy}))
    up = stretches(*[12, 12] * 6)
    world, _, _ = play({ZONES[0]: up, ZONES[1]: [0] * 144}, 300.0, epochs=12)
    spot = [a for a in world.attempts if a.host and a.record.offer.market == "spot"]
    assert bool(spot) == (policy != "on-demand")


@pytest.mark.parametrize(
    ("waits_until", "text"),
    [
        (None, "on demand at once"),
        (T0 + HOUR, f"until {datetime.fromtimestamp(T0 + HOUR, UTC):%H:%M} UTC"),
        (T0 + 48 * HOUR, f"until {datetime.fromtimestamp(T0 + 48 * HOUR, UTC):%Y-%m-%d %H:%M} UTC"),
    ],
)
def test_a_forecast_names_both_costs_and_the_end_of_the_wait(waits_until, text):
    said = Forecast(0.31, 0.74, T0, waits_until).text
    assert said.startswith("Expected $0.31, worst case $0.74; ")
    assert text in said
    assert "In time" not in said, "a deadline that is too close is no promise"
    assert "46 min at most, a start 5 min" in Forecast(0.31, 0.74, T0, waits_until, 2760.0, 300.0).text


def test_a_run_without_a_choice_of_market_has_no_forecast():
    run = crash_world.run_record(Scenario())
    for candidates in (run.candidates[:2], run.candidates[2:]):
        assert forecast(run.model_copy(update={"candidates": candidates})) is None
    assert forecast(run.model_copy(update={"forced": True})) is None


def test_runs_on_real_series(capsys):
    folder = os.environ.get("CAPACITY_SERIES")
    if not folder:
        pytest.skip("the capacity series are not here: CAPACITY_SERIES is not set")
    for start in range(0, 12_000, 1500):
        world, usd, end = play(*read_series(Path(folder), ZONES, 12, start))
        expected = forecast(world.run)
        others = ", ".join(
            f"{a.label} ${a.usd:.2f}"
            for a in policy_alternatives(world.run, world.attempts, end, paid=Decimal(str(usd)))
        )
        with capsys.disabled():
            sys.stdout.write(
                f"\nfrom step {start}: ${usd:.2f} in {(end - T0) / HOUR:.1f} h, {world.reclaimed} reclaims. "
                f"{expected.text} On what was seen: {others}"
            )
        assert usd <= expected.worst + 1e-6
