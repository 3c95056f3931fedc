"""What AWS and a store really do on a bad night, as far as the loop's own code is concerned."""

import io
import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from crash_scenario import RUN, Scenario, run_record
from crash_world import World
from run_case import T0, attempt_of, run_of, seen_attempt

from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.synthetic import generate
from gpu_offload.dataset.tree import materialise
from gpu_offload.infra.aws.ec2 import Ec2
from gpu_offload.infra.aws.error_codes import from_reply
from gpu_offload.infra.aws.errors import InUseError, NoNetworkError, ProtectedError, ThrottledError
from gpu_offload.infra.aws.state_reason import explained
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.backends.ec2_cleanup import IN_USE_LIMIT_S, Ec2Cleanup
from gpu_offload.orchestrator.backends.ec2_instances import Ec2Instances
from gpu_offload.orchestrator.backends.staging import Staging, dataset_keys, staged_dataset
from gpu_offload.orchestrator.cleanup.reaper import Reaping
from gpu_offload.orchestrator.cleanup.sweep_note import dead_sweep, note_sweep
from gpu_offload.orchestrator.cleanup.tend import Tend
from gpu_offload.orchestrator.cost.bill import spent
from gpu_offload.orchestrator.github.cached_store import KeptFolder
from gpu_offload.orchestrator.github.packed import pack_for_keeping
from gpu_offload.orchestrator.lifecycle.status import standings
from gpu_offload.orchestrator.lifecycle.train import job_ends_first
from gpu_offload.orchestrator.offers.offer import cpu_offer
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan.candidate import Project
from gpu_offload.orchestrator.run.accounting import Accounting, read_bill
from gpu_offload.orchestrator.run.attempt_use import use_of
from gpu_offload.orchestrator.run.backend import CloudUnreachableError, InstanceLeftError
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError, NewerJournalError
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.next_step import next_step
from gpu_offload.orchestrator.run.observation import Observation, ObservedInstance
from gpu_offload.orchestrator.run.record import AttemptEnd, AttemptRecord, GoneRecord, Outcome, StopRequest
from gpu_offload.orchestrator.run.run_index import RunIndex
from gpu_offload.orchestrator.run.step import RecordGone
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import DatasetSettings, StoreSettings
from gpu_offload.remote_job.spec import StoreRef

EMPTY = Reaping((), (), (), ())


@pytest.fixture
def tree(tmp_path):
    generate(tmp_path / "raw", images=6, size=32)
    return materialise(read_snapshot(tmp_path / "raw"), tmp_path / "tree")


def settings_of(tmp_path, store):
    return Settings(root=tmp_path, dataset=DatasetSettings(path="shapes"), store=StoreSettings(url=store.url))


def staging(store, tree, **more):
    return Staging(store, Console(io.StringIO()), tree=lambda: tree, **more)


def test_a_damaged_staged_dataset_is_staged_anew_before_anything_is_rented(store, tree):
    run = run_record(Scenario())
    staging(store, tree).stage(run)
    shared, own = dataset_keys(run)
    whole = store.read(shared)[0]
    assert staged_dataset(store, run) == shared
    store.put(shared, whole[:-100])
    staging(store, tree).stage(run)
    assert staged_dataset(store, run) == own
    assert store.read(own)[0] == whole
    etag = store.stat(own).etag
    staging(store, tree).stage(run)
    assert store.stat(own).etag == etag, "what is whole is not sent again"


def test_damaged_code_is_staged_anew(store, tree):
    run = run_record(Scenario()).model_copy(update={"project": Project(size=4, sha256="c" * 64)})
    place = staging(store, tree, project=b"code")
    place.stage(run)
    key = f"runs/{run.id}/inputs/{'c' * 64}.tar"
    store.put(key, b"damaged")
    place.stage(run)
    assert store.read(key)[0] == b"code"


def test_a_late_second_starter_does_not_overwrite_a_newer_checkpoint():
    world = World(Scenario())
    journal = Journal(world.store)
    world.write_checkpoint(1, 2, 1.0)
    other = world.run.model_copy(update={"id": RUN[:-1] + "2"})
    journal.begin(other)
    journal.copy_checkpoint(world.run, other.id)
    newer = journal.checkpoint(other.id).model_copy(update={"epochs_completed": 3})
    world.store.put(f"runs/{other.id}/checkpoint/manifest.json", newer.model_dump_json().encode())
    journal.copy_checkpoint(world.run, other.id)
    assert journal.checkpoint(other.id).epochs_completed == 3


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"holder": 1}', b"\xff\xfe"])
def test_an_unreadable_lease_is_an_expired_one(store, body):
    store.put("runs/a-1/driver.json", body)
    lease = Lease()
    assert lease.claim(store, "a-1") is None
    lease.release(store, "a-1")


