"""The decision: the free CPU unless a GPU is needed or worth it, within every limit."""

import json
import re
from dataclasses import replace

import pytest
from estimate_case import work
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.orchestrator.estimate.cpu import estimate_cpu_prior
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import GPUS, Offer, cpu_offer
from gpu_offload.orchestrator.plan.decision import CI_LIMIT_S, begun_here, decide, forced, judge
from gpu_offload.orchestrator.plan.option import Limits, PlanReport

HOUR = 3600.0


def hours(low, likely, high):
    return Interval(low * HOUR, likely * HOUR, high * HOUR)


def gpu(usd=0.2, kind="g4dn.xlarge", market="spot", zone="us-east-2a"):
    return Offer("ec2", kind, "us-east-2", zone, market, usd, "test", GPUS["T4"], 4, 16)


def limits(deadline=6.0, cost=1.0, value=0.0, ci=6.0):
    return Limits(deadline * HOUR, cost, value, None if ci is None else ci * HOUR)


def options(bounds, *, cpu=None, gpus=()):
    found = [judge(cpu_offer(4), hours(*cpu), bounds)] if cpu else []
    return [*found, *(judge(offer, hours(*time), bounds) for offer, time in gpus)]


def decided(bounds, *, cpu=None, gpus=(), epochs=None):
    return decide(options(bounds, cpu=cpu, gpus=gpus), bounds, epochs=epochs)


FAST = (gpu(), (0.4, 0.5, 0.8))


@pytest.mark.parametrize(
    ("bounds", "cpu", "gpus", "where", "why"),
    [
        (limits(), (2, 3, 4), [FAST], "cpu", "The free CPU does it: 3 h likely, 4 h at most"),
        (
            limits(),
            (6.2, 6.5, 7.34),
            [FAST],
            "ec2",
            "A GPU is needed: this CPU needs 7 h 20 at most, past the 6 h deadline",
        ),
        (limits(24), (6.2, 6.5, 7.34), [FAST], "ec2", "past the 6 h limit of a CI job"),
        (limits(24, ci=None), (5, 6, 7.34), [FAST], "cpu", "within the 24 h deadline"),
        (limits(2), (2.1, 2.2, 2.5), [FAST], "ec2", "past the 2 h deadline"),
        (
            limits(value=2.0),
            (2, 3, 4),
            [FAST],
            "ec2",
            "A GPU is worth it: it saves 2 h 30, worth $5.00 at $2.00 an hour",
        ),
        (limits(value=0.01), (2, 3, 4), [FAST], "cpu", "but that is worth only $0.03 at $0.01 an hour"),
        (limits(value=100), (0.1, 0.2, 0.3), [FAST], "cpu", "would be no faster, its start-up included"),
        (limits(cost=0.1, value=100), (2, 3, 4), [FAST], "cpu", "The free CPU does it"),
        (
            limits(cost=0.1),
            (5, 6, 8),
            [FAST],
            "none",
            "Nothing fits: this CPU needs 8 h at most, past the 6 h deadline",
        ),
        (limits(0.5), (6.5, 7, 8), [FAST], "none", "needs 48 min at most, past the 30 min deadline"),
        (limits(), (5, 6, 8), [], "none", "Nothing fits: this CPU needs 8 h at most"),
        (limits(), None, [FAST], "ec2", "there is no CPU to train on"),
        (limits(), None, [], "none", "There is no place to train in"),
        (limits(), (5, 6.0005, 6.001), [FAST], "ec2", "needs just over 6 h, past the 6 h deadline"),
    ],
)
def test_the_rule(bounds, cpu, gpus, where, why):
    decision = decided(bounds, cpu=cpu, gpus=gpus)
    assert decision.where == where
    assert why in decision.why


def test_a_limit_inside_the_interval_is_a_toss_up_that_begins_on_the_cpu():
    decision = decided(limits(), cpu=(4, 5, 8), gpus=[FAST])
    assert (decision.where, decision.reversible) == ("cpu", True)
    assert 0.5 < decision.certainty < 0.8
    assert "with its checkpoint" in decision.why


def test_a_limit_outside_of_the_interval_is_no_toss_up():
    for cpu, where in (((4, 5, 5.9), "cpu"), ((6.1, 7, 8), "ec2")):
        decision = decided(limits(), cpu=cpu, gpus=[FAST])
        assert (decision.where, decision.reversible) == (where, False)
        assert decision.certainty > 0.89


def test_a_toss_up_begins_on_no_cpu_from_which_it_could_not_move_in_time():
    late = (gpu(0.1), (5.9, 5.95, 5.99))
    assert decided(limits(), cpu=(4, 5, 8), gpus=[late]).where == "ec2"


