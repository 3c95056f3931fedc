"""What a run does about its limits, and which offer it takes next."""

import io
from dataclasses import replace

import pytest
from next_step_case import (
    CPU,
    GONE,
    LATE,
    ME,
    NOW,
    ON_DEMAND,
    OTHER,
    RUNNING,
    SPOT_A,
    SPOT_B,
    SPOT_BIG,
    T0,
    Opens,
    attempt,
    beat,
    ended,
    run_of,
)
from run_case import gpu_offer

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.experience import Experience, PlaceSighting
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.limits import LimitWatch
from gpu_offload.orchestrator.run.next_step import next_step
from gpu_offload.orchestrator.run.observation import Observation, ObservedInstance
from gpu_offload.orchestrator.run.record import AttemptEnd, HostRecord, LaunchingRecord, StopRequest
from gpu_offload.orchestrator.run.step import (
    CloseAttempt,
    Finish,
    Launch,
    OpenAttempt,
    RecordHost,
    Terminate,
    Wait,
)

FASTER = Candidate(
    offer=replace(gpu_offer("us-east-1a", usd_per_hour=0.6), instance_type="g5.xlarge"),
    seconds=Interval(200, 300, 600),
)
HOST = HostRecord(
    instance_id="i-1", address=None, launched_at=T0, market="spot", zone="us-east-1a", region="us-east-1", volume_gib=60
)  # fmt: skip


def slow_run(on_overrun, *candidates, **changes):
    """A run whose epochs, the first two measured, take 2000 s where 60 were estimated; 8 are left."""
    run = run_of(*candidates, on_overrun=on_overrun, deadline_at=T0 + 7800, **changes)
    trains = attempt(beat=beat(T0 + 4200, epochs=2, pace=2000.0), expires=T0 + 7800)
    return run, Observation(T0 + 4200, ME, attempts=(trains,), instances=(RUNNING,), epochs_completed=2)


def test_a_run_that_will_not_make_it_says_so_early_and_stops_with_its_checkpoint():
    run, seen = slow_run("stop")
    step = next_step(run, seen)
    assert isinstance(step, Terminate)
    assert "the 8 epochs that are left take 3 h 39 more" in step.reason
    assert "limits.deadline ends it in 1 h." in step.reason
    assert "2 of 10 epochs are kept: raise the limit and train again" in step.reason
    seen = replace(seen, instances=(GONE,))
    step = next_step(run, seen)
    assert isinstance(step, CloseAttempt)
    assert step.reason == "overrun"
    seen = replace(seen, attempts=(attempt(beat=beat(T0), end=AttemptEnd(
        number=1, reason=step.reason, at=T0 + 4300, message=step.message)),))  # fmt: skip
    assert next_step(run, seen) == Finish("failed", step.message, cut=True)


def test_a_limit_that_ends_a_run_between_two_attempts_is_no_fault_of_its_training():
    """A sweep tells a training that its limits cut short from one that failed."""
    refused = (attempt(host=False, end=ended(1, "refused")),)
    late = next_step(run_of(), Observation(LATE, ME, attempts=refused))
    spent = next_step(run_of(), Observation(NOW, ME, attempts=refused, spent_usd=1.01))
    assert (late.status, late.cut) == (spent.status, spent.cut) == ("failed", True)
    assert "raise it and train again" in spent.message


def test_a_training_here_keeps_its_deadline_although_a_late_instance_was_shutting_down_when_it_began(store):
    """An instance that EC2 showed too late is terminated; nothing looks at it again while the training runs."""
    run = run_of(CPU, deadline_at=T0 + 600)
    late = ObservedInstance("i-9", 1, "shutting-down")
    attempts = (attempt(end=ended(1, "died")), attempt(2, CPU))
    seen = Observation(T0, ME, attempts=attempts, instances=(late,))
    watch = LimitWatch(run, Journal(store), Console(io.StringIO()), lambda: now[0])
    now = [T0 + 599]
    judge = watch.judge(seen, attempts[1])
    assert judge(beat(T0 + 599)) is None
    now[0] = T0 + 600
    assert judge(beat(T0 + 599)) == ("expired", "the deadline passed")


def test_a_run_that_will_not_make_it_goes_on_to_its_limit_where_that_was_asked_for():
    run, seen = slow_run("continue")
    step = next_step(run, seen)
    assert isinstance(step, Wait)
    assert step.reason.startswith("it may not make it: the 8 epochs that are left")


