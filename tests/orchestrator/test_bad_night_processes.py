"""A bad night with real processes on the simulated cloud: late instances, lost roles, errors that cannot pass."""

import io
import json
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

import boto3
import commands
from botocore.exceptions import ClientError
from commands import offload, start, wait_until
from fast_clock import SLOW, FastClock
from killing_cloud import Killing
from leak_case import STORE, train_project
from run_case import attempt_of, host, run_of

from gpu_offload.infra.account.site import Site
from gpu_offload.infra.simulator.account import IMAGE_ID, PROFILE
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.backends.ec2 import RentedTraining
from gpu_offload.orchestrator.cleanup.sweep_note import KEY
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.accounting import read_bill
from gpu_offload.orchestrator.run.attempt_use import ended_of
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.settings.sections import Ec2Settings
from gpu_offload.remote_job.spec import StoreRef

SITE = Site("octo-org/octo-repo", "gpu-offload", prefix="project/", regions=("us-east-1",))
STAGING_S, LATE_S = 60.0, 12.0
"""How late EC2 shows a new instance; AWS speaks of up to five minutes."""


@pytest.fixture
def cloud(monkeypatch, request, hurried):
    with Killing(Behaviour(lag_seconds=getattr(request, "param", 0.1))) as simulated:
        for name, value in simulated.environment().items():
            monkeypatch.setenv(name, value)
        yield simulated


class SlowStaging(Killing):
    """A simulated cloud to which the dataset goes slowly."""

    def staged(self, seconds):
        del seconds

    def before(self, call):
        if call.operation == "PutObject" and "/datasets/" in f"/{call.key}":
            self.staged(STAGING_S)
        return super().before(call)


@pytest.fixture
def hours(tmp_path, monkeypatch, request):
    """A simulated cloud on a clock that passes an hour in seconds, and how a command is run on it."""
    with FastClock(tmp_path / "clock") as clock:
        behaviour = Behaviour(
            lag_seconds=getattr(request, "param", 0.5) / SLOW, environment=clock.environment()
        )
        with SlowStaging(behaviour, clock=clock) as simulated:
            simulated.staged = clock.skip
            clock.follow(simulated)
            for name, value in simulated.environment().items():
                monkeypatch.setenv(name, value)

            def command(folder, *arguments):
                return start(folder, *arguments, environment=clock.environment())

            yield simulated, command


@pytest.mark.simulator
def test_an_instance_whose_uploads_are_denied_is_reported_and_ends_within_minutes(hours, tmp_path):
    """What it trains cannot be kept, and not even its heartbeat says so: the driver reads it over SSH."""
    cloud, command = hours
    (tmp_path / "project").mkdir()
    train_project(tmp_path / "project", pace=120.0, epochs=40)  # all 40 are within the limits
    cloud.inject("api:PutObject:error=AccessDenied:who=instance:after=checkpoint")
    process = command(tmp_path / "project", "train", "--on", "ec2")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "if that lasts, the training stops" in said, "told while it trains"
    assert "AccessDenied" in said
    assert not cloud.leftovers()
    journal = Journal(open_store(STORE))
    [run] = journal.run_ids()
    attempts = journal.attempts(run)
    assert [one.end.reason for one in attempts] == ["failed"], f"another instance would meet the same: {said}"
    attempt = attempts[0]
    assert journal.checkpoint(run).epochs_completed >= 1, "it is kept"
    assert attempt.end.at - attempt.host.launched_at < 40 * 120.0 / 2, "long before its end"


