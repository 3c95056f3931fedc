"""Each layer against leaks alone, with all the others switched off: it must end the instance by itself."""

import io
import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from commands import offload, start, wait_until
from leak_case import STORE, launch, run_of, train_project
from local_http import LocalServer

from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.ec2 import Ec2
from gpu_offload.infra.aws.schedule import Schedules
from gpu_offload.infra.aws.tags import store_mark
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.cleanup.reaper import Reaper
from gpu_offload.orchestrator.cleanup.run_limits import limits_of
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import Outcome

ROLE = "arn:aws:iam::123456789012:role/gpu-offload-scheduler"


@pytest.fixture
def cloud(monkeypatch, hurried):
    with SimulatedCloud(Behaviour(lag_seconds=0.05)) as simulated:
        for name, value in simulated.environment().items():
            monkeypatch.setenv(name, value)
        yield simulated


def gone(cloud):
    return not cloud.leftovers().instances


def ended_by(cloud):
    return [e.text for e in cloud.events if e.kind == "state" and e.text.startswith("shutting-down")]


def test_the_dead_man_timer_alone_ends_an_instance_at_its_absolute_time(cloud):
    launch("a-1", dead_man_in=4)
    wait_until(lambda: gone(cloud))
    assert ended_by(cloud) == ["shutting-down: Client.InstanceInitiatedShutdown"]
    assert not [c for c in cloud.calls if c.endswith("TerminateInstances")], "no other layer did anything"


def test_the_dead_man_timer_survives_a_reboot_and_keeps_its_absolute_time(cloud):
    began = time.time()
    instance = launch("a-1", dead_man_in=15)
    wait_until(lambda: "cloud-init: finished" in cloud.console(instance))
    cloud.client("ec2").reboot_instances(InstanceIds=[instance])
    wait_until(lambda: sum(e.text.startswith("boots") for e in cloud.events) == 2)
    assert not gone(cloud), "it came up again"
    wait_until(lambda: gone(cloud))
    assert time.time() - began >= 14, "not before its time"
    assert ended_by(cloud) == ["shutting-down: Client.InstanceInitiatedShutdown"]


def test_the_schedule_alone_ends_an_instance_when_everybody_else_is_gone(cloud):
    instance = launch("a-1")
    wait_until(lambda: instance in cloud.leftovers().instances)
    Schedules("us-east-1").create("a-1", 1, instance, datetime.now(UTC) + timedelta(hours=1), ROLE)
    cloud.advance(3590)
    assert not gone(cloud), "not before its time"
    cloud.advance(20)
    wait_until(lambda: gone(cloud))
    assert cloud.leftovers().schedules == (), "a schedule that has run deletes itself"


def test_the_sweep_alone_ends_what_is_past_its_time_without_journal_or_driver(cloud):
    store = open_store(STORE)
    Journal(store).begin(run_of("a-1"))
    launch("a-1", expires_in=-1)
    reaper = Reaper(
        ["us-east-1"], store_mark(STORE), lambda runs: limits_of(store, runs), Console(io.StringIO())
    )
    assert reaper.sweep().failures == ()
    cloud.settle()
    assert not cloud.leftovers().costs_money


def test_the_always_step_alone_finds_instances_by_the_runs_tag_and_by_nothing_else(cloud, tmp_path):
    train_project(tmp_path)
    mine = [launch("a-1"), launch("a-1", attempt=2)]
    other = launch("b-1")
    wait_until(lambda: len(cloud.leftovers().instances) == 3)
    offload(tmp_path, "stop", "--run", "a-1")
    cloud.settle()
    assert cloud.leftovers().instances == (other,)
    assert mine[0] != mine[1]
    offload(tmp_path, "stop", "--run", "a-1")


def test_a_second_job_ends_the_run_of_a_runner_that_died_while_launching(cloud, tmp_path):
    train_project(tmp_path)
    cloud.inject("api:RunInstances:lost-reply")
    process = start(tmp_path, "train", "--on", "ec2")
    wait_until(lambda: cloud.calls["ec2.RunInstances"] > 0 and cloud.leftovers().instances, process=process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    [run] = Journal(open_store(STORE)).run_ids()
    assert Journal(open_store(STORE)).attempts(run)[0].host is None, "its id was never written down"
    second = tmp_path / "second"
    second.mkdir()
    (second / "offload.toml").write_text((tmp_path / "offload.toml").read_text())
    offload(second, "stop", "--run", run)
    cloud.settle()
    assert not cloud.leftovers()
    assert Journal(open_store(STORE)).outcome(run).status == "stopped"


def test_the_loop_alone_ends_the_instance_when_the_result_is_in_the_store(cloud, tmp_path):
    train_project(tmp_path)
    offload(tmp_path, "train", "--on", "ec2")
    assert not cloud.leftovers()
    assert ended_by(cloud) == ["shutting-down: Client.UserInitiatedShutdown"]


def test_a_run_that_is_over_with_an_instance_left_is_cleared_by_the_sweep(cloud, tmp_path):
    train_project(tmp_path)
    journal = Journal(open_store(STORE))
    journal.begin(run_of("a-1"))
    journal.finish("a-1", Outcome(status="failed", at=time.time()))
    launch("a-1")
    document = json.loads(offload(tmp_path, "tend", "--json"))
    assert {thing["reason"] for thing in document["removed"]} == {"its run is over"}
    cloud.settle()
    assert not cloud.leftovers()


# ------------------------------------------------------------------------------------- credentials


@pytest.fixture
def token_endpoint():
    """The runner's: a token for the right bearer."""

    def reply(request):
        good = request.headers["Authorization"] == "bearer runner-secret"
        server.asked += good
        return 200 if good else 403, {"value": "header.payload.signature"}

    with LocalServer(reply) as server:
        server.asked = 0
        yield server


def test_a_session_that_nears_its_end_is_renewed_from_the_runners_token_endpoint(
    cloud, token_endpoint, monkeypatch
):
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/launcher")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{token_endpoint.url}/token?a=1")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "runner-secret")
    session = open_session("us-east-1")
    ec2 = Ec2("us-east-1", session=session)
    assert ec2.find() == []
    credentials = session.get_credentials()
    first = credentials.get_frozen_credentials().access_key
    assert token_endpoint.asked == 1
    # 46 of its 60 minutes later the old key is dead, and botocore has taken a new one by itself.
    later = datetime.now(UTC) + timedelta(minutes=46)
    monkeypatch.setattr(credentials, "_time_fetcher", lambda: later)
    assert credentials.get_frozen_credentials().access_key != first
    assert token_endpoint.asked == 2
    assert ec2.find() == []


def test_an_instance_whose_driver_lost_its_credentials_finishes_and_uploads_by_itself(cloud, tmp_path):
    train_project(tmp_path, epochs=4, held_after=2)
    process = start(tmp_path, "train", "--on", "ec2")
    journal = Journal(open_store(STORE))
    wait_until(
        lambda: any(a.heartbeat for r in journal.run_ids() for a in journal.attempts(r)), process=process
    )
    [run] = journal.run_ids()
    cloud.faults.expire_credentials("runner", 6)
    (tmp_path / "gate").touch()
    _, said = process.communicate(timeout=180)

    def has_result():
        try:
            return journal.result(run) is not None
        except StoreError:  # these credentials are the expired ones
            return False

    wait_until(has_result, seconds=90)
    if process.returncode:
        assert "expired" in said
        offload(tmp_path, "tend")
    assert journal.outcome(run).status == "published"
    assert len(journal.attempts(run)) == 1
    cloud.settle()
    assert not cloud.leftovers()