def test_a_run_that_will_not_make_it_escalates_to_an_offer_that_would():
    run, seen = slow_run("escalate", SPOT_A, FASTER, ON_DEMAND)
    step = next_step(run, seen)
    assert isinstance(step, Terminate)
    assert "g5.xlarge spot us-east-1a would make it" in step.reason
    step = next_step(run, replace(seen, instances=(GONE,)))
    assert isinstance(step, CloseAttempt)
    closed = replace(
        seen.attempts[0], end=AttemptEnd(number=1, reason=step.reason, at=T0 + 4300, message=step.message)
    )
    step = next_step(run, replace(seen, attempts=(closed,), instances=(GONE,)))
    assert isinstance(step, OpenAttempt)
    assert step.offer == FASTER.offer


def test_an_escalation_that_nothing_would_help_ends_like_a_stop():
    """On-demand of the same type is no faster: its epochs were measured."""
    run, seen = slow_run("escalate", SPOT_A, ON_DEMAND)
    step = next_step(run, seen)
    assert isinstance(step, Terminate)
    assert "raise the limit" in step.reason


def test_a_run_on_its_way_to_its_last_cent_names_the_money():
    run, seen = slow_run("stop")
    poor = replace(
        seen.attempts[0], record=seen.attempts[0].record.model_copy(update={"expires_at": T0 + 5000})
    )
    step = next_step(run, replace(seen, attempts=(poor,)))
    assert "max-cost-usd ($1.00) ends it in 13 min" in step.reason


def test_slow_epochs_that_still_fit_are_left_alone():
    run, seen = slow_run("stop")
    calm = replace(seen.attempts[0], heartbeat=beat(T0 + 4200, epochs=2, pace=300.0))
    assert next_step(run, replace(seen, attempts=(calm,))) == Wait(
        240.0, "the instance is training", follows=True
    )


def test_what_was_measured_on_a_type_decides_whether_it_is_tried_again():
    run = run_of(SPOT_A, SPOT_B, FASTER, deadline_at=T0 + 10_000)
    died = attempt(beat=beat(T0 + 4200, epochs=2, pace=2000.0), end=ended(1, "died", T0 + 4200))
    step = next_step(run, Observation(T0 + 4300, ME, attempts=(died,), instances=(GONE,), epochs_completed=2))
    assert isinstance(step, OpenAttempt)
    assert step.offer == FASTER.offer


def test_where_a_reclaim_could_not_be_made_good_on_demand_comes_first():
    run = run_of(SPOT_A, ON_DEMAND, deadline_at=T0 + 1500)
    assert next_step(run, Observation(T0 + 10, ME)) == Opens(1, ON_DEMAND.offer)
    assert next_step(run_of(SPOT_A, ON_DEMAND, deadline_at=T0 + 3000), Observation(T0 + 10, ME)) == Opens(
        1, SPOT_A.offer
    )


def test_the_cpu_is_the_last_rung_where_it_still_fits():
    refused = [attempt(n, c, host=False, end=ended(n, "refused", NOW, quota=True))
               for n, c in ((1, SPOT_A), (2, ON_DEMAND))]  # fmt: skip
    run = run_of(SPOT_A, SPOT_B, ON_DEMAND, CPU)
    assert next_step(run, Observation(NOW, ME, attempts=tuple(refused))) == Opens(3, CPU.offer)
    late = run_of(SPOT_A, SPOT_B, ON_DEMAND, CPU, deadline_at=NOW + 1000)
    assert isinstance(next_step(late, Observation(NOW, ME, attempts=tuple(refused))), Finish)


def test_an_instance_whose_driver_died_before_it_could_write_is_accounted_for():
    seen = Observation(
        NOW, ME, attempts=(attempt(driver=OTHER, host=False),),
        instances=(ObservedInstance("i-1", 1, "shutting-down", host=HOST, ended_at=NOW - 3),),
    )  # fmt: skip
    assert next_step(run_of(), seen) == RecordHost(1, HOST.model_copy(update={"ended_at": NOW - 3}))
    booked = replace(seen, attempts=(attempt(driver=OTHER),))
    step = next_step(run_of(), booked)
    assert isinstance(step, CloseAttempt)
    assert step.at == NOW - 3, "it costs nothing any more since then"