def test_what_an_earlier_plan_begins_on_the_cpu_begins_there_on_a_slower_one_too():
    for cpu in ((6.1, 7, 8), (4, 5, 8), (4, 5, 5.9)):
        cpu_option, decision = options(limits(), cpu=cpu)[0], decided(limits(), cpu=cpu, gpus=[FAST])
        begun = begun_here(decision, cpu_option, escalates=False)
        assert (begun.where, begun.option, begun.reversible) == ("cpu", cpu_option, True)
        escalating = begun_here(decision, cpu_option, escalates=True)
        assert escalating.reversible == (cpu[2] > 6)  # a sure one moves only once that is certain
    nowhere = decided(limits(cost=0.0001), cpu=(6.1, 7, 8), gpus=[FAST])
    assert begun_here(nowhere, cpu_option, escalates=False).where == "none"


def test_a_gpu_that_is_worth_it_only_perhaps_is_not_rented_at_once():
    perhaps = decided(limits(value=0.25), cpu=(1.0, 1.6, 2.5), gpus=[(gpu(0.55), (0.3, 0.45, 0.9))])
    assert (perhaps.where, perhaps.reversible) == ("cpu", True)
    surely = decided(limits(value=5), cpu=(2, 3, 4), gpus=[FAST])
    assert (surely.where, surely.reversible) == ("ec2", False)
    assert surely.certainty > 0.8


def test_among_gpus_the_cheapest_training_wins_not_the_cheapest_hour():
    slow, quick = (gpu(0.2), (0.9, 1.0, 1.2)), (gpu(0.3, "g5.xlarge"), (0.4, 0.5, 0.6))
    assert decided(limits(), cpu=(6.5, 7, 8), gpus=[slow, quick]).option.offer.instance_type == "g5.xlarge"


def test_a_dearer_gpu_is_taken_where_time_is_worth_more():
    slow, quick = (gpu(0.2), (0.9, 1.0, 1.2)), (gpu(1.0, "g6e.xlarge"), (0.2, 0.3, 0.4))
    assert decided(limits(), cpu=(6.5, 7, 8), gpus=[slow, quick]).option.offer.instance_type == "g4dn.xlarge"
    worth = limits(value=1.0)
    assert decided(worth, cpu=(6.5, 7, 8), gpus=[slow, quick]).option.offer.instance_type == "g6e.xlarge"


def test_spot_is_taken_before_on_demand_at_the_same_price():
    both = [(gpu(market="on-demand"), FAST[1]), FAST]
    assert decided(limits(), cpu=(6.5, 7, 8), gpus=both).option.market == "spot"


def test_an_option_says_every_limit_that_it_breaks():
    option = judge(gpu(10.0), hours(5, 6, 8), limits())
    assert not option.feasible
    assert option.reason == (
        "needs 8 h at most, past the 6 h deadline; may cost $80.08, more than max-cost-usd $1.00"
    )


def test_an_instance_outlives_the_ci_job_but_not_the_deadline():
    assert judge(gpu(0.01), hours(6, 7, 8), limits(24)).feasible
    assert not judge(cpu_offer(4), hours(6, 7, 8), limits(24)).feasible


# What would change a decision is true: follow the advice and it changes.


def test_the_value_of_time_that_a_receipt_names_is_where_the_decision_turns():
    gpus = [FAST, (gpu(0.9, "g6e.xlarge"), (0.1, 0.15, 0.2))]
    calm = decided(limits(), cpu=(2, 3, 4), gpus=gpus)
    value = float(re.search(r"Above value-of-time-usd-per-hour = ([\d.]+)", calm.changes[0])[1])
    assert decided(limits(value=value + 0.001), cpu=(2, 3, 4), gpus=gpus).where == "ec2"
    assert decided(limits(value=value - 0.011), cpu=(2, 3, 4), gpus=gpus).where == "cpu"
    hurried = decided(limits(value=5), cpu=(2, 3, 4), gpus=gpus)
    value = float(re.search(r"Up to value-of-time-usd-per-hour = ([\d.]+)", hurried.changes[0])[1])
    assert decided(limits(value=value), cpu=(2, 3, 4), gpus=gpus).where == "cpu"


def test_the_epochs_that_a_receipt_names_are_where_the_cpu_stops_fitting():
    decision = decided(limits(), cpu=(2, 3, 4), epochs=20)
    assert "With more than about 30 epochs" in decision.changes[-1]
    decision = decided(limits(), cpu=(0.0123,) * 3, epochs=20)
    assert "With more than about 9700 epochs" in decision.changes[-1], "of 9756"
    decision = decided(limits(), cpu=(8, 10, 12), gpus=[FAST], epochs=20)
    assert "With about 10 epochs instead of 20" in decision.changes[0]


