"""The sweep removes what must not exist any more, and nothing else: the decision alone, then on the simulated cloud."""

import io
import json
import os
import signal
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from commands import offload, start, wait_until
from leak_case import OTHER_STORE, STORE, launch, run_of, train_project
from run_case import T0, seen_attempt

from gpu_offload.infra.aws.errors import DeniedError, InUseError, ThrottledError
from gpu_offload.infra.aws.schedule import Schedules
from gpu_offload.infra.aws.tags import store_mark
from gpu_offload.infra.simulator.account import IMAGE_ID
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.cleanup.inventory import Inventory
from gpu_offload.orchestrator.cleanup.orphans import Orphan, Resource, RunLimits, find_orphans
from gpu_offload.orchestrator.cleanup.reaper import Reaper, Reaping
from gpu_offload.orchestrator.cleanup.run_limits import limits_of
from gpu_offload.orchestrator.cleanup.tend import Tend
from gpu_offload.orchestrator.cleanup.tend_report import RunTended, Tended, changed
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import Outcome
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import DatasetSettings, Ec2Settings, StoreSettings

NOW = 1_000_000.0
OURS = "0123456789abcdef"

# --------------------------------------------------------------------------------- the decision, alone

times = st.floats(NOW - 1e5, NOW + 1e5)
run_names = st.sampled_from(["a-1", "b-1", "c-2", "d-1"])
states = st.sampled_from(["pending", "running", "stopping", "stopped", "shutting-down", "terminated"])


@st.composite
def possessions(draw):
    kind = draw(st.sampled_from(["instance", "volume", "security group", "schedule"]))
    return Resource(
        kind=kind,
        id=draw(st.sampled_from([f"{kind}-{n}" for n in range(6)])),
        region=draw(st.sampled_from(["us-east-1", "us-west-2"])),
        run=draw(st.one_of(run_names, st.just(""))),
        expires=draw(st.one_of(times, st.none())),
        store=draw(st.sampled_from([OURS, "another", None])),
        state=draw(states) if kind == "instance" else "",
        instance=draw(st.one_of(st.sampled_from([f"instance-{n}" for n in range(6)]), st.none()))
        if kind != "instance"
        else None,
    )


lives_of_runs = st.dictionaries(run_names, st.builds(RunLimits, times, st.booleans(), st.booleans()))


@given(st.lists(possessions()), st.one_of(lives_of_runs, st.none()))
def test_what_is_not_ours_is_never_doomed(found, runs):
    assert all(stray.what.run for stray in find_orphans(found, runs, NOW, OURS))


@given(st.lists(possessions()), st.one_of(lives_of_runs, st.none()))
def test_what_is_gone_is_not_doomed_again_and_nothing_is_doomed_twice(found, runs):
    strays = find_orphans(found, runs, NOW, OURS)
    assert not [
        s for s in strays if s.what.kind == "instance" and s.what.state in {"shutting-down", "terminated"}
    ]
    assert len(strays) <= len(found)


@given(st.lists(possessions()), lives_of_runs)
def test_a_live_run_within_its_limits_loses_nothing(found, runs):
    safe = {name for name, life in runs.items() if not life.over and life.deadline_at > NOW}
    for stray in find_orphans(found, runs, NOW, OURS):
        assert stray.what.run not in safe or (stray.what.expires is not None and stray.what.expires <= NOW)


@given(st.lists(possessions()), st.one_of(lives_of_runs, st.none()))
def test_an_instance_of_ours_that_is_past_its_own_time_is_always_doomed(found, runs):
    condemned = {id(stray.what) for stray in find_orphans(found, runs, NOW, OURS)}
    for thing in found:
        late = thing.expires is not None and thing.expires <= NOW
        if thing.kind == "instance" and thing.run and late and not thing.is_gone:
            assert id(thing) in condemned


@given(st.lists(possessions()), lives_of_runs)
def test_an_instance_whose_run_is_over_unknown_or_past_its_deadline_is_always_doomed(found, runs):
    condemned = {id(stray.what) for stray in find_orphans(found, runs, NOW, OURS)}
    for thing in found:
        if thing.kind != "instance" or not thing.run or thing.is_gone or thing.store == "another":
            continue
        life = runs.get(thing.run)
        if life is None or (life.legible and (life.over or life.deadline_at <= NOW)):
            assert id(thing) in condemned


@given(st.lists(possessions()))
def test_a_store_that_is_silent_condemns_only_what_is_past_its_own_time(found):
    for stray in find_orphans(found, None, NOW, OURS):
        assert stray.what.expires <= NOW


