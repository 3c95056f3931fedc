"""The crash sweep: drivers killed, cut off, stalled and cancelled at every effect of a run, in a model world.

What drives is the product's own loop, journal, lease, registry and decision; see `crash_world`. The counts of a
sweep are printed with `pytest -rP`.
"""

import random
import tempfile
from collections import Counter
from dataclasses import replace

import pytest
from crash_promises import broken_promises
from crash_scenario import RUN, T0, Fault, KilledError, Scenario, StuckError
from crash_world import World
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.run import closing, liveness, outlook
from gpu_offload.orchestrator.run import next_step as decision
from gpu_offload.orchestrator.run.backend import InstanceLeftError
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.limits import LimitWatch
from gpu_offload.orchestrator.run.record import StopRequest
from gpu_offload.orchestrator.run.step import (
    CloseAttempt,
    Collect,
    Finish,
    OpenAttempt,
    Publish,
    Terminate,
    Wait,
)

KILLS = [Fault("die-before"), Fault("die-after")]
CALLS = [
    Fault("lost"),
    Fault("unsent"),
    Fault("cancel-before"),
    Fault("cancel-after"),
]
FAULTS = [
    *CALLS,
    Fault("stall"),
    Fault("stall", 1),
    Fault("stall", 4),
]
RECLAIMS = [Fault("reclaim"), Fault("reclaim-notice")]

SCENES = {
    "rented": Scenario(),
    "rented, EC2 lags": Scenario(lag=20.0),
    "rented, EC2 lags, the next driver on the same machine": Scenario(lag=20.0, same_machine=True),
    "rented, EC2 shows an instance after four minutes": Scenario(lag=240.0),
    "rented, staging takes ten minutes": Scenario(staging_s=600.0, lag=20.0),
    "on the CPU": Scenario(cpu=True),
    "detached": Scenario(detach=True),
    "reclaimed without notice": Scenario(reclaims={1: (400.0, False)}),
    "reclaimed with notice": Scenario(reclaims={1: (400.0, True)}),
    "no capacity in the first zone": Scenario(refused={"us-east-1a": 1}),
    "the next driver comes late": Scenario(restart_s=1000.0, dead_man=True),
    "a training that says no": Scenario(fails=True),
    "stopped by hand": Scenario(stop_at=500.0),
    "too slow on the CPU, moved to an instance": Scenario(
        cpu=True, epochs=8, cpu_slow=10.0, deadline_s=10_800.0, on_overrun="escalate"),
}  # fmt: skip
ENDS = {"a training that says no": "failed", "stopped by hand": "stopped"}


@pytest.fixture(autouse=True)
def _fast_scratch(monkeypatch, tmp_path_factory):
    """Scratch folders in memory where there is such a place: thousands are made."""
    try:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as _:
            monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")
    except OSError:
        pass


def play(scenario, status="published"):
    """Play a case to its end; return the world and what was broken."""
    world = World(scenario)
    try:
        world.play()
    except (StuckError, InstanceLeftError, RecursionError) as error:
        return world, [f"stuck: {error}"]
    return world, broken_promises(world, status=status)


def points(trace):
    """Return the effects worth a fault: of those that repeat, the first two and the last."""
    by_name = {}
    for index, name in enumerate(trace, 1):
        by_name.setdefault(name, []).append(index)
    return sorted({i for found in by_name.values() for i in (*found[:2], found[-1])})


def faults_for(scenario):
    """Return the faults of a scenario beside a kill."""
    return FAULTS if scenario.cpu else FAULTS + RECLAIMS


class Tally:
    """What a sweep has seen, for the note."""

    def __init__(self):
        self.counts, self.broken = Counter(), []

    def add(self, name, scenario, status="published"):
        world, broken = play(scenario, status)
        self.counts["cases"] += 1
        self.counts["instances"] += len(world.machines)
        self.counts["publishes"] += world.store.written["models/" + "k" * 16 + "/manifest.json"]
        for text in broken:
            self.counts[text.partition(":")[0]] += 1
        if broken:
            self.broken.append(f"{name}, {scenario.faults}: {broken}")
        return world

    def check(self):
        print(dict(self.counts))  # noqa: T201 - the note quotes it
        assert not self.broken, "\n".join(self.broken[:10])


def sweep(name, faults):
    """Play every effect of a run with every fault, once; then one more driver."""
    scene, status, tally = SCENES[name], ENDS.get(name, "published"), Tally()
    calm = tally.add(name, scene, status)
    for effect in points(calm.actors[0].trace):
        for fault in faults:
            tally.add(name, replace(scene, faults={(1, effect): fault}), status)
    tally.check()


