"""Spot, on-demand or wait: the deadline is kept whatever spot does, and slack is spent where it saves money."""

import math
import random
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_offload.orchestrator.run.availability import IS_UP, STEP_S, Sighting, learn
from gpu_offload.orchestrator.run.expected_cost import Job, solve
from gpu_offload.orchestrator.run.position import Position
from gpu_offload.orchestrator.run.spot_policy import allowed, choose_market, expected_costs

HOUR, TICK = 3600.0, 600.0

POSITION = Position(
    left=4 * HOUR, until_deadline=8 * HOUR, whole=8 * HOUR, work=4 * HOUR, overhead=300.0, pause=TICK, running=None,
    spot_open=False,
)  # fmt: skip
PRICE = {"spot": 1.0, "on-demand": 3.0, None: 0.0}


def train(work, whole, overhead, is_open, choose=choose_market):
    """Play a training, a decision a tick; return when it was done, what it cost, and its changes of machine."""
    now, done, pending, running, cost, changes, belief = 0.0, 0.0, 0.0, None, 0.0, 0, None
    while True:
        spot_open = is_open(now)
        if running == "spot" and not spot_open:
            running = None
        at = Position(
            work - done, whole - now, whole, work, overhead, TICK, running, spot_open,
            pending=pending if running else 0.0, belief=belief, now=now,
        )  # fmt: skip
        chosen = choose(at)
        belief = learn(belief, Sighting(now, spot_open, watched=True))
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
    """Any choice among the allowed ones keeps it, so the policy's own choice does, too."""
    whole = work + overhead + spare
    dice, state = random.Random(seed), {"open": True}

    def flicker(_now):
        if dice.random() > stays:
            state["open"] = not state["open"]
        return state["open"]

    end = train(work, whole, overhead, flicker, choose=lambda at: dice.choice(allowed(at)))[0]
    assert end <= whole + 1e-3


def latest_end(work, whole, start, epoch, margin):
    """Return the latest end of a training, in half ticks, over every series of spot capacity and every allowed choice.

    Each start takes `start` or nothing; a change of machine loses all since the last epoch, or nothing; on-demand is
    refused for `margin` in all, at whichever ticks. Lengths are half ticks.
    """
    half = TICK / 2

    @cache
    def end(now, left, running, pending, since, margin):
        if now > whole:
            return math.inf
        ends = []
        for is_open in (True, False):
            lost = {0, min(epoch, since)} if running == "spot" and not is_open else {0}
            for repeated in lost:
                reclaimed = running == "spot" and not is_open
                state = (left + repeated, None, 0, 0) if reclaimed else (left, running, pending, since)
                at = replace(
                    POSITION, left=state[0] * half, until_deadline=(whole - now) * half, whole=whole * half,
                    work=work * half, overhead=(start + epoch) * half, running=state[1], spot_open=is_open,
                    margin=margin * half,
                )  # fmt: skip
                ends += [after(now, *state, margin, choice) for choice in allowed(at)]
        return max(ends)

    def after(now, left, running, pending, since, margin, choice):
        if choice is None:
            return end(now + 2, left, None, 0, 0, margin)
        if choice == running:
            return trained(now, left, running, pending, since, margin)
        lost = {0, min(epoch, since)} if running else {0}
        ends = [
            trained(now, left + repeated, choice, pending, 0, margin)
            for repeated in lost
            for pending in {0, start}
        ]
        if choice == "on-demand" and margin >= 2 and running is None:
            ends.append(end(now + 2, left, None, 0, 0, margin - 2))
        return max(ends)

    def trained(now, left, running, pending, since, margin):
        done = 2 - min(2, pending)
        if left <= done:
            return now + min(2, pending) + left
        return end(now + 2, left - done, running, max(0, pending - 2), min(epoch, since + done), margin)

    return end(0, work, None, 0, 0, margin)