def test_a_launch_whose_answers_keep_getting_lost_is_adopted_and_not_repeated():
    seen = Observation(
        T0 + 400, ME, attempts=(attempt(host=False),), instances=(replace(RUNNING, host=HOST),)
    )
    assert next_step(run_of(), seen) == RecordHost(1, HOST)


def test_a_run_is_not_over_while_an_instance_may_still_appear():
    seen = Observation(
        T0 + 20, ME, attempts=(attempt(driver=OTHER, host=False),), stop=StopRequest(at=T0, reason="by hand")
    )
    assert isinstance(next_step(run_of(), seen), Wait)
    assert isinstance(next_step(run_of(), replace(seen, now=T0 + 299)), Wait)
    assert isinstance(next_step(run_of(), replace(seen, now=T0 + 300)), CloseAttempt)


def test_what_was_never_launched_is_not_waited_for():
    """Its driver died while it staged: the launch is journalled before it is made."""
    staging = replace(attempt(driver=OTHER, host=False), launching=None)
    seen = Observation(T0 + 60, ME, attempts=(staging,), stop=StopRequest(at=T0, reason="by hand"))
    assert isinstance(next_step(run_of(), seen), CloseAttempt)


def test_a_launch_counts_from_its_call_however_long_the_staging_before_took():
    late = replace(
        attempt(driver=OTHER, host=False), launching=LaunchingRecord(first_at=T0 + 900, at=T0 + 960)
    )
    seen = Observation(T0 + 1100, ME, attempts=(late,), stop=StopRequest(at=T0, reason="by hand"))
    assert isinstance(next_step(run_of(), seen), Wait)
    mine = replace(late, record=late.record.model_copy(update={"driver": ME}))
    assert next_step(run_of(), Observation(T0 + 1100, ME, attempts=(mine,))) == Launch(1)


def test_an_instance_that_went_long_ago_does_not_use_up_the_money():
    """No driver looked for five hours: the instance cost money only until it was reclaimed."""
    gone = ObservedInstance("i-1", 1, "terminated", reclaimed=True, ended_at=T0 + 600)
    seen = Observation(
        T0 + 17_000, ME, attempts=(attempt(beat=beat(T0 + 590)),), instances=(gone,), spent_usd=1.2
    )
    step = next_step(run_of(), seen)
    assert isinstance(step, CloseAttempt)
    assert (step.reason, step.at) == ("reclaimed", T0 + 600)


def closed_spot(at, **changes):
    """A run with a day of time whose spot offers were all refused at a moment."""
    run = run_of(SPOT_A, SPOT_B, ON_DEMAND, deadline_at=T0 + 86_400, **changes)
    refused = [attempt(n, c, host=False, end=ended(n, "refused", at)) for n, c in ((1, SPOT_A), (2, SPOT_B))]
    return run, Observation(at, ME, attempts=tuple(refused))


def test_spot_is_waited_for_while_there_is_slack_and_on_demand_comes_in_time():
    run, seen = closed_spot(NOW)
    step = next_step(run, seen)
    assert isinstance(step, Wait)
    assert step.reason.startswith("no spot capacity; on-demand can wait 23 h")
    late = T0 + 86_400 - 3000
    step = next_step(run, replace(closed_spot(late)[1], now=late))
    assert isinstance(step, OpenAttempt)
    assert step.offer == ON_DEMAND.offer


def test_who_gives_an_hour_a_price_does_not_wait_for_what_saves_less():
    run, seen = closed_spot(NOW, value_of_time_usd_per_hour=1.0)
    step = next_step(run, seen)
    assert isinstance(step, OpenAttempt)
    assert step.offer == ON_DEMAND.offer


@pytest.mark.parametrize(
    ("hours", "batch", "moves"),
    [(1.1, 0, True), (0.5, 0, False), (1.1, 50, False)],
    ids=["an-hour-later", "too-soon", "in-the-middle-of-an-epoch"],
)
def test_on_demand_is_left_for_spot_after_an_hour_at_the_end_of_an_epoch(hours, batch, moves):
    dear = Candidate(offer=ON_DEMAND.offer, seconds=Interval(18_000, 20_000, 25_000))
    cheap = Candidate(offer=SPOT_A.offer, seconds=dear.seconds)
    run = run_of(cheap, dear, deadline_at=T0 + 86_400, max_cost_usd=9.0)
    now = T0 + hours * 3600
    word = beat(now - 5, epochs=1, pace=2000.0).model_copy(update={"batch": batch, "batches": 100})
    trains = attempt(2, dear, beat=word, expires=T0 + 86_400)
    refused = attempt(1, cheap, host=False, end=ended(1, "refused", T0))
    running = ObservedInstance("i-2", 2, "running")
    seen = Observation(now, ME, attempts=(refused, trains), instances=(running,), epochs_completed=1)
    step = next_step(run, seen)
    assert isinstance(step, Terminate) == moves, step
    if moves:
        assert step.reason.startswith("spot may be there again, and would save up to $")
        step = next_step(run, replace(seen, instances=(ObservedInstance("i-2", 2, "shutting-down"),)))
        assert isinstance(step, CloseAttempt)
        assert step.reason == "moved"