def test_documents_with_fields_of_a_newer_version_are_read_and_another_format_is_refused(store):
    journal, run = Journal(store), run_of(now=T0)
    document = json.loads(run.model_dump_json()) | {"colour": "blue"}
    store.put(f"runs/{run.id}/run.json", json.dumps(document).encode())
    assert journal.run(run.id) == run
    store.put(f"runs/{run.id}/run.json", json.dumps(document | {"format": 2}).encode())
    with pytest.raises(NewerJournalError, match="newer version"):
        journal.run(run.id)


@pytest.mark.parametrize(
    "changed",
    [
        '{"format": 7}',
        '"seconds_per_epoch": -1',
        '"seconds_per_epoch": 1e308',
        '"seconds_per_epoch": NaN',
        f'"batch": {"9" * 400}',
        '"time": 1e300',
        '"pace": {"mosaic": {"batch": 1, "spread": 1e308, "steps": 5}}',
    ],
)
def test_an_unreadable_heartbeat_is_a_sign_of_life_at_the_time_it_was_written(store, changed):
    journal, run = Journal(store), run_of(now=T0)
    journal.begin(run)
    attempt = seen_attempt(1, T0, None)
    journal.open_attempt(run.id, attempt.record)
    if not (body := changed).startswith("{"):
        good = '"time": 1, "run": "a", "attempt": 1, "pid": 1, "host": "h", "boot_id": "b", "epochs_completed": 1'
        body = f'{{{good}, "epochs": 9, "state": "finished", {changed}}}'
    store.put(f"runs/{run.id}/attempts/1/heartbeat.json", body.encode())
    [seen] = journal.read(run.id).attempts
    assert abs(seen.heartbeat.time - time.time()) < 60
    assert seen.heartbeat.state == "training"


def test_unreadable_is_not_absent(store):
    """A stop stays a stop, an outcome an outcome, and an attempt is not opened a second time."""
    journal, run = Journal(store), run_of(now=T0)
    journal.begin(run)
    store.put(f"runs/{run.id}/stop.json", b"?")
    assert journal.read(run.id).stop is not None
    assert journal.stop_requested(run.id) is not None, "for a training on this machine, too"
    store.put(f"runs/{run.id}/outcome.json", b"?")
    assert journal.read(run.id).outcome.status == "failed"
    assert journal.open_ids() == []
    store.put(f"runs/{run.id}/attempts/1.json", b"?")
    with pytest.raises(JournalError, match="attempts/1"):
        journal.read(run.id)


def test_a_damaged_checkpoint_keeps_no_runner_from_keeping_what_it_made(tmp_path):
    store = KeptFolder(tmp_path / "store", open_store(f"file:{tmp_path / 'kept'}"))
    run = run_of(id="aaaaaaaaaaaa-1")
    Journal(store).begin(run)
    store.put(f"runs/{run.id}/checkpoint/manifest.json", b"?")
    assert pack_for_keeping(store, run.training_key, tmp_path / "packed").unfinished == 0


def test_a_damaged_old_run_breaks_no_listing(store, tmp_path):
    journal, run = Journal(store), run_of(now=T0, id="aaaaaaaaaaaa-1")
    journal.begin(run)
    for other, body in (("old-1", b"{}"), (f"{run.training_key[:12]}-9", b"damaged")):
        store.put(f"runs/{other}/run.json", body)
        RunIndex(store).begun(other, T0)
    found = standings(store, settings_of(tmp_path, store))
    assert {s.status for s in found} == {"open", "unreadable"}
    assert [r.id for r in journal.runs_of(run.training_key)] == [run.id]
    assert journal.next_id(run.training_key).endswith("-10"), "its number is taken"


def test_tend_sweeps_and_takes_every_readable_run_on_whatever_the_others_are_like(
    store, tmp_path, monkeypatch
):
    journal = Journal(store)
    good = run_of(id="good-1", deadline_at=time.time() - 1)
    bad = good.model_copy(update={"id": "bad-1"})
    newer = json.loads(good.model_dump_json()) | {"format": 2}
    for record in (good, bad):
        journal.begin(record)
    store.put("runs/newer-1/run.json", json.dumps(newer).encode())
    store.put("runs/torn-1/run.json", b'{"id": "to')
    store.put("runs/bad-1/attempts/1.json", b"?")
    swept = []
    monkeypatch.setattr(Tend, "_sweep", lambda self, regions: swept.append(journal.open_ids()) or EMPTY)
    done = Tend(settings_of(tmp_path, store), store, Console(io.StringIO())).tend()
    assert len(swept[0]) == 4, "before any run was taken on"
    assert {r.run: r.status for r in done.runs} == {
        "good-1": "failed", "bad-1": "open", "newer-1": "open", "torn-1": "open",
    }  # fmt: skip
    assert len(done.failures) == 2
    assert not any("newer-1" in failure for failure in done.failures), "nothing is wrong with it"


