"""What a run does next, case by case and in general."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import Offer, cpu_offer
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.next_step import next_step
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt, ObservedInstance
from gpu_offload.orchestrator.run.record import (
    AttemptEnd,
    AttemptRecord,
    Collected,
    Experience,
    HostRecord,
    LaunchingRecord,
    Outcome,
    PlaceSighting,
    RunRecord,
    StopRequest,
)
from gpu_offload.orchestrator.run.step import (
    CleanUp,
    CloseAttempt,
    Collect,
    Done,
    Finish,
    Launch,
    OpenAttempt,
    Publish,
    RecordHost,
    Terminate,
    Train,
    Wait,
)
from gpu_offload.remote_job.result import Artifact, Heartbeat, Timings, TrainingResult
from gpu_offload.remote_job.spec import DatasetRef, TrainingSpec


class Opens:
    """An attempt on an offer, until whenever."""

    def __init__(self, number, offer):
        self.number, self.offer = number, offer

    def __eq__(self, other):
        return isinstance(other, OpenAttempt) and (other.number, other.offer) == (self.number, self.offer)

    def __hash__(self):
        return hash((self.number, self.offer))


ME, OTHER = "here:1:aa", "there:2:bb"
T0 = 1_000_000.0


def gpu_offer(zone="us-east-1a", market="spot", price=0.2):
    return Offer("ec2", "g4dn.xlarge", "us-east-1", zone, market, price, "test", None, 4, 16.0, 0.526)


CPU = Candidate(offer=cpu_offer(2), seconds=Interval(600, 1000, 2000))
SPOT_A = Candidate(offer=gpu_offer("us-east-1a"), seconds=Interval(300, 600, 1200))
SPOT_B = Candidate(offer=gpu_offer("us-east-1b"), seconds=Interval(300, 600, 1200))
SPOT_WEST = Candidate(
    offer=replace(gpu_offer("us-west-2a"), region="us-west-2"), seconds=Interval(300, 600, 1200)
)
SPOT_BIG = Candidate(
    offer=replace(gpu_offer(price=0.1), instance_type="g4dn.2xlarge", vcpus=8),
    seconds=Interval(300, 600, 1200),
)
ON_DEMAND = Candidate(offer=gpu_offer("us-east-1a", "on-demand", 0.526), seconds=Interval(300, 600, 1200))


def run_of(*candidates, **changes):
    values = {
        "id": "abc-1",
        "training_key": "k" * 64,
        "fingerprint": "f" * 64,
        "version": "k" * 16,
        "created_at": T0,
        "deadline_at": T0 + 21600,
        "max_cost_usd": 1.0,
        "why": "because",
        "candidates": candidates or (SPOT_A, SPOT_B, ON_DEMAND),
        "estimate": Interval(300, 600, 1200),
        "spec": TrainingSpec(
            run="abc-1",
            attempt=1,
            training_key="k" * 64,
            task=Task.DETECT,
            dataset=DatasetRef(fingerprint="f" * 64, archive="datasets/f.tar"),
            model="yolov8n.yaml",
            epochs=10,
            image_size=160,
            batch=16,
            seed=0,
            output="/out",
        ),
    }
    return RunRecord(**(values | changes))


def attempt(
    number=1, candidate=SPOT_A, *, driver=ME, created=None, expires=None, host=True, beat=None, end=None
):
    """An attempt, whose launch began when it was opened; one that has ended was launched long ago."""
    created = created if created is not None else T0 if end is None else T0 - 1000
    record = AttemptRecord(
        number=number,
        offer=candidate.offer,
        created_at=created,
        expires_at=T0 + 18000 if expires is None else expires,
        driver=driver,
    )
    there = host and candidate.offer.where == "ec2"
    return ObservedAttempt(
        record,
        host=HostRecord(
            instance_id=f"i-{number}",
            address="127.0.0.9",
            launched_at=created,
            market="spot",
            zone="us-east-1a",
            region="us-east-1",
            volume_gib=60,
        )
        if there
        else None,
        heartbeat=beat,
        end=end,
        launching=LaunchingRecord(first_at=created, at=created) if candidate.offer.where == "ec2" else None,
    )


def beat(at, state="training", epochs=1, message=None, pace=None):
    return Heartbeat(
        run="abc-1", attempt=1, time=at, pid=1, host="h", boot_id="b", epochs_completed=epochs, epochs=10,
        state=state, message=message, seconds_per_epoch=pace,
    )  # fmt: skip


def ended(number, reason, at=T0, **more):
    return AttemptEnd(number=number, reason=reason, at=at, message=reason, **more)


RESULT = TrainingResult(
    run="abc-1",
    attempt=1,
    training_key="k" * 64,
    fingerprint="f" * 64,
    task=Task.DETECT,
    epochs=10,
    epochs_completed=10,
    model=Artifact(name="model.pt", size=1, sha256="0" * 64),
    metrics={},
    timings=Timings(),
    environment={},
)
COLLECTED = Collected(at=T0, attempt=1, model_sha256="0" * 64)
RUNNING = ObservedInstance("i-1", 1, "running")
PENDING = ObservedInstance("i-1", 1, "pending")
ENDING = ObservedInstance("i-1", 1, "shutting-down")
GONE = ObservedInstance("i-1", 1, "terminated")
NOW = T0 + 100
LATE = T0 + 100_000

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
    "a launch that nobody confirmed is not repeated forever": (
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
@settings(max_examples=1500, deadline=None)
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


# ----------------------------------------------------------------------- limits while it runs, and the ladder

FASTER = Candidate(
    offer=replace(gpu_offer("us-east-1a", price=0.6), instance_type="g5.xlarge"),
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
    assert next_step(run, seen) == Finish("failed", step.message)


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
    """Nobody looked for five hours: what it cost is what it cost until it was reclaimed."""
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
