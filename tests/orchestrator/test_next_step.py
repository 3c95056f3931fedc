"""What a run does next, case by case and in general."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from next_step_case import (
    COLLECTED,
    CPU,
    ENDING,
    GONE,
    LATE,
    ME,
    NOW,
    ON_DEMAND,
    OTHER,
    PENDING,
    RESULT,
    RUNNING,
    SPOT_A,
    SPOT_B,
    SPOT_BIG,
    SPOT_WEST,
    T0,
    Opens,
    attempt,
    beat,
    ended,
    run_of,
)

from gpu_offload.orchestrator.run.next_step import next_step
from gpu_offload.orchestrator.run.observation import Observation, ObservedInstance
from gpu_offload.orchestrator.run.record import Outcome, StopRequest
from gpu_offload.orchestrator.run.step import (
    CleanUp,
    CloseAttempt,
    Collect,
    Done,
    Finish,
    Launch,
    OpenAttempt,
    Publish,
    Terminate,
    Train,
    Wait,
)

CASES = {
    "a new run opens its first attempt on the best offer": (
        run_of(), Observation(NOW, ME), Opens(1, SPOT_A.offer)),
    "a run on the CPU opens an attempt here": (
        run_of(CPU), Observation(NOW, ME), Opens(1, CPU.offer)),
    "an open attempt without an instance is launched": (
        run_of(), Observation(NOW, ME, attempts=(attempt(host=False),)), Launch(1)),
    "an instance whose launch was not confirmed is asked for again": (
        run_of(), Observation(NOW, ME, attempts=(attempt(host=False),), instances=(RUNNING,)), Launch(1)),
    "a training is looked at when its time is up": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(NOW - 20), expires=NOW + 30),), instances=(RUNNING,)),
        Wait(30.0, "the instance is training", follows=True)),
    "an instance that never became ready is replaced once": (
        run_of(), Observation(NOW, ME, attempts=(attempt(end=ended(1, "died")),)),
        Opens(2, SPOT_A.offer)),
    "two instances in a row that never became ready end the run": (
        run_of(), Observation(NOW, ME, attempts=tuple(attempt(n, end=ended(n, "died")) for n in (1, 2))),
        Finish("failed", "2 attempts ended alike without progress: died")),
    "a quota that is used up in one region leaves the other": (
        run_of(SPOT_A, SPOT_WEST),
        Observation(NOW, ME, attempts=(attempt(end=ended(1, "refused", NOW, quota=True)),)),
        Opens(2, SPOT_WEST.offer)),
    "an instance that is not visible yet is waited for": (
        run_of(), Observation(NOW, ME, attempts=(attempt(),)), Wait(10.0, "the instance is not visible yet")),
    "a pending instance is waited for": (
        run_of(), Observation(NOW, ME, attempts=(attempt(),), instances=(PENDING,)),
        Wait(1.0, "the instance is starting")),
    "a running instance without a heartbeat gets its training": (
        run_of(), Observation(NOW, ME, attempts=(attempt(),), instances=(RUNNING,)), Train(1)),
    "a training instance is left alone": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(NOW - 20)),), instances=(RUNNING,)),
        Wait(240.0, "the instance is training", follows=True)),
    "another driver carries on with an instance that trains": (
        run_of(), Observation(NOW, ME, attempts=(attempt(driver=OTHER, beat=beat(NOW - 20)),), instances=(RUNNING,)),
        Wait(240.0, "the instance is training", follows=True)),
    "an instance whose driver died with its keys is replaced": (
        run_of(), Observation(NOW, ME, attempts=(attempt(driver=OTHER),), instances=(RUNNING,)),
        Terminate(("i-1",), "its driver died with the SSH keys before the training began")),
    "and its attempt is closed once it is going": (
        run_of(), Observation(NOW, ME, attempts=(attempt(driver=OTHER),), instances=(ENDING,)),
        CloseAttempt(1, "orphaned", "its driver died with the SSH keys before the training began")),
    "a run that another driver drives is left to it": (
        run_of(), Observation(NOW, ME, driver=OTHER), Wait(10.0, f"{OTHER} drives this run")),
    "a silent instance is given up": (
        run_of(), Observation(T0 + 5000, ME, attempts=(attempt(beat=beat(T0 + 4000)),), instances=(RUNNING,)),
        Terminate(("i-1",), "silent for 17 min")),
    "a store away for five minutes costs no training": (
        run_of(), Observation(T0 + 5000, ME, attempts=(attempt(beat=beat(T0 + 4690)),), instances=(RUNNING,)),
        Wait(240.0, "the instance is training", follows=True)),
    "an instance that never spoke is given up": (
        run_of(), Observation(T0 + 1300, ME, attempts=(attempt(),), instances=(RUNNING,)),
        Terminate(("i-1",), "no sign of life 22 min after its launch")),
    "an instance that EC2 omits while its training speaks has not vanished": (
        run_of(), Observation(T0 + 5000, ME, attempts=(attempt(beat=beat(T0 + 4990)),)),
        Wait(15.0, "the instance is not visible yet")),
    "a run whose instance EC2 omits does not end before it is seen": (
        run_of(), Observation(T0 + 5000, ME, attempts=(attempt(beat=beat(T0 + 4990)),), stop=StopRequest(at=T0 + 4995, reason="enough")),
        Wait(15.0, "an instance may have been launched that EC2 does not show yet")),
    "an instance that is shown no more and is silent has vanished": (
        run_of(), Observation(T0 + 5000, ME, attempts=(attempt(beat=beat(T0 + 4600)),)),
        CloseAttempt(1, "died", "the instance has vanished", T0 + 5000)),
    "a launch that was never confirmed is not repeated forever": (
        run_of(), Observation(T0 + 400, ME, attempts=(attempt(host=False),)),
        CloseAttempt(1, "died", "its launch was never confirmed")),
    "a reclaimed attempt is closed as such": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(NOW - 20)),),
                       instances=(ObservedInstance("i-1", 1, "terminated", reclaimed=True),)),
        CloseAttempt(1, "reclaimed", "EC2 took the instance back", None, by_cloud=True)),
    "an instance that a user of the account terminates was not reclaimed": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(NOW - 5, "interrupted", message="received SIGTERM")),),
                       instances=(ObservedInstance("i-1", 1, "terminated", shut_down=True, ended_at=NOW - 6),)),
        CloseAttempt(1, "died", "the instance was shut down, but not by AWS", NOW - 6)),
    "an interrupted training on demand was not reclaimed": (
        run_of(), Observation(NOW, ME, instances=(GONE,), attempts=(
            attempt(candidate=ON_DEMAND, beat=beat(NOW - 5, "interrupted", message="received SIGTERM")),)),
        CloseAttempt(1, "died", "the instance was shut down, but not by AWS")),
    "a reclaim that this run answered by terminating the instance stays a reclaim": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(NOW - 5, "interrupted", message="spot notice")),),
                       instances=(ObservedInstance("i-1", 1, "terminated", shut_down=True, ended_at=NOW - 2),)),
        CloseAttempt(1, "reclaimed", "spot notice", NOW - 2)),
    "after its first hour a noticed reclaim ends the attempt before AWS does": (
        run_of(), Observation(NOW, ME, instances=(RUNNING,), attempts=(
            attempt(created=T0 - 4000, beat=beat(NOW - 5, "interrupted", message="spot notice")),)),
        Terminate(("i-1",), "spot notice")),
    "no new attempt before the old instance is gone": (
        run_of(), Observation(NOW, ME, attempts=(attempt(end=ended(1, "reclaimed")),), instances=(ENDING,)),
        Wait(3.0, "an instance is shutting down")),
    "after a reclaim the next attempt goes on, elsewhere": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(T0, epochs=3), end=ended(1, "reclaimed")),),
                       epochs_completed=3, instances=(GONE,)),
        Opens(2, SPOT_B.offer)),
    "a refused zone is passed over": (
        run_of(), Observation(NOW, ME, attempts=(attempt(host=False, end=ended(1, "refused", NOW)),)),
        Opens(2, SPOT_B.offer)),
    "a market whose quota is 0 is passed over": (
        run_of(), Observation(NOW, ME, attempts=(attempt(host=False, end=ended(1, "refused", NOW, quota=True, limit_vcpus=0)),)),
        Opens(2, ON_DEMAND.offer)),
    "a quota that is too small for every offer ends the run": (
        run_of(SPOT_A), Observation(NOW, ME, attempts=(
            attempt(host=False, end=ended(1, "refused", NOW, quota=True, limit_vcpus=0)),)),
        Finish("failed", "no offer is left; the last refusal: refused")),
    "a quota that others use up is waited for": (
        run_of(SPOT_A), Observation(NOW, ME, attempts=(
            attempt(host=False, end=ended(1, "refused", NOW, quota=True, limit_vcpus=8)),)),
        Wait(60.0, "every offer was refused; asking again in 20 min: refused")),
    "a quota of unknown size is asked for three times": (
        run_of(SPOT_A), Observation(NOW, ME, attempts=tuple(
            attempt(n, host=False, end=ended(n, "refused", T0 - 9000, quota=True)) for n in (1, 2, 3))),
        Finish("failed", "no offer is left; the last refusal: refused")),
    "a quota that has passed is asked for again": (
        run_of(SPOT_A), Observation(NOW, ME, attempts=(
            attempt(host=False, end=ended(1, "refused", T0 - 1200, quota=True)),)),
        Opens(2, SPOT_A.offer)),
    "a smaller type is tried where the quota is used up": (
        run_of(SPOT_BIG, SPOT_A), Observation(NOW, ME, attempts=(
            attempt(1, SPOT_BIG, host=False, end=ended(1, "refused", NOW, quota=True)),)),
        Opens(2, SPOT_A.offer)),
    "what can never be had ends the run at once, with its cause": (
        run_of(), Observation(NOW, ME, attempts=(
            attempt(host=False, end=ended(1, "refused", NOW, for_good="run")),)),
        Finish("failed", "refused")),
    "an image that one region lacks leaves the others": (
        run_of(SPOT_A, SPOT_B, SPOT_WEST), Observation(NOW, ME, attempts=(
            attempt(host=False, end=ended(1, "refused", NOW, for_good="region")),)),
        Opens(2, SPOT_WEST.offer)),
    "a role that may not launch says nothing about the offer": (
        run_of(), Observation(NOW, ME, attempts=tuple(
            attempt(n, host=False, end=ended(n, "refused", NOW, denied=True)) for n in range(1, 9))),
        Opens(9, SPOT_A.offer)),
    "where every zone is full it asks again later": (
        run_of(SPOT_A), Observation(NOW, ME, attempts=(attempt(host=False, end=ended(1, "refused", NOW)),)),
        Wait(60.0, "every offer was refused; asking again in 20 min: refused")),
    "in its first hour AWS is left to take a spot instance back": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(NOW - 5, "interrupted", message="spot notice")),),
                       instances=(RUNNING,)),
        Wait(3.0, "AWS is taking the instance back; in its first hour that costs nothing")),
    "an instance that AWS announced to take and did not is terminated": (
        run_of(), Observation(NOW + 300, ME, instances=(RUNNING,), attempts=(
            attempt(beat=beat(NOW - 5, "interrupted", message="spot notice")),)),
        Terminate(("i-1",), "spot notice")),
    "a training that died twice alike without an epoch in between is not tried again": (
        run_of(), Observation(NOW, ME, epochs_completed=2, attempts=tuple(
            attempt(n, beat=beat(T0, epochs=2), end=ended(n, "died")) for n in (1, 2))),
        Finish("failed", "2 attempts ended alike without progress: died")),
    "after three reclaims within an hour in one place, spot is left alone": (
        run_of(),
        Observation(NOW, ME, attempts=tuple(
            attempt(n, beat=beat(T0, epochs=n), end=ended(n, "reclaimed")) for n in (1, 2, 3)), epochs_completed=3),
        Wait(60.0, "spot was reclaimed too often; on-demand can wait 5 h 11 for it")),
    "and on-demand trains where there is no time to wait": (
        run_of(deadline_at=NOW + 1900),
        Observation(NOW, ME, attempts=tuple(
            attempt(n, beat=beat(T0, epochs=n), end=ended(n, "reclaimed")) for n in (1, 2, 3)), epochs_completed=3),
        Opens(4, ON_DEMAND.offer)),
    "three reclaims in different places change nothing": (
        run_of(),
        Observation(NOW, ME, attempts=(
            attempt(1, beat=beat(T0, epochs=1), end=ended(1, "reclaimed")),
            attempt(2, SPOT_B, beat=beat(T0, epochs=2), end=ended(2, "reclaimed")),
            attempt(3, beat=beat(T0, epochs=3), end=ended(3, "reclaimed"))), epochs_completed=3),
        Opens(4, SPOT_A.offer)),
    "an attempt that would exceed the money is not opened": (
        run_of(max_cost_usd=0.05), Observation(NOW, ME), Finish("failed", "no offer is left that fits the deadline and max-cost-usd", cut=True)),
    "used-up money ends what runs": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(NOW)),), instances=(RUNNING,), spent_usd=1.01),
        Terminate(("i-1",), "max-cost-usd is used up ($1.01 of $1.00)")),
    "the deadline ends what runs": (
        run_of(), Observation(LATE, ME, attempts=(attempt(beat=beat(LATE)),), instances=(RUNNING,)),
        Terminate(("i-1",), "the deadline passed")),
    "an attempt past its own end is terminated": (
        run_of(), Observation(NOW, ME, attempts=(attempt(expires=NOW - 1, beat=beat(NOW)),), instances=(RUNNING,)),
        Terminate(("i-1",), "its time or money was used up")),
    "a stop terminates first": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(NOW)),), instances=(RUNNING,),
                       stop=StopRequest(at=NOW, reason="by hand")),
        Terminate(("i-1",), "by hand")),
    "then closes the attempt": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(NOW)),), instances=(GONE,),
                       stop=StopRequest(at=NOW, reason="by hand")),
        CloseAttempt(1, "stopped", "by hand")),
    "then the run": (
        run_of(), Observation(NOW, ME, attempts=(attempt(end=ended(1, "stopped")),), instances=(GONE,),
                       stop=StopRequest(at=NOW, reason="by hand")),
        Finish("stopped", "by hand")),
    "a training that says no is not tried again": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(NOW, "failed", message="no GPU memory")),),
                       instances=(GONE,)),
        CloseAttempt(1, "failed", "no GPU memory")),
    "a staged result is verified first": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(NOW, "finished", 10)),), instances=(RUNNING,),
                       result=RESULT), Collect()),
    "then its instance goes, before the publish": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(NOW, "finished", 10)),), instances=(RUNNING,),
                       result=RESULT, collected=COLLECTED),
        Terminate(("i-1",), "the result is in the store")),
    "then its attempt is closed, so that its cost is known": (
        run_of(), Observation(NOW, ME, attempts=(attempt(beat=beat(NOW, "finished", 10)),), instances=(ENDING,),
                       result=RESULT, collected=COLLECTED),
        CloseAttempt(1, "finished", "the result is in the store")),
    "then it is published": (
        run_of(), Observation(NOW, ME, attempts=(attempt(end=ended(1, "finished")),), instances=(ENDING,),
                       result=RESULT, collected=COLLECTED), Publish()),
    "a result is brought home even past the deadline": (
        run_of(CPU), Observation(LATE, ME, attempts=(attempt(candidate=CPU),), result=RESULT, collected=COLLECTED), Publish()),
    "a published run waits for its instance to be gone": (
        run_of(), Observation(NOW, ME, attempts=(attempt(),), instances=(ENDING,), published=True),
        Wait(3.0, "an instance is shutting down")),
    "then removes its security group": (
        run_of(), Observation(NOW, ME, attempts=(attempt(),), instances=(GONE,), published=True, leftovers=("sg-1",)),
        CleanUp(("sg-1",))),
    "then closes the attempt as finished": (
        run_of(), Observation(NOW, ME, attempts=(attempt(),), instances=(GONE,), published=True),
        CloseAttempt(1, "finished", "the model is published")),
    "and is over": (
        run_of(), Observation(NOW, ME, attempts=(attempt(end=ended(1, "finished")),), published=True),
        Finish("published", "")),
    "an attempt that a stalled driver opened after the end is closed": (
        run_of(), Observation(NOW, ME, outcome=Outcome(status="stopped", at=T0), attempts=(attempt(host=False, created=T0 - 1000),)),
        CloseAttempt(1, "stopped", "the run is over")),
    "an instance of a run that is over is terminated": (
        run_of(), Observation(NOW, ME, outcome=Outcome(status="published", at=T0), instances=(RUNNING,)),
        Terminate(("i-1",), "the run is over")),
    "an instance of a closed attempt is a stray": (
        run_of(), Observation(NOW, ME, attempts=(attempt(end=ended(1, "died")), attempt(2, SPOT_B)),
                       instances=(RUNNING, ObservedInstance("i-2", 2, "running"))),
        Terminate(("i-1",), "it belongs to no open attempt")),
    "a training whose process is gone is carried on by a new attempt": (
        run_of(CPU), Observation(NOW, ME, attempts=(attempt(candidate=CPU, driver=OTHER),)),
        CloseAttempt(1, "orphaned", "the process that trained is gone", T0)),
    "an attempt of mine trains here": (
        run_of(CPU), Observation(NOW, ME, attempts=(attempt(candidate=CPU),)), Train(1)),
    "attempts that complete no epoch come to an end": (
        run_of(CPU, max_attempts=2),
        Observation(NOW, ME, attempts=tuple(attempt(n, CPU, end=ended(n, "died")) for n in (1, 2))),
        Finish("failed", "2 attempts in a row completed no epoch")),
    "a training here that was stopped by a signal any number of times in a long epoch goes on": (
        run_of(CPU, max_attempts=2),
        Observation(NOW, ME, attempts=tuple(attempt(n, CPU, end=ended(n, "stopped")) for n in (1, 2, 3))),
        Opens(4, CPU.offer)),
    "attempts that complete epochs do not": (
        run_of(CPU, max_attempts=2),
        Observation(NOW, ME, epochs_completed=2, attempts=tuple(
            attempt(n, CPU, beat=beat(T0, epochs=n), end=ended(n, "died")) for n in (1, 2))),
        Opens(3, CPU.offer)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_situation_has_its_step(case):
    run, seen, step = CASES[case]
    assert next_step(run, seen) == step


instances = st.builds(
    ObservedInstance,
    st.sampled_from(["i-1", "i-2", "i-3"]),
    st.sampled_from([None, 1, 2]),
    st.sampled_from(["pending", "running", "stopping", "stopped", "shutting-down", "terminated"]),
    st.booleans(),
)
beats = st.none() | st.builds(
    beat,
    st.floats(T0, LATE),
    st.sampled_from(["starting", "training", "finishing", "interrupted", "finished", "failed"]),
    st.integers(0, 10),
)
reasons = st.sampled_from(
    ["finished", "refused", "reclaimed", "died", "failed", "stopped", "expired", "orphaned"]
)


@st.composite
def seens(draw):
    count = draw(st.integers(0, 4))
    attempts = []
    for number in range(1, count + 1):
        end = ended(number, draw(reasons), draw(st.floats(T0, LATE)), quota=draw(st.booleans()))
        attempts.append(
            attempt(
                number,
                draw(st.sampled_from([CPU, SPOT_A, SPOT_B, ON_DEMAND])),
                driver=draw(st.sampled_from([ME, OTHER])),
                host=draw(st.booleans()),
                beat=draw(beats),
                end=end if number < count or draw(st.booleans()) else None,
            )
        )
    return Observation(
        now=draw(st.floats(T0, LATE)),
        me=ME,
        driver=draw(st.none() | st.just(OTHER)),
        outcome=draw(st.none() | st.just(Outcome(status="failed", at=T0))),
        published=draw(st.booleans()),
        result=draw(st.none() | st.just(RESULT)),
        collected=draw(st.none() | st.just(COLLECTED)),
        attempts=tuple(attempts),
        instances=tuple(draw(st.lists(instances, max_size=3, unique_by=lambda i: i.id))),
        leftovers=draw(st.sampled_from([(), ("sg-1",)])),
        epochs_completed=draw(st.integers(0, 10)),
        stop=draw(st.none() | st.just(StopRequest(at=T0, reason="by hand"))),
        spent_usd=draw(st.floats(0, 2)),
    )


runs = st.sampled_from([run_of(), run_of(CPU), run_of(CPU, SPOT_A, ON_DEMAND)])


@given(runs, seens())
@settings(max_examples=500)
def test_it_is_total_and_never_spends_what_it_should_not(run, seen):
    """Whatever is seen has an answer, and no answer launches past a limit or leaves an instance behind."""
    step = next_step(run, seen)
    live = {i.id for i in seen.instances if i.state not in {"shutting-down", "terminated"}}
    spends = isinstance(step, OpenAttempt | Launch | Train)
    if spends:
        assert seen.outcome is None
        assert not seen.published
        assert seen.result is None
        assert seen.stop is None
        assert seen.driver is None
        assert seen.now < run.deadline_at
        assert seen.spent_usd < run.max_cost_usd
    if isinstance(step, OpenAttempt):
        assert not live, "a new attempt while an instance lives"
        assert step.number == len(seen.attempts) + 1
        assert step.expires_at <= run.deadline_at
        assert (
            step.expires_at - seen.now
        ) / 3600 * step.offer.usd_per_hour <= run.max_cost_usd - seen.spent_usd + 1e-6
    if isinstance(step, Finish | Done):
        assert not live, "over while an instance lives"
        assert not seen.leftovers or isinstance(step, Finish)
    if isinstance(step, Terminate):
        assert set(step.instances) <= live
        assert step.instances
    if isinstance(step, CloseAttempt):
        assert seen.attempts[step.number - 1].end is None
    if isinstance(step, Publish):
        assert seen.result is not None
        assert seen.collected is not None
