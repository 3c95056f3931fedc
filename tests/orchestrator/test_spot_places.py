"""Several places of spot: which is chosen, what former runs teach, and what others would have paid."""

import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_case import T0, gpu_offer, run_of, seen_attempt

from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.run.availability import STEP_S, Belief, Sighting, learn
from gpu_offload.orchestrator.run.capacity import belief_of, place_name, seen_capacity
from gpu_offload.orchestrator.run.former_runs import read_experience
from gpu_offload.orchestrator.run.hindsight import capacity_steps, optimum, to_end
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.places import Place, best_place
from gpu_offload.orchestrator.run.position import Position, Standing
from gpu_offload.orchestrator.run.spot_policy import NAMED, allowed, bounded, choose, uniform_progress
from gpu_offload.orchestrator.run.startup import START_S, start_seconds

HOUR = 3600.0
STEADY = learn(Belief.first(0.0, is_up=True), Sighting(24 * HOUR, is_up=True, watched=True))
SHAKY = Belief.first(24 * HOUR, is_up=True)
for _step in range(24):
    SHAKY = SHAKY.after(Sighting(24 * HOUR + (_step + 1) * STEP_S, is_up=_step % 2 == 1))


def position(**changes):
    values = {
        "left": 4 * HOUR, "until_deadline": 8 * HOUR, "whole": 8 * HOUR, "work": 4 * HOUR, "overhead": 720.0,
        "pause": STEP_S, "running": None, "spot_open": False,
    }  # fmt: skip
    return Position(**(values | changes))


@pytest.mark.parametrize(
    ("places", "running", "best"),
    [
        ([Place(0.3, False, STEADY), Place(0.4, False, STEADY)], None, None),
        ([Place(0.3, False, STEADY), Place(0.4, True, STEADY)], None, 1),
        ([Place(0.4, True, STEADY), Place(0.3, True, STEADY)], None, 1),
        ([Place(0.3, True, SHAKY), Place(0.32, True, STEADY)], None, 1),
        ([Place(0.3, True, SHAKY), Place(0.9, True, STEADY)], None, 0),
        ([Place(0.305, True, STEADY), Place(0.3, True, STEADY)], 0, 0),
        ([Place(0.9, True, STEADY), Place(0.3, True, STEADY)], 0, 1),
        ([Place(0.9, True, STEADY), Place(0.3, True, SHAKY)], 0, 0),
    ],
)
def test_price_and_the_risk_of_a_reclaim_choose_the_place_and_a_move_must_pay(places, running, best):
    assert best_place(places, overhead=720.0, left=10 * HOUR, running=running) == best


def test_a_refusal_or_a_reclaim_in_a_zone_says_nothing_about_another():
    attempts = (seen_attempt(1, T0, T0 + HOUR, "reclaimed"),)
    seen = seen_capacity(attempts, T0 + 2 * HOUR)
    here = place_name(attempts[0].record.offer)
    assert not belief_of(seen, here).is_up
    assert belief_of(seen, "g4dn.xlarge us-west-2a") is None


@pytest.mark.parametrize("field", ["quota", "denied"])
def test_what_the_account_may_not_launch_is_no_lack_of_capacity(field):
    refused = seen_attempt(1, T0, T0 + 5, "refused", with_host=False)
    assert seen_capacity((refused,), T0 + 60)
    refused = replace(refused, end=refused.end.model_copy(update={field: True}))
    assert not seen_capacity((refused,), T0 + 60)


def test_a_new_run_knows_what_former_runs_saw_and_it_fades(tmp_path):
    store = open_store(f"file:{tmp_path / 'store'}")
    journal = Journal(store)
    for number in (1, 2):
        run = journal.begin(run_of(id=f"aaaaaaaaaaaa-{number}", now=T0 + number))
        attempt = seen_attempt(1, T0, T0 + HOUR, "reclaimed")
        journal.open_attempt(run.id, attempt.record)
        journal.record_host(run.id, 1, attempt.host)
        journal.close_attempt(run.id, attempt.end)
        beat = HEARTBEAT | {"trains_since": T0 + 149 + number}
        store.put(f"runs/{run.id}/attempts/1/heartbeat.json", json.dumps(beat).encode())
    store.put("runs/damaged-1/run.json", b"{}")
    store.put("runs/damaged-1/attempts/1.json", b"{}")
    experience = read_experience(store, T0 + 2 * HOUR)
    assert experience.start_seconds == {"g4dn.xlarge": (150.0, 151.0)}
    seen = [(s.place, Sighting(s.at, s.is_up, s.watched)) for s in experience.capacity]
    belief = belief_of(seen, place_name(gpu_offer()))
    soon, late = (belief.unseen_until(T0 + hours * HOUR).multipliers[1] for hours in (2, 24 * 60))
    assert soon > late > 1
    assert math.isclose(late, 1, abs_tol=0.05)


HEARTBEAT = {
    "run": "a", "attempt": 1, "time": 1700000200, "pid": 1, "host": "h", "boot_id": "b", "epochs_completed": 0,
    "epochs": 3, "state": "training",
}  # fmt: skip


@given(st.lists(st.floats(30, 2000), max_size=20))
def test_a_start_up_is_expected_between_what_was_assumed_and_what_was_measured(measured):
    assert math.isclose(start_seconds(()), START_S)
    assert start_seconds([100.0] * 20) < START_S < start_seconds([500.0] * 20)
    assert start_seconds([*measured, 2500.0]) > start_seconds([*measured, 1000.0]) > 0


