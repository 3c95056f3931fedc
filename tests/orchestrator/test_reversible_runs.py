"""A toss-up begins on the CPU, and moves to an instance once its own steps show that it has to."""

from dataclasses import replace

import pytest
import run_case
from run_case import candidate_of, gpu_offer, spec_of

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import cpu_offer
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.next_step import next_step
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt
from gpu_offload.orchestrator.run.record import AttemptEnd, AttemptRecord
from gpu_offload.orchestrator.run.step import CloseAttempt, Finish, OpenAttempt, Train
from gpu_offload.remote_job.pace.pace import ModePace, Pace
from gpu_offload.remote_job.result import Heartbeat

ME, T0, HOUR = "here:1:aa", 1_000_000.0, 3600.0
CPU = Candidate(offer=cpu_offer(2), seconds=Interval(4 * HOUR, 5 * HOUR, 8 * HOUR))
GPU = candidate_of(gpu_offer(), Interval(1000, 1500, 2400))


def run_of(**changes):
    values = {
        "deadline_at": T0 + 6 * HOUR, "forced": False, "estimate": CPU.seconds, "on_overrun": "escalate",
        "reversible": True, "images": {"train": 1600, "val": 100},
        "spec": spec_of(epochs=10, image_size=320, batch=16, hyperparameters={"patience": 0}, output="/out"),
    }  # fmt: skip
    return run_case.run_of(CPU, GPU, now=T0, **(values | changes))


def seen(at, *, batch_seconds=None, epochs=0, batch=4, expires=6 * HOUR, share=1.0) -> Observation:
    """The CPU trains since T0; its steps take so long."""
    beat = None
    if batch_seconds is not None:
        pace = Pace(
            batches=100,
            plain=ModePace(batch=batch_seconds, spread=0.02, steps=3),
            validation=0.01,
            share=share,
        )
        beat = Heartbeat(
            run="abc-1", attempt=1, time=at, pid=1, host="h", boot_id="b", epochs_completed=epochs, epochs=10,
            batch=batch, batches=100, state="training", pace=pace,
        )  # fmt: skip
    record = AttemptRecord(number=1, offer=CPU.offer, created_at=T0, expires_at=T0 + expires, driver=ME)
    return Observation(at, ME, attempts=(ObservedAttempt(record, heartbeat=beat),), epochs_completed=epochs)


def test_it_begins_on_the_cpu_although_that_may_not_make_it():
    step = next_step(run_of(), Observation(T0, ME))
    assert isinstance(step, OpenAttempt)
    assert step.offer == CPU.offer
    step = next_step(run_of(reversible=False), Observation(T0, ME))
    assert step.offer == GPU.offer


def test_it_stays_where_its_steps_show_that_it_makes_it():
    assert next_step(run_of(), seen(T0 + 120)) == Train(1)
    assert next_step(run_of(), seen(T0 + 120, batch_seconds=15)) == Train(1)


def test_it_moves_after_the_first_steps_that_show_that_it_does_not():
    step = next_step(run_of(), seen(T0 + 120, batch_seconds=40))
    assert isinstance(step, CloseAttempt)
    assert step.reason == "overrun"
    assert "moves to g4dn.xlarge" in step.message


def test_after_the_move_an_instance_carries_on_and_not_the_cpu():
    observed = seen(T0 + 120, batch_seconds=40)
    end = AttemptEnd(number=1, reason="overrun", at=T0 + 130, message="it would not make it")
    closed = replace(observed, attempts=(replace(observed.attempts[0], end=end),), now=T0 + 130)
    step = next_step(run_of(), closed)
    assert isinstance(step, OpenAttempt)
    assert step.offer == GPU.offer