def test_a_defect_that_one_run_meets_does_not_keep_the_others_waiting(store, tmp_path, monkeypatch):
    journal = Journal(store)
    for name in ("a-1", "b-1"):
        journal.begin(run_of(id=name, deadline_at=time.time() - 1))
    monkeypatch.setattr(Tend, "_sweep", lambda self, regions: EMPTY)
    original = Tend._taken_on

    def taken_on(self, run):
        if run.id == "a-1":
            raise ZeroDivisionError("a defect")
        return original(self, run)

    monkeypatch.setattr(Tend, "_taken_on", taken_on)
    done = Tend(settings_of(tmp_path, store), store, Console(io.StringIO())).tend()
    assert [r.status for r in done.runs] == ["open", "failed"]
    assert "ZeroDivisionError" in done.failures[0]


def test_of_many_runs_only_those_are_driven_where_something_can_be_done(store, tmp_path, monkeypatch):
    """Taking a lease costs four requests, and a run that trains elsewhere needs none."""
    journal, offer = Journal(store), cpu_offer(2, 8.0)
    names = [f"{n:012x}-1" for n in range(8)]
    for name in names:
        run = run_of(offer, id=name, deadline_at=time.time() + 3600)
        journal.begin(run)
        journal.open_attempt(name, attempt_of(run, 1, offer))
        journal.close_attempt(name, AttemptEnd(number=1, reason="died", at=time.time()))
    journal.request_stop(names[3], StopRequest(at=time.time(), reason="enough"))
    store.put(f"runs/{names[5]}/attempts/1.json", b"?")
    monkeypatch.setattr(Tend, "_sweep", lambda self, regions: EMPTY)
    done = Tend(settings_of(tmp_path, store), store, Console(io.StringIO())).tend()
    assert [(r.run, r.status) for r in done.runs] == [
        (name, "stopped" if name == names[3] else "open") for name in names
    ]
    assert "offload train" in done.runs[0].message
    assert [names[5] in failure for failure in done.failures] == [True]
    assert [n for n in names if store.stat(f"runs/{n}/driver.json")] == [names[3], names[5]]


def test_a_defect_in_one_runs_bill_does_not_affect_the_others(store, tmp_path, monkeypatch):
    journal, booked = Journal(store), []
    for name in ("a-1", "b-1"):
        run = run_of(now=T0, id=name)
        journal.begin(run)
        journal.finish(run.id, Outcome(status="failed", at=T0, message="?"))

    def taken_on(self, run):
        booked.append(run.id)
        raise OverflowError("a defect")

    monkeypatch.setattr(Tend, "_taken_on", taken_on)
    tending = Tend(settings_of(tmp_path, store), store, Console(io.StringIO()))
    tending._book(journal, {"a-1", "b-1"})
    assert booked == ["a-1", "b-1"]
    assert all("OverflowError" in failure for failure in tending._failures)


def test_what_is_found_late_is_booked_for_the_seconds_that_it_ran(store):
    """Its attempt was closed as stopped before anybody saw the instance; the bill is written again."""
    accounts = Accounting(store, StoreSettings(url=store.url))
    journal, run = Journal(store), run_of(now=T0)
    journal.begin(run)
    closed = seen_attempt(1, T0, T0 + 5, "stopped", with_host=False, market="on-demand")
    accounts.settle(run, Observation(now=T0 + 10, me="me", attempts=(closed,)))
    assert read_bill(store, run.id).total == 0
    host = seen_attempt(1, T0, None, market="on-demand").host.model_copy(update={"ended_at": T0 + 3600})
    found = replace(closed, host=host)
    accounts.settle(run, Observation(now=T0 + 4000, me="me", attempts=(found,)))
    instance = read_bill(store, run.id).lines[0]
    assert (float(instance.quantity), instance.unit) == (1.0, "h")


