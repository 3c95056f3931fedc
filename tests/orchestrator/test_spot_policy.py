"""Spot, on-demand or wait: the deadline is kept whatever spot does, and slack is spent where it saves money."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_offload.orchestrator.run.spot_policy import Position, choose_market

HOUR, TICK = 3600.0, 600.0

POSITION = Position(
    left=4 * HOUR, until_deadline=8 * HOUR, whole=8 * HOUR, work=4 * HOUR, overhead=300.0, pause=TICK, running=None,
    spot_open=False,
)  # fmt: skip
PRICE = {"spot": 1.0, "on-demand": 3.0, None: 0.0}


def train(work, whole, overhead, is_open):
    """Play a training, a decision a tick; return when it was done, what it cost, and its changes of machine."""
    now, done, pending, running, cost, changes = 0.0, 0.0, 0.0, None, 0.0, 0
    while True:
        spot_open = is_open(now)
        if running == "spot" and not spot_open:
            running = None
        chosen = choose_market(
            Position(work - done, whole - now, whole, work, overhead, TICK, running, spot_open)
        )
        assert chosen != "spot" or spot_open, "spot is never chosen where there is none"
        assert now <= whole + TICK, "it never ends"
        if chosen not in {None, running}:
            pending, changes = overhead, changes + 1
        running = chosen
        if running:
            trained = TICK - min(TICK, pending)
            if done + trained >= work - 1e-6:
                return now + min(TICK, pending) + work - done, cost + PRICE[running] * TICK, changes
            done, pending = done + trained, max(0.0, pending - TICK)
        cost += PRICE[running] * TICK
        now += TICK


@settings(max_examples=300, deadline=None)
@given(
    work=st.floats(600, 40 * HOUR),
    spare=st.floats(0, 20 * HOUR),
    overhead=st.floats(0, 2000),
    seed=st.integers(0, 10**6),
    stays=st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
)
def test_a_deadline_that_on_demand_could_keep_is_kept_whatever_spot_does(work, spare, overhead, seed, stays):
    whole = work + overhead + spare
    dice, state = random.Random(seed), {"open": True}

    def flicker(_now):
        if dice.random() > stays:
            state["open"] = not state["open"]
        return state["open"]

    assert train(work, whole, overhead, flicker)[0] <= whole + 1e-3


def test_the_worst_market_takes_spot_back_whenever_it_was_taken():
    """An adversary that opens spot only while nobody is on it costs changes of machine, never the deadline."""
    for spare in range(0, 30_000, 1500):
        ticks = iter([True, False] * 10_000)
        end, _, _ = train(8 * HOUR, 8 * HOUR + 720 + spare, 720, lambda _now, ticks=ticks: next(ticks))
        assert end <= 8 * HOUR + 720 + spare + 1e-3


@given(st.floats(0, 30 * HOUR), st.floats(0, 10 * HOUR), st.booleans())
def test_more_time_never_turns_waiting_or_spot_into_on_demand(until, more, is_open):
    here = replace(POSITION, until_deadline=until, spot_open=is_open)
    later = replace(here, until_deadline=until + more, whole=here.whole + more)
    if choose_market(here) == "spot":
        assert choose_market(later) == "spot"


@pytest.mark.parametrize(
    ("position", "chosen"),
    [
        (replace(POSITION, spot_open=True), "spot"),
        (POSITION, None),
        (replace(POSITION, until_deadline=5 * HOUR), None),
        (replace(POSITION, until_deadline=4.5 * HOUR), "on-demand"),
        (replace(POSITION, until_deadline=4.5 * HOUR, spot_open=True), "spot"),
        (replace(POSITION, until_deadline=4.1 * HOUR, spot_open=True), "on-demand"),
        (replace(POSITION, until_deadline=4.1 * HOUR, spot_open=True, running="spot"), "spot"),
        (replace(POSITION, running="on-demand"), "on-demand"),
        (replace(POSITION, running="on-demand", spot_open=True), "spot"),
        (replace(POSITION, left=500.0, running="on-demand", spot_open=True), "on-demand"),
    ],
)
def test_a_position_has_its_choice(position, chosen):
    """In words: spot where there is some, waiting while there is more slack than it will need, else on-demand."""
    assert choose_market(position) == chosen


def test_steady_spot_is_all_that_is_paid_for_and_no_spot_is_waited_for_only_so_long():
    end, cost, changes = train(4 * HOUR, 8 * HOUR, 300, lambda _now: True)
    assert (changes, math.ceil((end - 1e-6) / TICK) * TICK) == (1, cost)
    end, cost, changes = train(4 * HOUR, 8 * HOUR, 300, lambda _now: False)
    assert changes == 1
    assert 7 * HOUR < end <= 8 * HOUR