def test_the_epochs_that_a_receipt_names_do_not_count_what_every_training_has():
    def cpu(epochs):
        estimate = estimate_cpu_prior(work(epochs=epochs), 4).with_installation(Interval(100, 400, 1500))
        return judge(cpu_offer(4), estimate.interval, limits()).with_estimate(estimate)

    few = decide((cpu(2),), limits(), epochs=2)
    named = int(re.search(r"more than about (\d+) epochs", few.changes[-1])[1])
    assert cpu(named).interval.high == pytest.approx(limits().deadline_s, rel=0.1)


def test_the_deadline_that_a_receipt_names_is_enough():
    decision = decided(limits(2), cpu=(1, 1.5, 2.501), gpus=[FAST])
    assert "With a deadline of 2h31m this CPU could do it" in decision.changes[0]
    longer = limits(2 + 31 / 60)
    assert decided(longer, cpu=(1, 1.5, 2.501), gpus=[FAST]).where == "cpu"


def test_a_deadline_past_the_ci_limit_is_not_advised():
    decision = decided(limits(2), cpu=(5, 6, 7), gpus=[FAST])
    assert not any("deadline" in change for change in decision.changes if "could do it" in change)


def test_the_money_that_a_receipt_names_is_enough():
    decision = decided(limits(cost=0.1), cpu=(6.5, 7, 8), gpus=[FAST])
    usd = float(
        next(re.search(r"max-cost-usd = ([\d.]+)", c)[1] for c in decision.changes if "max-cost" in c)
    )
    assert decided(limits(cost=usd), cpu=(6.5, 7, 8), gpus=[FAST]).where == "ec2"
    assert decided(limits(cost=usd - 0.01), cpu=(6.5, 7, 8), gpus=[FAST]).where == "none"


def test_deadline_and_money_are_named_together_where_both_are_short():
    decision = decided(limits(0.5, cost=0.01), cpu=(6.5, 7, 8), gpus=[FAST])
    advice = next(c for c in decision.changes if "With a deadline" in c)
    assert advice == "With a deadline of 48m and max-cost-usd = 0.17 g4dn.xlarge spot us-east-2a could do it."


@pytest.mark.parametrize(
    ("where", "bounds", "result"),
    [
        ("ec2", limits(), "ec2"),
        ("cpu", limits(value=100), "cpu"),
        ("ec2", limits(cost=0.01), "none"),
    ],
)
def test_a_place_that_is_asked_for_is_taken_within_its_limits(where, bounds, result):
    those = options(bounds, cpu=(2, 3, 4), gpus=[FAST])
    decision = forced(where, those, bounds)
    assert decision.where == result
    if result != "none":
        assert f"`--on {where}`" in decision.why


def test_a_cpu_that_is_asked_for_may_go_past_its_time():
    late = options(limits(), cpu=(6.5, 7, 8))
    decision = forced("cpu", late, limits())
    assert decision.where == "cpu"
    assert "although it needs 8 h at most, past the 6 h deadline" in decision.why
    assert forced("ec2", late, limits()).where == "none"


def test_a_training_begins_on_no_cpu_that_lacks_its_device_whatever_its_time():
    cpu = options(limits(), cpu=(4, 5, 8))[0].ruled_out(["has no training.device cuda"])
    decision = decide([cpu, *options(limits(), gpus=[FAST])], limits(), epochs=20)
    assert (decision.where, decision.changes, decision.certainty) == ("ec2", (), None)
    asked_for = forced("cpu", [cpu], limits(), epochs=20)
    assert asked_for.where == "none"
    assert "has no training.device cuda" in asked_for.why
    assert "more time or money does not help" in asked_for.changes[0]


def test_neither_time_nor_money_is_advised_for_a_gpu_that_a_training_cannot_use():
    bounds = limits(0.5, cost=0.01)
    gpus = [option.ruled_out(["too small"]) for option in options(bounds, gpus=[FAST])]
    decision = forced("ec2", gpus, bounds)
    assert not re.search(r"deadline|max-cost-usd", " ".join(decision.changes))
    rest = options(bounds, gpus=[(gpu(zone="us-east-2b"), (0.4, 0.5, 0.8))])
    assert "us-east-2b could do it" in forced("ec2", [*gpus, *rest], bounds).changes[0]