def test_a_reclaim_is_free_only_where_the_cloud_itself_says_so():
    by_cloud = seen_attempt(1, T0, T0 + 600, "reclaimed")
    noticed = replace(by_cloud, end=by_cloud.end.model_copy(update={"by_cloud": False}))
    by_notice = spent([use_of(noticed, run_of(now=T0), now=T0 + 700)])
    assert spent([use_of(by_cloud, run_of(now=T0), now=T0 + 700)]) < by_notice / 2


def test_a_stop_while_the_inputs_are_staged_lets_nothing_be_launched():
    """The stop comes when the driver is past the look at the journal, in the midst of staging."""
    world = World(Scenario(staging_s=600.0, stop_at=300.0))
    world.play()
    assert world.machines == []
    assert Journal(world.store).outcome(RUN).status == "stopped"


def test_a_stop_that_comes_as_the_launch_is_journalled_is_seen_by_one_of_the_two():
    world = World(Scenario())
    journal, real = Journal(world.store), world.store.create

    def create(key, body):
        etag = real(key, body)
        if key.endswith(".launching.json"):
            journal.request_stop(RUN, StopRequest(at=world.now, reason="by hand"))
        return etag

    world.store.create = create
    world.play()
    assert world.machines == []
    assert journal.outcome(RUN).status == "stopped"


def test_a_role_that_may_not_launch_leaves_the_run_open_and_says_which_may(store):
    world = World(Scenario(roles=("janitor",)))
    assert world.driver().drive_to_end() == "denied"
    journal = Journal(world.store)
    assert journal.outcome(RUN) is None
    assert journal.attempts(RUN)[0].end.denied
    assert world.driver().drive_to_end() == "done"
    assert journal.outcome(RUN).status == "published"


def test_an_outcome_with_an_unknown_attempt_record_still_ends_the_listing(store):
    journal, run = Journal(store), run_of(now=T0)
    journal.begin(run)
    journal.open_attempt(
        run.id,
        AttemptRecord(number=1, offer=run.candidates[0].offer, created_at=T0, expires_at=T0, driver="d"),
    )
    journal.finish(run.id, Outcome(status="stopped", at=T0))
    assert journal.open_ids() == []


@pytest.mark.parametrize(
    ("hours", "detach", "where", "warned"),
    [
        (7, False, "github-hosted", True),
        (7, True, "github-hosted", False),
        (5, False, "github-hosted", False),
        (7, False, "self-hosted", False),
        (7, False, "", False),
    ],
)
def test_a_deadline_beyond_the_jobs_end_is_warned_about(hours, detach, where, warned):
    run = run_of(now=T0, deadline_at=T0 + hours * 3600)
    assert job_ends_first(run, detach=detach, environment={"RUNNER_ENVIRONMENT": where}, now=T0) is warned
    assert not job_ends_first(run, detach=detach, environment={"RUNNER_ENVIRONMENT": where}, now=T0 + 7200)


def test_a_schedule_that_has_ended_is_noticed_by_the_age_of_the_last_sweep(store):
    assert dead_sweep(store, now=time.time() + 1e6) is None, "it never ran: perhaps it is not wanted"
    note_sweep(store)
    assert dead_sweep(store, now=time.time() + 3600) is None
    assert dead_sweep(store, now=time.time() - 3600) is None, "a clock that is behind is no dead schedule"
    assert "60 days" in dead_sweep(store, now=time.time() + 7 * 3600)


def test_a_run_whose_driver_died_between_outcome_and_bill_is_billed_by_tend(store, tmp_path, monkeypatch):
    journal = Journal(store)
    journal.begin(run_of(id="a-1"))
    journal.finish("a-1", Outcome(status="failed", at=time.time()))
    assert journal.open_ids() == []
    assert journal.index.unbilled_ids() == ["a-1"]
    monkeypatch.setattr(Tend, "_sweep", lambda self, regions: EMPTY)
    done = Tend(settings_of(tmp_path, store), store, Console(io.StringIO())).tend()
    assert read_bill(store, "a-1") is not None
    assert done.failures == ()
    assert journal.index.unbilled_ids() == []


def test_what_an_account_causes_has_its_remedy():
    assert explained("Client.UserInitiatedShutdown", "User initiated shutdown") == ""
    assert "kms:CreateGrant" in explained("Client.InternalError", "Client error on launch")
    assert explained("Client.InvalidKMSKey.InvalidState", "").startswith(
        "Client.InvalidKMSKey.InvalidState; "
    )
    assert (
        explained("Server.InternalError", "Server.InternalError: a fault") == "Server.InternalError: a fault"
    )
    protected = from_reply("terminating i-1", "OperationNotPermitted", "may not be terminated", 400)
    assert protected.retry == "never"
    assert "--no-disable-api-termination" in str(protected)