@given(st.lists(possessions()), lives_of_runs)
def test_another_project_in_the_same_account_loses_only_what_is_past_its_own_time(found, runs):
    for stray in find_orphans(found, runs, NOW, OURS):
        assert stray.what.store in {OURS, None} or stray.what.expires <= NOW


@given(st.lists(possessions()), lives_of_runs)
def test_what_a_live_instance_holds_stays_until_the_instance_is_gone(found, runs):
    live = {t.id for t in found if t.kind == "instance" and not t.is_gone}
    assert not [
        s
        for s in find_orphans(found, runs, NOW, OURS)
        if s.what.kind != "instance" and s.what.instance in live
    ]


def test_a_record_of_another_version_protects_its_run():
    thing = Resource("instance", "i-1", "us-east-1", "a-1", NOW + 60, OURS, "running")
    assert find_orphans([thing], {"a-1": RunLimits(0.0, legible=False)}, NOW, OURS) == ()
    assert find_orphans([thing], {}, NOW, OURS)


def test_the_mark_of_a_store_is_its_address_and_its_server():
    assert store_mark("s3://b/p") == store_mark("s3://b/p/")
    assert len({store_mark("s3://b/p"), store_mark("s3://b/q"), store_mark("s3://b/p", "https://r2")}) == 3


def test_a_run_whose_name_no_store_could_hold_is_unknown(tmp_path):
    store = open_store(f"file:{tmp_path}")
    Journal(store).begin(run_of("known-1"))
    assert set(limits_of(store, ["known-1", "../../etc", "", "missing-1"])) == {"known-1"}


def test_an_instance_is_found_although_the_role_may_not_list_volumes(monkeypatch):
    """A stack that was deployed before volumes were swept: an orphan must not run on because of that."""

    def denied():
        raise DeniedError("not authorized to perform ec2:DescribeVolumes")

    orphan = SimpleNamespace(
        id="i-1",
        run="gone-1",
        expires=None,
        store=OURS,
        state="running",
        ended=False,
        security_groups=("sg-1",),
    )
    group = SimpleNamespace(id="sg-1", run="gone-1", expires=None, store=OURS)
    monkeypatch.setattr(Inventory, "_schedules", lambda *_: [])
    reaper = Reaper(["us-east-1"], OURS, lambda _: {}, Console(io.StringIO()))
    reaper.inventory._clients["us-east-1"] = SimpleNamespace(
        find=lambda: [orphan], volumes=denied, find_security_groups=lambda: [group]
    )
    for _ in range(2):
        assert [thing.id for thing in reaper.inventory.look()] == ["sg-1", "i-1"]
    [failure] = reaper._failures
    assert "us-east-1" in failure
    assert "DescribeVolumes" in failure


def test_a_removal_that_is_throttled_is_tried_again_and_a_denied_one_is_not():
    tried, faults = [], [ThrottledError("slow down"), InUseError("in use"), None, DeniedError("no")]

    def delete(group):
        tried.append(group)
        if (fault := faults.pop(0)) is not None:
            raise fault

    out = io.StringIO()
    reaper = Reaper([], OURS, lambda _: {}, Console(out), sleep=lambda _: None, clock=lambda: NOW)
    reaper.inventory._clients["us-east-1"] = SimpleNamespace(delete_security_group=delete)
    found = [Orphan(Resource("security group", name, "us-east-1", "a-1"), "") for name in ("sg-1", "sg-2")]
    assert [one.what.id for one in reaper._delete(found[:1])] == ["sg-1"]
    assert reaper._delete(found[1:]) == []
    assert tried == ["sg-1", "sg-1", "sg-1", "sg-2"]
    assert "sg-2 in us-east-1 is left" in out.getvalue()


# ------------------------------------------------------------------------------ on the simulated cloud


@pytest.fixture
def cloud(monkeypatch, hurried):
    with SimulatedCloud(Behaviour(lag_seconds=0.05)) as simulated:
        for name, value in simulated.environment().items():
            monkeypatch.setenv(name, value)
        yield simulated


def settings(tmp_path, *, url=STORE, regions=("us-east-1",)):
    return Settings(
        root=tmp_path,
        dataset=DatasetSettings(path="shapes"),
        store=StoreSettings(url=url),
        ec2=Ec2Settings(regions=regions),
    )


def tend(tmp_path, *, text=None, **options):
    where = options.pop("url", STORE)
    regions = options.pop("regions", ("us-east-1",))
    console = Console(text or io.StringIO())
    chosen = settings(tmp_path, url=where, regions=regions)
    return Tend(chosen, open_store(where), console, sleep=lambda s: time.sleep(min(s, 0.2)), **options).tend()