@pytest.mark.simulator
@pytest.mark.parametrize("hours", [LATE_S], indirect=True)
def test_an_instance_that_ec2_shows_late_is_stopped_and_booked(hours, tmp_path):
    """Staging took a minute; the driver is killed as the launch is accepted; `offload stop` comes at once, and sees nothing."""
    cloud, command = hours
    folder = tmp_path / "project"
    folder.mkdir()
    train_project(folder)
    cloud.point, cloud.done_first = ("RunInstances", ""), True
    process = cloud.victim = command(folder, "train", "--on", "ec2", "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, out + err
    store = open_store(STORE)
    [run] = Journal(store).open_ids()
    stopping = command(folder, "stop", run)
    _, said = stopping.communicate(timeout=120)
    assert stopping.returncode == 0, said
    assert not cloud.leftovers()
    [attempt] = Journal(store).attempts(run)
    assert attempt.launching.at - attempt.record.created_at >= STAGING_S
    assert attempt.host is not None, "it is booked"
    assert cloud.runner_calls["ec2.TerminateInstances"] >= 1, "it was seen, and not left to its timer"
    assert Journal(store).outcome(run).status == "stopped"
    assert read_bill(store, run).total > 0


def test_a_sweep_whose_role_may_not_launch_leaves_the_run_open_and_red(cloud, tmp_path):
    train_project(tmp_path)
    cloud.inject("api:RunInstances:error=UnauthorizedOperation:times=2")
    code, _, said = commands.run(tmp_path, "train", "--on", "ec2")
    assert code == 1
    assert "launcher" in said
    journal = Journal(open_store(STORE))
    [run] = journal.open_ids()
    code, _, said = commands.run(tmp_path, "tend")
    assert code == 1
    assert "launcher" in said
    assert journal.open_ids() == [run], "a denial closes no run"
    assert journal.store.stat(KEY) is not None, "the sweep itself was made"
    assert json.loads(offload(tmp_path, "train", "--on", "ec2", "--json"))["run"] == run


@pytest.mark.parametrize(
    "code", ["InvalidAMIID.NotFound", "InvalidParameterCombination", "VPCIdNotSpecified"]
)
def test_an_error_that_cannot_pass_ends_the_run_with_its_cause(cloud, tmp_path, code):
    train_project(tmp_path)
    cloud.inject(f"api:RunInstances:error={code}")
    began = time.monotonic()
    status, _, said = commands.run(tmp_path, "train", "--on", "ec2")
    assert status == 1
    assert code in said
    assert time.monotonic() - began < 60
    journal = Journal(open_store(STORE))
    assert journal.open_ids() == []
    assert not cloud.leftovers()


def wrong_clock(folder, seconds):
    """The environment of a hurried process whose system clock is wrong by so many seconds."""
    hurried = Path(__file__).parents[1] / "hurried" / "sitecustomize.py"
    wrong = f"\nimport time\n_true = time.time\ntime.time = lambda: _true() + {seconds}\n"
    (folder / "sitecustomize.py").write_text(hurried.read_text() + wrong)
    return {"PYTHONPATH": str(folder)}


def test_a_drivers_clock_that_is_wrong_by_an_hour_changes_no_bill(cloud, tmp_path):
    """One driver's is an hour ahead; it is interrupted, and another's, an hour behind, goes on with the run."""
    train_project(tmp_path, pace=0.02, epochs=2, held_after=1)
    for name in ("ahead", "behind"):
        (tmp_path / name).mkdir()
    store = open_store(STORE)
    process = start(tmp_path, "train", "--on", "ec2", environment=wrong_clock(tmp_path / "ahead", 3600))
    run = wait_until(lambda: next(Journal(store).run_ids(), None), process=process)
    wait_until(lambda: Journal(store).checkpoint(run), process=process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 75
    (tmp_path / "gate").touch()
    process = start(tmp_path, "train", "--on", "ec2", environment=wrong_clock(tmp_path / "behind", -3600))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    cloud.settle()
    attempts = Journal(store).attempts(run)
    assert len(attempts) == 2
    for attempt in attempts:
        states = [e for e in cloud.events if e.kind == "state" and e.subject == attempt.host.instance_id]
        lived = next(e.time for e in states if "shutting-down" in e.text) - states[0].time
        billed = ended_of(attempt, time.time())[0] - attempt.host.launched_at
        assert abs(billed - lived) < 3
        assert abs(attempt.record.created_at - states[0].time) < 30
        assert attempt.record.expires_at - time.time() < 24 * 3600


@pytest.mark.simulator
def test_an_instance_that_ec2_ends_at_launch_is_reported_with_reason_and_remedy(
    tmp_path, monkeypatch, hurried
):
    """The account's key for disks may not be used: pending, then terminated. EC2 knows the new profile after seconds only."""
    with Killing(
        Behaviour(
            lag_seconds=0.1,
            launch_failure="Client.InternalError",
            profile_lag_calls=1,
            profile_lag_seconds=0.0,
        )
    ) as simulated:
        for name, value in simulated.environment().items():
            monkeypatch.setenv(name, value)
        iam = simulated.client("iam")
        iam.create_instance_profile(InstanceProfileName="fresh")
        iam.add_role_to_instance_profile(InstanceProfileName="fresh", RoleName=PROFILE)
        train_project(tmp_path, extra='instance-profile = "fresh"')
        code, _, said = commands.run(tmp_path, "train", "--on", "ec2")
        assert code == 1
        assert simulated.runner_calls["ec2.RunInstances"] == 3, "the refused one, and two instances"
        assert "Client.InternalError" in said
        assert "kms:CreateGrant" in said
        [run] = Journal(open_store(STORE)).run_ids()
        assert len(Journal(open_store(STORE)).attempts(run)) == 2, "a broken instance is replaced once"
        simulated.settle()
        assert not simulated.leftovers()


def test_an_adopted_instance_gets_its_schedule(cloud):
    """The launch's answer was lost, so the launch itself could make none."""
    settings = Ec2Settings(schedule_role="arn:aws:iam::123456789012:role/gpu-offload-scheduler")
    backend = RentedTraining(
        settings, Journal(open_store(STORE)), StoreRef(url=STORE), Console(io.StringIO())
    )
    run = run_of()
    backend.adopt(run, attempt_of(run), host(time.time()))
    assert len(cloud.leftovers().schedules) == 1


@pytest.fixture
def stack(hurried):
    """A simulated cloud whose roles are those of `offload bootstrap`, and what gives a role's variables."""
    with SimulatedCloud(Behaviour(stack=SITE, lag_seconds=0.1)) as simulated:

        def variables(role):
            given = simulated.client("sts").assume_role_with_web_identity(
                RoleArn=f"arn:aws:iam::{simulated.account}:role/gpu-offload-{role}",
                RoleSessionName="job",
                WebIdentityToken="a token",
            )["Credentials"]
            names = {"AccessKeyId": "ACCESS_KEY_ID", "SecretAccessKey": "SECRET_ACCESS_KEY"}
            names["SessionToken"] = "SESSION_TOKEN"
            return {f"AWS_{names[name]}": given[name] for name in names}

        yield simulated, variables


@pytest.mark.simulator
def test_the_shipped_roles_can_do_what_their_commands_do(stack, tmp_path, monkeypatch):
    """Resources and conditions included: the launcher trains, the janitor terminates and publishes."""
    cloud, variables = stack
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    role = f"arn:aws:iam::{cloud.account}:role/gpu-offload-scheduler"
    extra = f'instance-profile = "gpu-offload-trainer"\nschedule-role = "{role}"\n'
    train_project(tmp_path, epochs=1, held_after=0, extra=extra)

    def as_role(role, *arguments):
        for name, value in variables(role).items():
            monkeypatch.setenv(name, value)
        return offload(tmp_path, *arguments)

    as_role("launcher", "train", "--on", "ec2", "--detach")
    assert "scheduler.CreateSchedule" in cloud.calls
    [run] = Journal(open_store(STORE)).open_ids()
    (tmp_path / "gate").touch()
    wait_until(lambda: Journal(open_store(STORE)).result(run))
    as_role("janitor", "tend")
    [version] = json.loads(as_role("publisher", "models", "--json"))["versions"]
    as_role("publisher", "yank", version["version"], "--why", "a test")
    assert not cloud.leftovers()


@pytest.mark.simulator
def test_the_simulated_cloud_denies_what_a_roles_policy_does_not_allow(stack):
    """By action, resource and condition: tags, types, prefixes, and writes that would replace a model."""
    cloud, variables = stack

    def client(service, role):
        names = {name.lower(): value for name, value in variables(role).items()}
        return boto3.client(service, "us-east-1", endpoint_url=cloud.url, **names)

    launch = {"ImageId": IMAGE_ID, "InstanceType": "g4dn.xlarge", "MinCount": 1, "MaxCount": 1}
    tags = [{"Key": "gpu-offload:run", "Value": "r-1"}]
    for role in ("janitor", "publisher", "launcher"):
        with pytest.raises(ClientError, match="ec2:RunInstances"):
            client("ec2", role).run_instances(**launch)
    foreign = cloud.client("ec2").run_instances(**launch)["Instances"][0]["InstanceId"]
    own = cloud.client("ec2").run_instances(
        **launch, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}]
    )["Instances"][0]["InstanceId"]
    wait_until(lambda: len(cloud.client("ec2").describe_instances()["Reservations"]) == 2)
    with pytest.raises(ClientError, match=foreign):
        client("ec2", "janitor").terminate_instances(InstanceIds=[own, foreign])
    client("ec2", "janitor").terminate_instances(InstanceIds=[own])
    s3 = client("s3", "publisher")
    for key, conditions in {"elsewhere/x": {}, "project/models/1/model.pt": {}}.items():
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.put_object(Bucket="gpu-offload", Key=key, Body=b"", **conditions)
    s3.put_object(Bucket="gpu-offload", Key="project/models/1/model.pt", Body=b"", IfNoneMatch="*")