def test_what_left_a_cpu_that_would_make_it_comes_back_only_where_no_instance_can_be_had():
    """It moved because its hours are worth the price, so that the CPU still fits the limits."""
    observed = seen(T0 + 120, batch_seconds=15)
    end = AttemptEnd(number=1, reason="overrun", at=T0 + 130, message="an instance saves 3 h")
    closed = replace(observed, attempts=(replace(observed.attempts[0], end=end),), now=T0 + 130)
    run = run_of(value_of_time_usd_per_hour=1.0)
    assert next_step(run, closed).offer == GPU.offer
    record = AttemptRecord(number=2, offer=GPU.offer, created_at=T0, expires_at=T0 + HOUR, driver=ME)
    refused = AttemptEnd(number=2, reason="refused", at=T0 + 140, message="no capacity", for_good="offer")
    without = replace(closed, attempts=(*closed.attempts, ObservedAttempt(record, end=refused)), now=T0 + 150)
    assert next_step(run, without).offer == CPU.offer


def test_what_is_doubtful_is_put_off_until_later_an_instance_would_not_make_it_either():
    """It more likely than not makes it, and nine in ten would not: beside neighbours that may go or stay."""
    doubtful = {"batch_seconds": 19.5, "share": 0.7}
    assert next_step(run_of(), seen(T0 + 120, **doubtful)) == Train(1)
    late = T0 + 6 * HOUR - 0.8 * GPU.seconds.high - 100
    step = next_step(run_of(), seen(late, batch_seconds=1.5, epochs=2, share=0.4))
    assert isinstance(step, CloseAttempt)
    assert "later an instance would not" in step.message


def test_it_moves_where_the_hours_saved_are_surely_worth_the_price():
    fast = {"batch_seconds": 15}
    assert next_step(run_of(value_of_time_usd_per_hour=0.01), seen(T0 + 120, **fast)) == Train(1)
    step = next_step(run_of(value_of_time_usd_per_hour=1.0), seen(T0 + 120, **fast))
    assert isinstance(step, CloseAttempt)
    assert "saves" in step.message


def test_a_job_that_ends_before_the_deadline_is_a_limit_too():
    run = run_of(cpu_limit_s=2 * HOUR, deadline_at=T0 + 24 * HOUR)
    step = next_step(run, Observation(T0, ME))
    assert step.expires_at == pytest.approx(T0 + 2 * HOUR)
    step = next_step(run, seen(T0 + 120, batch_seconds=15, expires=2 * HOUR))
    assert isinstance(step, CloseAttempt)


def test_what_escalates_names_an_instance_also_where_only_its_job_ends_too_early():
    """The CPU of another job would keep the deadline, this one's does not."""
    run = run_of(reversible=False, cpu_limit_s=2 * HOUR, deadline_at=T0 + 24 * HOUR)
    late = seen(T0 + 120, batch_seconds=15, expires=2 * HOUR)
    step = next_step(run, late)
    assert isinstance(step, CloseAttempt)
    assert step.reason == "overrun"
    assert "g4dn.xlarge" in step.message
    end = AttemptEnd(number=1, reason="overrun", at=T0 + 130, message=step.message)
    closed = replace(late, attempts=(replace(late.attempts[0], end=end),), now=T0 + 130)
    assert next_step(run, closed).offer == GPU.offer
    here_only = run.model_copy(update={"candidates": (CPU,)})
    assert "raise the limit" in next_step(here_only, late).message
    assert isinstance(next_step(here_only, closed), Finish)


def test_what_has_measured_nothing_when_its_job_ends_moves_too():
    """GitHub would end the job, and the next one would begin on its CPU again."""
    run = run_of(cpu_limit_s=2 * HOUR, deadline_at=T0 + 24 * HOUR)
    assert next_step(run, seen(T0 + HOUR, expires=2 * HOUR)) == Train(1)
    step = next_step(run, seen(T0 + 2 * HOUR, expires=2 * HOUR))
    assert isinstance(step, CloseAttempt)
    assert step.reason == "overrun"
    assert "moves to g4dn.xlarge" in step.message
    step = next_step(run, replace(seen(T0 + 20 * HOUR, expires=2 * HOUR), me="there:2:bb"))
    assert step.reason == "orphaned", "its driver was killed; the next job begins on its own CPU"


def test_without_an_instance_that_makes_it_the_cpu_goes_on():
    run = run_of(candidates=(CPU,))
    assert not isinstance(next_step(run, seen(T0 + 120, batch_seconds=20)), CloseAttempt | Finish)