def sweep(*, dry_run=False, text=None):
    """Sweep the account, without taking any run on."""
    store = open_store(STORE)
    return Reaper(
        ["us-east-1", "us-west-2"],
        store_mark(STORE),
        lambda runs: limits_of(store, runs),
        Console(text or io.StringIO()),
        dry_run=dry_run,
        sleep=lambda s: time.sleep(min(s, 0.2)),
    ).sweep()


def test_tagged_resources_of_ended_or_unknown_runs_are_removed_and_no_others(cloud):
    journal = Journal(open_store(STORE))
    for name, deadline in (("live-1", 3600), ("over-1", 3600), ("late-1", -5)):
        journal.begin(run_of(name, deadline_in=deadline))
    journal.finish("over-1", Outcome(status="stopped", at=time.time()))
    journal.finish("late-1", Outcome(status="stopped", at=time.time()))
    live = launch("live-1")
    condemned = [
        launch("over-1"),
        launch("late-1"),
        launch("unknown-1"),
        launch("live-1", attempt=2, expires_in=-1, region="us-west-2"),
    ]
    other = launch("theirs-1", store=OTHER_STORE)
    client = cloud.client("ec2")
    stranger = client.run_instances(ImageId=IMAGE_ID, InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1)
    stranger = stranger["Instances"][0]["InstanceId"]
    loose = client.create_volume(
        AvailabilityZone="us-east-1a",
        Size=8,
        TagSpecifications=[
            {"ResourceType": "volume", "Tags": [{"Key": "gpu-offload:run", "Value": "unknown-1"}]}
        ],
    )["VolumeId"]
    theirs = client.create_volume(AvailabilityZone="us-east-1a", Size=8)["VolumeId"]
    Schedules("us-east-1").create(
        "unknown-1", 1, condemned[2], datetime.now(UTC) + timedelta(hours=1), "arn:aws:iam::1:role/scheduler"
    )
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    Schedules("us-east-1").create(
        "unknown-1",
        1,
        "i-of-theirs",
        in_an_hour,
        "arn:aws:iam::1:role/scheduler",
        store=store_mark(OTHER_STORE),
    )
    wait_until(lambda: len(cloud.leftovers().instances) == 7)

    seen = io.StringIO()
    planned = sweep(dry_run=True, text=seen)
    assert f"would terminate {condemned[0]}" in seen.getvalue()
    assert len(cloud.leftovers().instances) == 7, "a dry run does nothing"
    done = sweep()

    removed = {stray.what.id for stray in done.removed}
    assert set(condemned) <= removed
    assert {s.what.id for s in planned.removed if s.what.kind == "instance"} == set(condemned)
    assert not {live, other, stranger} & removed
    assert set(cloud.leftovers().instances) == {live, other, stranger}
    assert loose not in cloud.leftovers().volumes
    assert theirs in cloud.leftovers().volumes
    assert cloud.leftovers().schedules == (f"gpu-offload-unknown-1-{store_mark(OTHER_STORE)}-a1",)
    assert {thing.id for thing in done.kept} == {live, other}
    names = {g["GroupName"] for g in client.describe_security_groups()["SecurityGroups"]} - {"default"}
    assert names == {"gpu-offload-live-1", "gpu-offload-theirs-1"}
    assert done.failures == ()
    assert sweep().removed == (), "again is harmless"


def test_a_store_that_cannot_be_read_costs_no_healthy_run_its_instance(cloud, tmp_path):
    healthy, late = launch("a-1"), launch("b-1", expires_in=-1)
    wait_until(lambda: len(cloud.leftovers().instances) == 2)
    done = tend(tmp_path, url="s3://no-such-bucket/x")
    assert {s.what.id for s in done.sweep.removed if s.what.kind == "instance"} == {late}
    assert cloud.leftovers().instances == (healthy,)
    assert not done.store_readable
    assert "run `offload tend` again" in done.failures[0]