@pytest.mark.parametrize("name", SCENES)
def test_a_driver_killed_at_any_effect_costs_nothing_but_time(name):
    sweep(name, KILLS)


@pytest.mark.sweep
@pytest.mark.parametrize("name", SCENES)
def test_a_driver_disturbed_at_any_effect_costs_nothing_but_time(name):
    """Calls that are lost, signals, stalls with another driver meanwhile, reclaims."""
    sweep(name, faults_for(SCENES[name]))


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(9))
def test_two_drivers_dying_cost_nothing_but_time(seed):
    """Pairs: the first driver meets a fault anywhere, its successor another one anywhere; a fixed sample of them."""
    dice, tally = random.Random(seed), Tally()
    names = [n for n in SCENES if n != "a training that says no"]
    for _ in range(100):
        name = dice.choice(names)
        scene = SCENES[name]
        first, second = dice.choice(KILLS + CALLS), dice.choice(KILLS + faults_for(scene))
        faults = {(1, dice.randint(1, 34)): first, (2, dice.randint(1, 30)): second}
        tally.add(name, replace(scene, faults=faults), ENDS.get(name, "published"))
    tally.check()


LONG = {
    "a machine that hangs is replaced": (Scenario(silent={1: 400.0}), "published"),
    "a store that is away for five minutes costs nothing": (Scenario(deaf={1: (100.0, 400.0)}), "published"),
    "a launch that is never answered starts no second instance": (Scenario(mute_s=2000.0), "published"),
    "every zone is full for a while": (
        Scenario(refused={"us-east-1a": 2, "us-east-1b": 1, "on-demand": 0}), "published"),
    "no quota for spot": (Scenario(quota=frozenset({"spot"})), "published"),
    "others use the quota up for a while": (Scenario(crowded={"spot": 1500.0}), "published"),
    "an instance profile that does not exist": (Scenario(broken_profile=True), "failed"),
    "a role that may not launch, for three hours": (
        Scenario(roles=("janitor",) * 3, deadline_s=12 * 3600.0), "published"),
    "a reclaim, then the hourly sweep's role": (
        Scenario(detach=True, roles=("launcher", "janitor"), reclaims={1: (400.0, False)}, dead_man=True),
        "published"),
    "a heartbeat with a field of a newer version": (Scenario(foreign=frozenset({"heartbeat"})), "published"),
    "a heartbeat that cannot be read": (Scenario(foreign=frozenset({"heartbeat's form"})), "published"),
    "a training that ends early and does not say why": (Scenario(epochs=5, ends_early=2), "failed"),
    "the same on the CPU": (Scenario(epochs=5, ends_early=2, cpu=True), "failed"),
    "a training that dies in the same epoch every time": (Scenario(epochs=5, dies_at=2), "failed"),
    "the same on the CPU, every time": (Scenario(epochs=5, dies_at=2, cpu=True), "failed"),
    "no quota at all": (Scenario(quota=frozenset({"spot", "on-demand"})), "failed"),
    "reclaimed twice": (Scenario(epochs=5, reclaims={1: (400.0, False), 2: (400.0, True)}), "published"),
    "far slower than estimated, to the limit": (
        Scenario(slow=30.0, on_overrun="continue", deadline_s=7200.0), "failed"),
    "far slower than estimated, to the last cent": (
        Scenario(slow=30.0, on_overrun="continue", max_cost_usd=0.2), "failed"),
    "far slower on the CPU than estimated": (Scenario(cpu=True, epochs=8, cpu_slow=10.0, deadline_s=10_800.0), "failed"),
    "far slower on the CPU than estimated, to the limit": (
        Scenario(cpu=True, epochs=8, cpu_slow=10.0, deadline_s=10_800.0, on_overrun="continue"), "failed"),
    "spot comes back while it trains on demand": (
        Scenario(epochs=40, refused={"spot": 2}, deadline_s=5 * 3600.0, max_cost_usd=5.0), "published"),
    "spot does not come back, though it was hoped for": (
        Scenario(epochs=40, refused={"spot": 9}, deadline_s=5 * 3600.0, max_cost_usd=5.0), "published"),
    "spot is waited for, and comes": (
        Scenario(refused={"us-east-1a": 4, "us-east-1b": 4}, deadline_s=12 * 3600.0), "published"),
    "stopped by hand on the CPU": (Scenario(cpu=True, epochs=20, stop_at=1000.0), "stopped"),
    "reclaimed, and no driver looks for five hours": (
        Scenario(detach=True, reclaims={1: (400.0, False)}, dead_man=True), "published"),
}  # fmt: skip