@pytest.mark.parametrize(
    ("price", "hours", "moves"),
    [(0.45, 24, True), (0.21, 24, False), (0.45, 0.5, False)],
    ids=["much-dearer", "hardly-dearer", "refused-lately"],
)
def test_spot_is_left_for_cheaper_spot_that_was_refused_long_ago(price, hours, moves):
    takes = Interval(36_000, 40_000, 50_000)
    cheap = Candidate(offer=SPOT_A.offer, seconds=takes)
    dear = Candidate(offer=replace(SPOT_B.offer, usd_per_hour=price), seconds=takes)
    steady = ON_DEMAND.model_copy(update={"seconds": takes})
    run = run_of(cheap, dear, steady, deadline_at=T0 + 172_800, max_cost_usd=20.0)
    run = run.model_copy(update={"spec": run.spec.model_copy(update={"epochs": 200})})
    now = T0 + hours * 3600
    word = beat(now - 5, epochs=1, pace=200.0).model_copy(update={"batch": 0, "batches": 100})
    trains = attempt(2, dear, beat=word, expires=T0 + 172_800)
    refused = attempt(1, cheap, host=False, end=ended(1, "refused", T0))
    running = ObservedInstance("i-2", 2, "running")
    step = next_step(
        run, Observation(now, ME, attempts=(refused, trains), instances=(running,), epochs_completed=1)
    )
    assert isinstance(step, Terminate) == moves, step


def test_what_former_runs_saw_chooses_the_zone():
    """The first zone of the plan took instances back an hour ago, again and again."""
    seen = [
        PlaceSighting(place="g4dn.xlarge us-east-1a", at=T0 - 30_000 + 1200 * i, is_up=i % 2 == 0)
        for i in range(25)
    ]
    run = run_of(SPOT_A, SPOT_B, ON_DEMAND, experience=Experience(capacity=tuple(seen)))
    assert next_step(run, Observation(NOW, ME)).offer == SPOT_B.offer
    assert next_step(run_of(SPOT_A, SPOT_B, ON_DEMAND), Observation(NOW, ME)).offer == SPOT_A.offer


@pytest.mark.parametrize("candidate", [SPOT_A, ON_DEMAND, SPOT_BIG])
@pytest.mark.parametrize("spent", [0.0, 0.5])
def test_the_end_of_an_instance_is_affordable_with_all_that_hangs_on_it_at_the_highest_price(
    candidate, spent
):
    run = run_of(candidate, max_cost_usd=1.0, volume_gib=100, dataset_bytes=10**9, store_region="eu-west-1")
    step = next_step(run, Observation(NOW, ME, spent_usd=spent))
    hours = (step.expires_at - NOW) / 3600
    hourly = (step.max_price_usd or candidate.offer.usd_per_hour) + 0.005 + 100 * 0.08 / 720
    assert hours * hourly + 0.02 <= 1.0 - spent + 1e-6
    assert step.expires_at >= NOW + 1200, "the training has its time even if it goes badly"


def test_a_spot_price_may_rise_as_far_as_the_money_allows_and_never_above_on_demand():
    def highest(money):
        return next_step(run_of(SPOT_A, max_cost_usd=money), Observation(NOW, ME)).max_price_usd

    assert highest(100.0) == 0.526
    assert 0.22 < highest(0.1) < 0.3
    assert next_step(run_of(ON_DEMAND), Observation(NOW, ME)).max_price_usd is None


def test_volume_address_and_transfer_count_before_anything_is_rented():
    money = 0.2 / 3 + 0.001  # the spot instance alone for 20 minutes
    assert isinstance(next_step(run_of(SPOT_A, max_cost_usd=money), Observation(NOW, ME)), Finish)