def test_two_sweeps_at_once_do_no_harm(cloud, tmp_path):
    for n in range(3):
        launch(f"unknown-{n}")
    results = []
    threads = [threading.Thread(target=lambda: results.append(tend(tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 2
    assert [r.failures for r in results] == [(), ()]
    cloud.settle()
    assert not cloud.leftovers()


@pytest.mark.simulator
def test_an_instance_that_does_not_end_is_red_and_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_offload.infra.aws.termination.LIMIT_S", 60.0)
    with SimulatedCloud(Behaviour(lag_seconds=0.0, shutdown_seconds=3600.0)) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        stuck = launch("unknown-1")
        passed = [time.time()]

        def sleep(seconds):
            passed[0] += seconds

        reaper = Reaper(
            ["us-east-1"],
            store_mark(STORE),
            lambda _: {},
            Console(io.StringIO()),
            sleep=sleep,
            clock=lambda: passed[0],
        )
        sweep = reaper.sweep()
        assert sweep.removed == ()
        assert stuck in sweep.failures[0]
        assert "EC2 console" in sweep.failures[0]


def test_a_region_that_does_not_answer_is_red_and_the_others_are_swept(cloud, tmp_path):
    launch("unknown-1", region="us-west-2")
    cloud.inject("api:Describe*:error=UnauthorizedOperation:region=us-east-1")
    done = tend(tmp_path, regions=("us-east-1", "us-west-2"))
    assert any("us-east-1 could not be swept" in failure for failure in done.failures)
    cloud.settle()
    assert cloud.leftovers().instances == ()


# ------------------------------------------------------------------------------------ whole commands


def test_tend_on_another_machine_publishes_what_finished_without_a_driver(cloud, tmp_path):
    train_project(tmp_path, pace=0.5)
    process = start(tmp_path, "train", "--on", "ec2", "--json")
    journal = Journal(open_store(STORE))
    wait_until(
        lambda: any(a.heartbeat for run in journal.run_ids() for a in journal.attempts(run)), process=process
    )
    [run] = journal.run_ids()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: journal.result(run) is not None, seconds=90)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "offload.toml").write_text((tmp_path / "offload.toml").read_text())
    document = json.loads(offload(elsewhere, "tend", "--json"))
    [told] = document["runs"]
    assert "the result is in the store" in told.pop("changes")[0]
    assert told == {"run": run, "status": "published", "message": journal.run(run).version}
    assert document["failures"] == []
    assert not cloud.leftovers()
    assert len(journal.attempts(run)) == 1, "nothing was trained twice"
    assert float(json.loads(journal.store.read(f"runs/{run}/cost.json")[0])["total_usd"]) > 0
    assert json.loads(offload(elsewhere, "tend", "--json"))["runs"] == []


def test_tend_leaves_a_healthy_training_alone_and_gives_a_reclaimed_one_its_next_instance(cloud, tmp_path):
    train_project(tmp_path, epochs=4, held_after=2)
    report = json.loads(offload(tmp_path, "train", "--on", "ec2", "--detach", "--json"))
    [first] = cloud.leftovers().instances
    document = json.loads(offload(tmp_path, "tend", "--json"))
    assert [(r["run"], r["status"]) for r in document["runs"]] == [(report["run"], "open")]
    assert [thing["id"] for thing in document["kept"]] == [first]
    journal = Journal(open_store(STORE))
    wait_until(lambda: (c := journal.checkpoint(report["run"])) is not None and c.epochs_completed >= 2)
    cloud.faults.reclaim(first, 0)
    offload(tmp_path, "tend")
    assert len(cloud.leftovers().instances) == 1
    assert first not in cloud.leftovers().instances
    (tmp_path / "gate").touch()
    wait_until(lambda: journal.result(report["run"]) is not None, seconds=90)
    offload(tmp_path, "tend")
    assert journal.outcome(report["run"]).status == "published"
    assert not cloud.leftovers()


def test_a_dry_run_takes_no_lease_and_says_what_it_would_do(cloud, tmp_path):
    train_project(tmp_path, pace=0.1)
    (run,) = [Journal(open_store(STORE)).begin(run_of("a-1"))]
    [tended] = json.loads(offload(tmp_path, "tend", "--dry-run", "--json"))["runs"]
    assert tended["message"].startswith("would open attempt 1")
    assert Journal(open_store(STORE)).attempts(run.id) == ()
    assert open_store(STORE).stat("runs/a-1/driver.json") is None


def test_a_pass_says_what_it_ended_and_launched_for_a_run_and_what_ended_does_not_go_on():
    orphaned = seen_attempt(1, T0, T0 + 50, "orphaned")
    launched = seen_attempt(2, T0 + 60, None)
    launched = replace(
        launched,
        record=launched.record.model_copy(update={"created_at": T0 + 60}),
        host=launched.host.model_copy(update={"instance_id": "i-2"}),
    )
    told = changed(RunTended("abc-1", "open", "its instance trains"), (orphaned, launched), T0 + 40)
    first, second = orphaned.host.instance_id, launched.host.instance_id
    assert told.ended == (first,)
    assert [first in told.changes[0], second in told.changes[1]] == [True, True]
    assert changed(told, (orphaned, launched), T0 + 100).changes == ()
    found = replace(orphaned, end=None), launched
    assert changed(told, (orphaned, launched), T0 + 100, found).ended == (first,), "closed now, ended before"
    went_on = Resource("instance", first, "us-east-1", "abc-1")
    tended = Tended((told,), Reaping(removed=(), kept=(went_on,), failures=(), notes=()), (), True, False)
    assert "goes on" not in tended.text()
    assert tended.json()["kept"] == []