@pytest.mark.parametrize("name", LONG)
def test_long_troubles_end_well(name):
    scenario, status = LONG[name]
    world, broken = play(scenario, status)
    assert not broken, [a.end for a in Journal(world.store).attempts(RUN)]


@pytest.mark.parametrize(
    ("on_overrun", "reason", "epochs", "at"),
    [
        ("stop", "overrun", 1, 3060.0),
        ("continue", "expired", 3, 10_800.0),
        ("escalate", "overrun", 8, 3060.0),
    ],
)
def test_a_training_on_the_cpu_that_will_not_make_it_is_ended_while_it_runs(on_overrun, reason, epochs, at):
    """With its checkpoint, as soon as that is certain or at the deadline; escalated, an instance finishes it."""
    scenario = Scenario(cpu=True, epochs=8, cpu_slow=10.0, deadline_s=10_800.0, on_overrun=on_overrun)
    world, _ = play(scenario, None)
    end = Journal(world.store).attempts(RUN)[0].end
    told = world.actors[0].drive.console.stream.getvalue()
    assert told.count("it may not make it: the 7 epochs that are left") == 1, "it is said early, and once"
    assert end.reason == reason
    assert end.at - world.run.created_at == pytest.approx(at, abs=120)
    # What is published needs no checkpoint any more.
    kept = publish.manifest_of(world.store, world.run.version) or world.manifest()
    assert kept.epochs_completed == epochs
    assert len(world.machines) == (on_overrun == "escalate")


class Drivers(RuleBasedStateMachine):
    """Two drivers in any interleaving, with faults of any kind at any moment."""

    @initialize(lag=st.sampled_from([0.0, 20.0]))
    def begin(self, lag):
        self.world = World(Scenario(lag=lag))
        self.drivers = {}
        self.stopped = False

    @rule(
        who=st.sampled_from([0, 1]),
        steps=st.integers(1, 8),
        kind=st.sampled_from(
            ["", "", "", "die-before", "die-after", "lost", "unsent", "reclaim", "reclaim-notice"]
        ),
        after=st.integers(1, 6),
    )
    def drive(self, who, steps, kind, after):
        actor = self.drivers.get(who)
        if actor is None:
            actor = self.drivers[who] = self.world.driver()
            if len(self.drivers) > 1:
                self.world.stalls += 1  # two at a time: each may be overtaken by the other
        if kind:
            self.world.scenario.faults[actor.number, len(actor.trace) + after] = Fault(kind)
        try:
            for _ in range(steps):
                if actor.drive.once() is not None:
                    break
        except KilledError:
            del self.drivers[who]

    @rule(seconds=st.sampled_from([5.0, 60.0, 200.0, 700.0]))
    def wait(self, seconds):
        self.world.pass_time(seconds)

    @precondition(lambda self: not self.stopped)
    @rule()
    def stop(self):
        self.stopped = True
        Journal(self.world.store).request_stop(RUN, StopRequest(at=self.world.now, reason="by hand"))

    @invariant()
    def at_most_one_publish(self):
        assert self.world.store.written["models/" + "k" * 16 + "/manifest.json"] <= 1

    def teardown(self):
        if not hasattr(self, "world"):
            return
        self.world.scenario.faults.clear()
        self.world.deaths += len(self.drivers)
        self.world.pass_time(200.0)
        self.world.play()
        late = self.world.now > T0 + 3 * 3600
        assert not [b for b in broken_promises(self.world, status=None) if not late or b.startswith("leak")]