@pytest.mark.parametrize("margin", [0, 2, 4])
@pytest.mark.parametrize(("start", "epoch"), [(1, 0), (2, 1), (3, 2), (0, 3)])
def test_among_all_series_and_allowed_choices_none_misses_a_deadline(start, epoch, margin):
    """Exhaustively, for short trainings; long ones are drawn at random."""
    for work in (2, 5, 8):
        for spare in range(8):
            whole = work + start + epoch + margin + spare
            assert latest_end(work, whole, start, epoch, margin) <= whole


@pytest.mark.parametrize("spare", range(0, 30_000, 6000))
def test_the_worst_market_takes_spot_back_whenever_it_was_taken(spare):
    """An adversary that opens spot only while no machine is on it costs changes of machine, never the deadline."""
    ticks = iter([True, False] * 10_000)
    end, _, _ = train(8 * HOUR, 8 * HOUR + 720 + spare, 720, lambda _now: next(ticks))
    assert end <= 8 * HOUR + 720 + spare + 1e-3


def test_the_choice_is_an_allowed_one_of_least_expected_cost():
    costs = expected_costs(POSITION)
    assert choose_market(POSITION) == min(allowed(POSITION), key=lambda choice: costs[choice])


def test_waiting_is_worth_more_where_capacity_was_seen_to_come_back_soon():
    """Outages of ten minutes in each two hours, against one that has lasted for a day."""
    soon = None
    for step in range(61):
        soon = learn(soon, Sighting(step * TICK, step % 12 != 0, watched=True))
    long = learn(None, Sighting(0.0, is_up=False))
    long = learn(long, Sighting(24 * HOUR, is_up=False, watched=True))
    back = expected_costs(replace(POSITION, belief=soon, now=60 * TICK))
    gone = expected_costs(replace(POSITION, belief=long, now=24 * HOUR + TICK))
    assert back[None] - back["on-demand"] < gone[None] - gone["on-demand"]


@given(st.lists(st.tuples(st.integers(1, 200), st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_a_belief_is_a_distribution_that_agrees_with_the_last_sighting(seen):
    belief, now = None, 0.0
    for steps, is_up, watched in seen:
        now += steps * STEP_S
        belief = learn(belief, Sighting(now, is_up, watched))
    assert belief.states.min() >= 0
    assert math.isclose(belief.states.sum(), 1.0, rel_tol=1e-9)
    assert math.isclose(belief.states[IS_UP].sum(), float(seen[-1][1]), abs_tol=1e-9)
    assert all(0 < multiplier < 50 for multiplier in belief.multipliers)


@given(work=st.integers(1, 40), spare=st.integers(0, 30), overhead=st.sampled_from([0.3, 1.2]))
@settings(max_examples=25, deadline=None)
def test_expected_costs_lie_between_all_spot_and_all_on_demand_and_fall_with_time(work, spare, overhead):
    costs = []
    for steps in (work + 2 + spare, work + 12 + spare):
        table = solve(Job(work, steps, overhead, 0.3, 0.0, (1.0, 1.0), 1))
        costs.append(table.values[steps][0, :, -1])
        assert costs[-1].min() >= 0.3 * work - 1e-3
        assert costs[-1].max() <= math.ceil(work + overhead) + 1e-3
    assert (costs[1] <= costs[0] + 1e-3).all()


@pytest.mark.parametrize(
    ("position", "chosen"),
    [
        (replace(POSITION, spot_open=True), "spot"),
        (POSITION, None),
        (replace(POSITION, until_deadline=7 * HOUR), None),
        (replace(POSITION, until_deadline=5 * HOUR), None),
        (replace(POSITION, until_deadline=4.75 * HOUR), "on-demand"),
        (replace(POSITION, until_deadline=4.5 * HOUR), "on-demand"),
        (replace(POSITION, until_deadline=4.5 * HOUR, spot_open=True), "spot"),
        (replace(POSITION, until_deadline=4.1 * HOUR, spot_open=True), "on-demand"),
        (replace(POSITION, until_deadline=4.1 * HOUR, spot_open=True, running="spot"), "spot"),
        (replace(POSITION, running="on-demand"), "on-demand"),
        (replace(POSITION, running="on-demand", spot_open=True), "spot"),
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
    assert 6 * HOUR < end <= 8 * HOUR