def test_a_subnet_without_ipv4_is_no_place_for_an_instance(monkeypatch):
    item = {"SubnetId": "subnet-1", "VpcId": "vpc-1", "AvailabilityZone": "us-east-1a", "Ipv6Native": True}

    class Pages:
        def paginate(self, **_):
            return [
                {
                    "Subnets": [
                        item,
                        item
                        | {"SubnetId": "subnet-2", "Ipv6Native": False, "AvailabilityZone": "us-east-1b"},
                    ]
                }
            ]

    class Client:
        def describe_subnets(self, **_):
            return {"Subnets": [item]}

        def get_paginator(self, _):
            return Pages()

    monkeypatch.setattr(Ec2, "_client", Client())
    assert list(Ec2("us-east-1").subnets()) == ["us-east-1b"]
    with pytest.raises(NoNetworkError, match="IPv6"):
        Ec2("us-east-1").subnet("us-east-1a", "subnet-1")


def test_an_instance_that_outlived_its_attempt_is_billed_until_it_ended(store):
    """Its driver closed the attempt and died, or its clock was wrong; EC2 says when the instance really ended."""
    accounts = Accounting(store, StoreSettings(url=store.url))
    journal, run = Journal(store), run_of(now=T0)
    journal.begin(run)
    closed = seen_attempt(1, T0, T0 + 60, "died", market="on-demand")
    accounts.settle(run, Observation(now=T0 + 100, me="me", attempts=(closed,)))
    gone = ObservedInstance("i-1", 1, "terminated", ended_at=T0 + 7200)
    seen = Observation(now=T0 + 8000, me="me", attempts=(closed,), instances=(gone,))
    step = next_step(run, seen)
    assert step == RecordGone(1, GoneRecord(instance_id="i-1", at=T0 + 7200))
    booked = replace(seen, attempts=(replace(closed, gone=step.gone),))
    assert not isinstance(next_step(run, booked), RecordGone)
    accounts.settle(run, booked)
    assert float(read_bill(store, run.id).lines[0].quantity) == 2.0


def test_a_group_that_stays_in_use_is_evidence_of_an_instance_that_ec2_does_not_show(monkeypatch):
    """A region that was seen empty is asked every time from then on; in the end the command fails and names the group."""
    now, asked = [T0], []

    def in_use(_):
        raise InUseError("in use")

    found = Ec2Instances(StoreRef(url="s3://bucket"), lambda: now[0])
    client = SimpleNamespace(find=lambda run: asked.append(run) or [], delete_security_group=in_use)
    found._clients["us-east-1"] = client
    cleanup = Ec2Cleanup(found, Console(io.StringIO()), lambda _: None, lambda _: None, False, lambda: now[0])
    closed = (seen_attempt(1, T0 - 2000, T0 - 1000),)
    for _ in range(3):
        found.find(RUN, closed)
    assert len(asked) == 1, "nothing may appear there any more"
    cleanup.remove(("us-east-1/group/sg-1",))
    for _ in range(3):
        found.find(RUN, closed)
    assert len(asked) == 4
    now[0] += IN_USE_LIMIT_S + 1
    with pytest.raises(InstanceLeftError, match="sg-1"):
        cleanup.remove(("us-east-1/group/sg-1",))


def test_an_instance_that_ec2_does_not_let_go_keeps_no_other_one_running():
    """One has termination protection, one is throttled; the last one has to go all the same."""
    faults = {"i-1": ProtectedError("protected"), "i-2": ThrottledError("slow down")}
    terminated = []

    def terminate(ids):
        if ids[0] in faults:
            raise faults[ids[0]]
        terminated.extend(ids)

    found = Ec2Instances(StoreRef(url="s3://bucket"))
    found._clients["us-east-1"] = SimpleNamespace(terminate=terminate)
    for name in ("i-1", "i-2", "i-3"):
        found.add("us-east-1", SimpleNamespace(id=name, zone="us-east-1a", expires=None, run=RUN))
    cleanup = Ec2Cleanup(found, Console(io.StringIO()), lambda _: None, lambda _: None, False)
    with pytest.raises(CloudUnreachableError):
        cleanup.terminate(("i-1", "i-2", "i-3"))
    assert terminated == ["i-3"]
    del faults["i-2"]
    with pytest.raises(InstanceLeftError, match="i-1 in us-east-1a still runs"):
        cleanup.terminate(("i-1", "i-2", "i-3"))
    assert "i-2" in terminated