TestDrivers = pytest.mark.sweep(Drivers.TestCase)
TestDrivers.settings = settings(
    max_examples=300, stateful_step_count=12, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


# -------------------------------------------------------------------------------------------------- mutants


def _never(*_args, **_more):
    return None


def _publish_at_once(at):
    if at.seen.result is None:
        return None
    return Collect() if at.seen.collected is None else Publish()


def _publish_unverified(at):
    if at.seen.result is None:
        return None
    live = at.seen.live
    return Terminate(tuple(i.id for i in live), "") if live else Publish()


def _finish_at_once(seen, finish, reason, message):
    current = seen.current
    return finish if current is None else CloseAttempt(current.record.number, reason, message)


def _verdict_without(*reasons, words="", of="verdict"):
    original = getattr(outlook, of)

    def verdict(seen, current, mine):
        found = original(seen, current, mine)
        ignored = found is not None and found[0] in reasons and words in found[1]
        return None if ignored else found

    return verdict


def _first_candidate(run, _seen, _market):
    yield run.candidates[0]


def _forgets_checkpointed_result(run, seen):
    step = NEXT_STEP(run, seen)
    return Finish("failed", "") if isinstance(step, Collect) else step


def _moves_at_once(_run, _seen, current):
    return "" if current.record.offer.market == "on-demand" and current.heartbeat else None


def _waits_for_ever(run, seen):
    step = NEXT_STEP(run, seen)
    return Wait(60.0, "") if isinstance(step, OpenAttempt) and seen.attempts else step


NEXT_STEP = decision.next_step

SLOW = LONG["far slower than estimated, to the limit"][0]
MUTANTS = {
    "publishes before it terminates": ("_result_staged", _publish_at_once, "cost", SCENES["rented"]),
    "publishes what it has not verified": ("_result_staged", _publish_unverified, "publish", SCENES["rented"]),
    "ends the run without terminating": ("close_down", _finish_at_once, "", SCENES["stopped by hand"]),
    "opens the next attempt while the last one lives": ("clear", _never, "", SCENES["reclaimed with notice"]),
    "does not look at an attempt's end": (
        "verdict", _verdict_without("expired"), "", LONG["far slower than estimated, to the last cent"][0]),
    "waits for ever for a heartbeat": (
        "verdict", _verdict_without("died", words="silent"), "", Scenario(silent={1: 400.0}, deadline_s=7200.0)),
    "gives a training up after a minute's silence": (
        "HEARTBEAT_LOST_S", 100.0, "surplus", Scenario(deaf={1: (100.0, 400.0)})),
    "launches again under the same number for ever": (
        "absence", _verdict_without("died", words="never confirmed", of="absence"), "", Scenario(mute_s=2000.0, lag=1e6)),
    "ignores a stop": ("_stopped", _never, "outcome", SCENES["stopped by hand"]),
    "tries again what says no": ("_failed", _never, "", SCENES["a training that says no"]),
    "ignores refusals and quotas": ("fitting", _first_candidate, "", LONG["no quota for spot"][0]),
    "does not account for what it did not launch": ("unbooked", _never, "cost", SCENES["rented"]),
    "gives money no end": (
        "next_step", lambda run, seen: NEXT_STEP(
            run.model_copy(update={"max_cost_usd": 100.0}), seen), "money", replace(SLOW, max_cost_usd=0.2)),
    "leaves security groups behind": ("next_step", lambda run, seen: NEXT_STEP(
        run, replace(seen, leftovers=())), "leftovers", SCENES["rented"]),
    "does not resume after a death": ("next_step", _waits_for_ever, "", SCENES["rented"]),
    "lets a training on the CPU run past its limits": (
        "judge", lambda _self, _seen, _attempt: lambda _beat: None, "outcome",
        LONG["far slower on the CPU than estimated, to the limit"][0]),
    "leaves on-demand for spot at every look": (
        "moving", _moves_at_once, "", LONG["spot does not come back, though it was hoped for"][0]),
    "forgets a result": ("next_step", _forgets_checkpointed_result, "", SCENES["rented"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_the_sweep_finds_a_decision_that(name, monkeypatch):
    """A broken decision must not pass: a sweep that finds nothing would prove nothing."""
    attribute, mutant, promise, scene = MUTANTS[name]
    too_slow = scene.slow > 1 or (scene.cpu_slow > 1 and scene.on_overrun != "escalate")
    status = "stopped" if scene.stop_at else "failed" if scene.fails or too_slow else "published"
    status = None if scene.mute_s else status
    trace = play(scene, status)
    assert not trace[1] or scene.lag > 1000, trace[1]
    if attribute == "next_step":
        monkeypatch.setattr("gpu_offload.orchestrator.run.controller.next_step", mutant)
    elif attribute == "judge":
        monkeypatch.setattr(LimitWatch, "judge", mutant)
    else:
        places = (closing, outlook, decision, liveness)
        monkeypatch.setattr(next(p for p in places if hasattr(p, attribute)), attribute, mutant)
    caught = play(scene, status)[1]
    for effect in points(trace[0].actors[0].trace):
        if caught:
            break
        for fault in [*KILLS, Fault("stall", 1)]:
            caught = caught or play(replace(scene, faults={(1, effect): fault}), status)[1]
    assert caught, "the sweep did not notice"
    assert any(text.startswith(promise) for text in caught), caught
    print(f"{name}: {caught[0]}")  # noqa: T201 - the note quotes it