intervals = st.lists(st.floats(1, 100_000), min_size=3, max_size=3).map(lambda x: Interval(*sorted(x)))
gpu_offers = st.builds(
    gpu,
    usd=st.floats(0.01, 10),
    kind=st.sampled_from(["g4dn.xlarge", "g5.xlarge"]),
    market=st.sampled_from(["spot", "on-demand"]),
    zone=st.sampled_from(["us-east-2a", "us-east-2b", None]),
)
all_limits = st.builds(
    Limits,
    deadline_s=st.floats(0, 200_000),
    max_cost_usd=st.floats(0, 20),
    value_of_time_usd_per_hour=st.floats(0, 50),
    ci_limit_s=st.none() | st.floats(0, 100_000),
)
places = st.tuples(
    st.none() | intervals.map(lambda time: (cpu_offer(4), time)),
    st.lists(st.tuples(gpu_offers, intervals), max_size=6),
).map(lambda found: ([found[0]] if found[0] else []) + found[1])


@given(places, all_limits)
def test_a_decision_is_always_one_of_the_feasible_or_says_what_to_do(found, bounds):
    judged = [judge(offer, time, bounds) for offer, time in found]
    decision = decide(judged, bounds, epochs=20)
    feasible = [option for option in judged if option.feasible]
    if decision.option is None:
        assert decision.where == "none"
        assert not feasible
        assert decision.changes or not judged
    else:
        assert decision.where == decision.option.where
        assert decision.option.cost_high <= bounds.max_cost_usd
        if decision.reversible:
            assert decision.option.where == "cpu"
            assert decision.option.interval.likely <= bounds.deadline_s
            assert any(o.where == "ec2" and o.interval.high <= bounds.deadline_s for o in feasible)
        else:
            assert decision.option in feasible
            assert decision.option.interval.high <= bounds.deadline_s
    assert decision.certainty is None or 0 <= decision.certainty <= 1
    assert decision.why.endswith(".")


@given(places, all_limits, st.floats(0, 10))
def test_more_money_never_makes_fewer_places_feasible(found, bounds, more):
    rich = replace(bounds, max_cost_usd=bounds.max_cost_usd + more)
    for offer, time in found:
        assert judge(offer, time, bounds).feasible <= judge(offer, time, rich).feasible


@given(intervals, st.lists(st.tuples(gpu_offers, intervals), max_size=6), all_limits)
def test_without_a_value_of_time_a_cpu_that_fits_is_never_passed_over(time, gpus, bounds):
    deadline = max(bounds.deadline_s, time.high)
    bounds = replace(bounds, value_of_time_usd_per_hour=0.0, deadline_s=deadline, ci_limit_s=None)
    judged = [judge(offer, seconds, bounds) for offer, seconds in [(cpu_offer(4), time), *gpus]]
    assert decide(judged, bounds).where == "cpu"


@given(places, all_limits, st.randoms(use_true_random=False))
def test_a_decision_does_not_depend_on_the_order_of_the_offers(found, bounds, chance):
    judged = [judge(offer, time, bounds) for offer, time in found]
    shuffled = list(judged)
    chance.shuffle(shuffled)
    once, again = decide(judged, bounds), decide(shuffled, bounds)
    assert once.where == again.where
    assert once.why == again.why


def test_limits_below_zero_are_refused():
    with pytest.raises(ValueError, match="not below zero"):
        Limits(-1, 1)
    with pytest.raises(ValueError, match="not below zero"):
        Limits(1, float("nan"))


def test_the_json_is_the_one_that_is_documented():
    bounds = Limits(CI_LIMIT_S, 1.0)
    judged = tuple(options(bounds, cpu=(2, 3, 4), gpus=[FAST]))
    report = PlanReport(
        "f" * 64, "k" * 64, None, {"train": 301, "val": 76}, 1234, judged, decide(judged, bounds)
    )
    document = json.loads(json.dumps(report.json()))
    assert list(document) == [
        "fingerprint",
        "training_key",
        "already_trained",
        "dataset",
        "options",
        "decision",
        "forecast",
    ]
    assert document["dataset"] == {"images": {"train": 301, "val": 76, "test": 0}, "bytes": 1234}
    assert document["options"][1] == {
        "where": "ec2",
        "instance_type": "g4dn.xlarge",
        "zone": "us-east-2a",
        "market": "spot",
        "seconds": {"low": 1440.0, "likely": 1800.0, "high": 2880.0},
        "cost_usd": {"likely": 0.1053, "high": 0.1684},
        "feasible": True,
        "reason": "needs 48 min at most, within the 6 h deadline",
    }
    assert document["options"][0]["cost_usd"] == {"likely": 0.0, "high": 0.0}
    assert document["decision"]["where"] == "cpu"
    assert set(document["decision"]) == {"where", "why", "certainty", "reversible"}
    assert 0.9 < document["decision"]["certainty"] <= 1