def test_a_run_that_is_much_dearer_than_its_rival_does_what_that_does():
    at = position(rival=Standing(left=4 * HOUR), paid=2 * HOUR)
    assert uniform_progress(at) is None
    assert bounded(at, ("on-demand", None)) == (None,)
    assert bounded(replace(at, paid=0.0), ("on-demand", None)) == ("on-demand", None)
    behind = replace(
        at, paid=0.0, left=4 * HOUR, until_deadline=6 * HOUR, rival=Standing(1 * HOUR, 0.5 * HOUR)
    )
    assert bounded(behind, ("on-demand", None)) != ("on-demand",)


@settings(max_examples=20, deadline=None)
@given(
    ups=st.lists(st.integers(1, 30), min_size=1, max_size=30),
    work=st.floats(600, 10 * HOUR),
    spare=st.floats(2000, 10 * HOUR),
    overhead=st.sampled_from([60.0, 300.0, 1200.0]),
)
def test_the_optimum_in_hindsight_costs_no_more_than_any_policy_and_on_demand_its_work(
    ups, work, spare, overhead
):
    is_up = [up for i, n in enumerate(ups) for up in [i % 2 == 0] * n]
    at = position(
        left=work,
        work=work,
        whole=work + spare + overhead,
        until_deadline=work + spare + overhead,
        overhead=overhead,
    )
    paid = {name: to_end(lambda now, name=name: choose(name, now), at, is_up) for name in NAMED}
    assert math.isclose(paid["on-demand"], work + overhead, rel_tol=1e-6)
    # The optimum rounds work and overheads up to a tenth of a step.
    slack = 0.11 * STEP_S * (2 + len(ups))
    assert optimum(at, is_up) <= min(paid.values()) + slack
    assert optimum(at, is_up) >= at.spot_price * work - 1e-6


def test_capacity_that_was_seen_counts_until_it_is_seen_otherwise():
    seen = [("a", Sighting(T0 + 1200, is_up=True)), ("a", Sighting(T0 + 2400, is_up=False))]
    assert capacity_steps(seen, T0, T0 + 3600) == [True, True, True, True, False, False]
    assert capacity_steps([*seen, ("b", Sighting(T0 + 2400, is_up=True))], T0, T0 + 3600) == [True] * 6
    assert capacity_steps([], T0, T0 + 1200) == [False, False]


def train_anywhere(dice, work, whole, start, epoch, margin, stays, choice):
    """Play a training in several zones that come and go; return when it was done.

    Each start takes any time up to `start`, each change of machine loses anything up to an epoch, and on-demand is refused
    for `margin` in all. `choice` chooses among the allowed.
    """
    zones = [dice.random() < 0.5 for _ in range(dice.randint(1, 3))]
    now, done, pending, since, running, refused = 0.0, 0.0, 0.0, 0.0, None, 0.0
    while True:
        zones = [up if dice.random() < stays else not up for up in zones]
        if running is not None and running >= 0 and not zones[running]:
            done, running = done - dice.random() * min(epoch, since), None
        market = None if running is None else "on-demand" if running < 0 else "spot"
        at = position(
            left=work - done, until_deadline=whole - now, whole=whole, work=work, overhead=start + epoch, pause=STEP_S,
            running=market, spot_open=any(zones), pending=pending if market else 0.0, margin=margin - refused,
        )  # fmt: skip
        chosen = choice(at)
        assert now <= whole + STEP_S, "it never ends"
        if (
            chosen == "on-demand"
            and market != "on-demand"
            and refused + STEP_S <= margin
            and dice.random() < 0.5
        ):
            if running is not None:  # the instance that trains is not given up for a refusal
                chosen = "spot"
            refused += STEP_S if running is None else 0.0
            chosen = chosen if running is not None else None
        wanted = {None: None, "on-demand": -1}.get(
            chosen, running if market == "spot" else zones.index(True) if any(zones) else None
        )
        if wanted is not None and wanted != running:
            done -= dice.random() * min(epoch, since) if running is not None else 0.0
            pending, since = dice.random() * start, 0.0
        running = wanted
        if running is not None:
            trained = STEP_S - min(STEP_S, pending)
            if done + trained >= work - 1e-6:
                return now + min(STEP_S, pending) + work - done
            done, since, pending = done + trained, since + trained, max(0.0, pending - STEP_S)
        now += STEP_S


@settings(max_examples=150, deadline=None)
@given(
    work=st.floats(600, 20 * HOUR),
    spare=st.floats(0, 10 * HOUR),
    start=st.floats(0, 1500),
    epoch=st.floats(0, 2000),
    margin=st.sampled_from([0.0, STEP_S, 2 * STEP_S]),
    seed=st.integers(0, 10**6),
    stays=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    policy=st.sampled_from(["any", "expected-cost", *NAMED]),
)
def test_no_capacity_of_any_zones_causes_a_miss(work, spare, start, epoch, margin, seed, stays, policy):
    """Start-ups vary, checkpoints are lost, and on-demand is refused, each within what the guard was told."""
    dice = random.Random(seed)
    whole = work + start + epoch + margin + spare
    if policy == "any":
        end = train_anywhere(
            dice, work, whole, start, epoch, margin, stays, lambda at: dice.choice(allowed(at))
        )
    else:
        end = train_anywhere(dice, work, whole, start, epoch, margin, stays, lambda at: choose(policy, at))
    assert end <= whole + 1e-3
