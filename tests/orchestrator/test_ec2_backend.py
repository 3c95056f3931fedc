"""The GPU path on the simulated cloud: one launch that says everything, real SSH, one version, nothing left."""

import base64
import contextlib
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import OFFLOAD, offload, start, wait_until
from commands import run as command
from leak_case import train_project
from run_case import attempt_of, run_of

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from gpu_offload.infra.aws.tags import store_mark
from gpu_offload.infra.instance.job import JobState, Look
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.ssh.errors import ConnectionLostError
from gpu_offload.infra.ssh.key import HostKey
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.backends import progress
from gpu_offload.orchestrator.backends.ec2 import RentedTraining
from gpu_offload.orchestrator.backends.ec2_access import rented_training
from gpu_offload.orchestrator.backends.ssh_session import Session
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan.prerequisites import RentingError, check_renting
from gpu_offload.orchestrator.plan.receipt import BASES
from gpu_offload.orchestrator.run.backend import LaunchDeniedError, RefusedError
from gpu_offload.orchestrator.run.controller import Controller
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.observation import ObservedAttempt, ObservedInstance
from gpu_offload.orchestrator.run.record import HostRecord
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import DatasetSettings, Ec2Settings, StoreSettings
from gpu_offload.remote_job.result import Heartbeat
from gpu_offload.remote_job.spec import StoreRef

ROLE = "arn:aws:iam::123456789012:role/gpu-offload-scheduler"


class Recording(SimulatedCloud):
    """A simulated cloud that remembers what was asked of EC2."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.asked = []

    def before(self, call):
        self.asked.append((time.time(), call))
        return super().before(call)

    def of(self, operation):
        return [call for _, call in self.asked if call.operation == operation]

    def times_of(self, operation):
        return [at for at, call in self.asked if call.operation == operation]


@pytest.fixture
def cloud(monkeypatch, hurried):
    """A simulated cloud, and an environment that leads there."""
    with Recording() as simulated:
        for name, value in simulated.environment().items():
            monkeypatch.setenv(name, value)
        yield simulated


def settings_of(tmp_path, **ec2):
    return Settings(
        root=tmp_path,
        dataset=DatasetSettings(path="shapes"),
        store=StoreSettings(url="s3://gpu-offload/project"),
        ec2=Ec2Settings(**ec2),
    )


def renting(tmp_path, **ec2):
    settings = settings_of(tmp_path, **ec2)
    journal = Journal(open_store(settings.store_url))
    return rented_training(settings, journal, Console(io.StringIO()), renew=lambda: None)


@pytest.fixture
def rented(cloud, tmp_path):
    rented = renting(tmp_path, schedule_role=ROLE)
    yield rented
    rented.close()


def launched(rented, run):
    """Launch as the drive does, and wait until EC2 shows the instance running."""
    record = attempt_of(run)
    host = rented.launch(run, record)
    seen = ObservedAttempt(record, host=host)
    wait_until(lambda: any(i.state == "running" for i in rented.instances(run, (seen,))))
    return seen


def end(rented, run, seen):
    """Terminate and clean up, as the drive does."""
    give_up = time.monotonic() + 30
    while True:
        live = [i.id for i in rented.instances(run, (seen,)) if i.state in {"pending", "running"}]
        rented.terminate(tuple(live))
        if all(i.state == "terminated" for i in rented.instances(run, (seen,))):
            break
        assert time.monotonic() < give_up
    while left := rented.leftovers(run, (seen,)):
        rented.clean_up(left)
        assert time.monotonic() < give_up


def test_everything_that_keeps_an_instance_from_leaking_is_said_in_its_one_launch(cloud, rented):
    run = run_of()
    seen = launched(rented, run)
    [call] = cloud.of("RunInstances")
    form = dict(call.parameters)
    user_data = base64.b64decode(form.pop("UserData"))
    tags = {}
    kinds = []
    for i in range(1, 10):
        kind = form.pop(f"TagSpecification.{i}.ResourceType", None)
        if kind:
            kinds.append(kind)
            for j in range(1, 9):
                key = form.pop(f"TagSpecification.{i}.Tag.{j}.Key", None)
                if key:
                    tags.setdefault(kind, {})[key] = form.pop(f"TagSpecification.{i}.Tag.{j}.Value")
    group = form.pop("SecurityGroupId.1")
    subnet = form.pop("SubnetId")
    assert subnet.startswith("subnet-")
    assert len(form.pop("ClientToken")) == 64
    assert form == {
        "Action": "RunInstances",
        "Version": "2016-11-15",
        "ImageId": "ami-00000000000000001",
        "InstanceType": "g4dn.xlarge",
        "MinCount": "1",
        "MaxCount": "1",
        "InstanceInitiatedShutdownBehavior": "terminate",
        "Placement.AvailabilityZone": "us-east-1a",
        "MetadataOptions.HttpEndpoint": "enabled",
        "MetadataOptions.HttpTokens": "required",
        "MetadataOptions.HttpPutResponseHopLimit": "1",
        "MetadataOptions.InstanceMetadataTags": "disabled",
        "BlockDeviceMapping.1.DeviceName": "/dev/sda1",
        "BlockDeviceMapping.1.Ebs.VolumeSize": "60",
        "BlockDeviceMapping.1.Ebs.VolumeType": "gp3",
        "BlockDeviceMapping.1.Ebs.Encrypted": "true",
        "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true",
        "IamInstanceProfile.Name": "gpu-offload-instance",
        "InstanceMarketOptions.MarketType": "spot",
        "InstanceMarketOptions.SpotOptions.SpotInstanceType": "one-time",
        "InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior": "terminate",
    }
    assert sorted(kinds) == ["instance", "network-interface", "spot-instances-request", "volume"]
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(seen.record.expires_at)))
    for found in tags.values():
        assert found == {
            "gpu-offload:run": "abc-1",
            "gpu-offload:attempt": "1",
            "gpu-offload:expires": expires,
            "gpu-offload:store": store_mark("s3://gpu-offload/project"),
            "Name": "gpu-offload abc-1 #1",
        }
    assert len(user_data) < 16_384
    document = json.loads(user_data.decode().removeprefix("#cloud-config\n"))
    first = document["bootcmd"][0]
    assert str(int(seen.record.expires_at)) in first, (
        "the dead-man switch comes first, with the attempt's end"
    )
    assert document["ssh_keys"]["ed25519_private"] == rented.launcher.keys[1].host.private
    assert document["users"][0]["ssh_authorized_keys"] == [str(rented.launcher.keys[1].client.public)]
    [rule] = cloud.of("AuthorizeSecurityGroupIngress")
    assert rule.parameters["GroupId"] == group
    assert rule.parameters["IpPermissions.1.IpRanges.1.CidrIp"] == "127.0.0.1/32"
    assert (
        rule.parameters["IpPermissions.1.FromPort"]
        == rule.parameters["IpPermissions.1.ToPort"]
        == str(cloud.ssh_port)
    )
    assert len(cloud.leftovers().schedules) == 1
    end(rented, run, seen)
    assert not cloud.leftovers(), "instance, volume, group and schedule are gone"


def test_a_launch_whose_reply_is_lost_is_asked_for_again_and_gives_one_instance(cloud, rented):
    cloud.inject("api:RunInstances:lost-reply:times=1")
    run = run_of()
    seen = launched(rented, run)
    assert len(cloud.of("RunInstances")) == 2
    assert len({c.parameters["ClientToken"] for c in cloud.of("RunInstances")}) == 1
    assert cloud.leftovers().instances == (seen.host.instance_id,)
    end(rented, run, seen)


def test_a_host_with_another_key_gets_nothing(cloud, rented):
    run = run_of()
    seen = launched(rented, run)
    rented.launcher.keys[1] = replace(rented.launcher.keys[1], host=HostKey.generate())
    reason, message = rented.train(run, seen)
    assert reason == "died"
    assert "not our instance" in message
    assert not list(Path(cloud._folder).glob("*/*/var/lib/gpu-offload/jobs/*")), "nothing was started"
    end(rented, run, seen)


def test_no_capacity_is_a_refusal_that_another_zone_may_mend_and_a_quota_is_not(cloud, rented):
    run = run_of()
    cloud.ec2.set_capacity("us-east-1a:*", 0)
    with pytest.raises(RefusedError, match="InsufficientInstanceCapacity") as none_free:
        rented.launch(run, attempt_of(run))
    assert not none_free.value.quota
    cloud.compute.behaviour = replace(cloud.behaviour, quota_spot_gpu=0)
    cloud.ec2.set_capacity("us-east-1a:*", None)
    with pytest.raises(RefusedError, match="servicequotas") as no_quota:
        rented.launch(run, attempt_of(run, 2))
    assert no_quota.value.quota
    assert not cloud.leftovers().instances


def test_a_denial_with_a_disk_above_the_policy_names_both_sizes(cloud, rented):
    regions, run = rented.launcher.regions, run_of()
    regions._images["us-east-1"] = replace(regions.image("us-east-1"), size_gib=150)
    cloud.inject("api:RunInstances:error=UnauthorizedOperation:times=2")
    with pytest.raises(LaunchDeniedError, match=r"150 GiB.*100 GiB"):
        rented.launch(run, attempt_of(run))
    regions._images["us-east-1"] = replace(regions.image("us-east-1"), size_gib=80)
    with pytest.raises(LaunchDeniedError) as denied:
        rented.launch(run, attempt_of(run, 2))
    assert "GiB" not in str(denied.value)


def test_a_driver_without_the_keys_starts_nothing_and_says_why(cloud, rented, tmp_path):
    run = run_of()
    seen = launched(rented, run)
    other = renting(tmp_path)
    other.instances(run, (seen,))
    assert other.train(run, seen)[0] == "orphaned"
    end(rented, run, seen)


def test_training_on_ec2_needs_a_bucket_and_a_role_and_says_both_before_anything_begins(tmp_path):
    settings = Settings(root=tmp_path, dataset=DatasetSettings(path="shapes"))
    with pytest.raises(RentingError) as error:
        check_renting(settings, {})
    assert "store.url" in str(error.value)
    assert "ec2.instance-profile" in str(error.value)


@pytest.mark.parametrize("url", ["file:models", "sftp://me@files.example.org/srv", "hf://me/models"])
def test_an_instance_is_rented_for_no_store_but_a_bucket(tmp_path, url):
    """It has no key of an SFTP server and no token of the Hub, and would cost money until it fails."""
    settings = settings_of(tmp_path, instance_profile="trainer").model_copy(
        update={"store": StoreSettings(url=url)}
    )
    with pytest.raises(RentingError, match=r"store\.url is .*set store\.url to s3://BUCKET"):
        check_renting(settings, {})


def test_a_store_outside_aws_needs_keys_of_its_own_on_an_instance(tmp_path):
    store = StoreSettings(url="s3://bucket", endpoint_url="https://account.store.example")
    settings = settings_of(tmp_path, instance_profile="trainer").model_copy(update={"store": store})
    with pytest.raises(RentingError, match="set STORE_ACCESS_KEY_ID and STORE_SECRET_ACCESS_KEY"):
        check_renting(settings, {"AWS_ACCESS_KEY_ID": "of AWS's"})
    keys = {"STORE_ACCESS_KEY_ID": "id", "STORE_SECRET_ACCESS_KEY": "key"}
    check_renting(settings, keys)
    console = Console(io.StringIO())
    rented = rented_training(
        settings, Journal(open_store("file:/nowhere")), console, renew=int, environment=keys
    )
    assert rented.store_keys == keys


# ------------------------------------------------------------------------------------- whole commands


@pytest.fixture
def project(tmp_path):
    train_project(tmp_path)
    return tmp_path


def document(cloud_store, key):
    return json.loads(cloud_store.read(key)[0])


def journal_of(project):
    return Journal(open_store("s3://gpu-offload/project"))


def wait_for_heartbeat(journal, process):
    """Wait until the latest attempt of a run has a heartbeat; return the run."""

    def beating():
        attempts = ((run, journal.attempts(run)) for run in journal.run_ids())
        return next((run for run, found in attempts if found and found[-1].heartbeat), None)

    return wait_until(beating, seconds=120, process=process)


def test_a_training_of_ones_own_goes_to_the_instance_and_comes_back_published(cloud, project):
    report = json.loads(offload(project, "train", "--on", "ec2", "--json"))
    assert report["status"] == "trained"
    assert report["where"] == "g4dn.xlarge"
    assert not cloud.leftovers()
    assert len(cloud.of("RunInstances")) == 1
    store = open_store("s3://gpu-offload/project")
    bill = document(store, f"runs/{report['run']}/cost.json")
    assert float(bill["total_usd"]) > 0
    again = json.loads(offload(project, "train", "--on", "ec2", "--json"))
    assert again["status"] == "already_trained"
    assert len(cloud.of("RunInstances")) == 1
    status = json.loads(offload(project, "status", "--json"))["runs"][0]
    assert (status["status"], status["epochs_completed"]) == ("published", 3)
    page = offload(project, "report", "--format", "html")
    assert page.startswith("<!doctype html>")
    assert "<polyline" in page
    assert "attempt 1" in offload(project, "logs", report["run"])
    # What it took, from launch to the end, is what the next one is expected to take.
    timing = document(store, next(info.key for info in store.list("timings/") if report["run"] in info.key))
    assert timing["machine"] == "g4dn.xlarge"
    assert 0 < timing["actual"] < report["seconds"]
    assert BASES["history"] in offload(project, "plan", "--set", "training.seed=5")


def test_the_same_command_twice_at_once_ends_with_one_instance_and_one_version(cloud, project):
    both = [
        start(project, "train", "--on", "ec2", "--json", "--set", "training.hyperparameters.pace=1")
        for _ in range(2)
    ]
    replies = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], replies
    reports = [json.loads(out) for out, _ in replies]
    assert len({report["version"] for report in reports}) == 1
    assert len({call.parameters["ClientToken"] for call in cloud.of("RunInstances")}) == 1
    assert not cloud.leftovers()


def test_an_interrupted_command_sends_the_terminate_call_within_five_seconds_and_carries_on(cloud, project):
    slow = ("train", "--on", "ec2", "--json", "--set", "training.hyperparameters.pace=2")
    process = start(project, *slow)
    run = wait_for_heartbeat(journal_of(project), process)
    told = time.time()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert min(cloud.times_of("TerminateInstances")) - told < 5
    assert journal_of(project).outcome(run) is None, "the run stays open"
    report = json.loads(
        offload(project, "train", "--on", "ec2", "--json", "--set", "training.hyperparameters.pace=2")
    )
    assert report["run"] == run
    assert report["status"] == "trained"
    assert not cloud.leftovers()


IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Takes standard input as controlling terminal, then becomes the command."""


class Terminal:
    """A terminal in which a command runs, until it is closed."""

    def __init__(self, folder, *command):
        self._master, inside = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, *command],
            cwd=folder, stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
        )  # fmt: skip
        os.close(inside)
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        while not self._closing.is_set():
            if select.select([self._master], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):  # the command has ended
                    os.read(self._master, 4096)

    def close(self):
        """Close it: the kernel sends SIGHUP to the command."""
        self._closing.set()
        self._reader.join()
        os.close(self._master)


def test_a_terminal_that_closes_ends_what_is_rented(cloud, project, foreground):
    """The command gets SIGHUP and can print no more; it still terminates its instance."""
    pace = ("--set", "training.hyperparameters.pace=20")
    terminal = Terminal(project, *OFFLOAD, "train", "--on", "ec2", *pace)
    try:
        run = wait_for_heartbeat(journal_of(project), terminal.process)
    finally:
        terminal.close()
        code = terminal.process.wait(timeout=60)
    assert code == 75
    assert journal_of(project).outcome(run) is None, "the run stays open"
    assert cloud.of("TerminateInstances")
    cloud.settle()
    assert not cloud.leftovers().instances


def test_a_detached_run_goes_on_by_itself_and_attach_publishes_it(cloud, project, monkeypatch):
    monkeypatch.setattr(progress, "POLL_S", 0.5)
    pace = ("--set", "training.hyperparameters.pace=0.5")
    report = json.loads(offload(project, "train", "--on", "ec2", "--detach", "--json", *pace))
    assert report["status"] == "detached"
    assert len(cloud.leftovers().instances) == 1
    assert "published version" in offload(project, "attach", report["run"])
    assert not cloud.leftovers()


def test_stop_terminates_by_tag_even_what_no_journal_knows(cloud, project):
    slow = ("train", "--on", "ec2", "--json", "--set", "training.hyperparameters.pace=20")
    process = start(project, *slow)
    run = wait_for_heartbeat(journal_of(project), process)
    process.kill()
    process.communicate()
    (instance,) = cloud.leftovers().instances
    cloud.inject("api:TerminateInstances:error=UnauthorizedOperation:times=1")
    code, _, denied = command(project, "stop", run)
    assert code == 1
    assert f"{instance} in us-east-1" in denied, "which instance goes on"
    assert "powers off by itself" in denied
    offload(project, "stop", run)
    assert not cloud.leftovers()
    assert journal_of(project).outcome(run).status == "stopped"


@pytest.mark.simulator
def test_a_quota_of_nothing_is_told_in_the_plan_and_the_cpu_does_it(project, monkeypatch):
    with Recording(Behaviour(quota_spot_gpu=0, quota_on_demand_gpu=0)) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        code, out, err = command(project, "plan", "--json")
        assert code == 0, err
        assert "quota is 0" in err
        assert {o["where"] for o in json.loads(out)["options"]} == {"cpu"}


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Job:
    """A job on an instance, by what happens at each look: an error, or the code that it ended with (None: it runs)."""

    def __init__(self, *happens):
        self.happens = iter(happens)

    def look(self, progress, log, *, hold):
        assert hold
        found = next(self.happens)
        if isinstance(found, Exception):
            raise found
        state = JobState.RUNNING if found is None else JobState.ENDED
        return Look(state, found, b"", b"", progress, log, more=False, trouble="the store denies it")

    def console(self):
        return "AccessDenied"


@pytest.mark.parametrize(
    ("happens", "stalls"),
    [((None, 78), 900.0), ((ConnectionLostError("cut"), 78), 0.0)],
    ids=["stopped-between-two-looks", "connection-lost"],
)
def test_a_job_whose_store_denies_it_is_asked_for_its_end_before_its_silence_counts(
    tmp_path, happens, stalls
):
    """Its last heartbeat is 15 minutes old, and only SSH says why: another instance would meet the same."""
    clock, run = Clock(), run_of()
    store = f"file:{tmp_path}"
    journal = Journal(open_store(store))
    journal.begin(run)
    console, stalled = Console(io.StringIO()), iter([stalls])

    def sleep(seconds):
        clock.sleep(seconds + next(stalled, 0.0))

    rented = RentedTraining(Ec2Settings(), journal, StoreRef(url=store), console, sleep=sleep)
    seen = ObservedAttempt(attempt_of(run))
    host = SimpleNamespace(name="instance", address="", close=lambda: None)
    rented._sessions[1] = Session(
        run=run, attempt=seen.record, host=host, console=console, store=rented.store, store_keys={}, region="",
        software=None, project=None, dataset=None, state=None, serial_console=None, pause=rented._pause, clock=clock,
        started=True, _job=Job(*happens),
    )  # fmt: skip
    if happens[0] is not None:
        assert rented.follow(run, seen, 240.0) is None
    reason, why = rented.follow(run, seen, 240.0)
    assert (reason, "AccessDenied" in why) == ("failed", True)


class Counting:
    """A store that counts what is asked of it."""

    def __init__(self, store):
        self.store, self.calls = store, 0

    def __getattr__(self, name):
        found = getattr(self.store, name)
        if not callable(found):
            return found

        def counted(*arguments, **options):
            self.calls += 1
            return found(*arguments, **options)

        return counted


class Distant:
    """A cloud whose instance trains for ever; it counts what EC2 is asked."""

    def __init__(self, clock, store, run):
        self.clock, self.store, self.run, self.calls = clock, store, run, 0

    def instances(self, run, attempts):
        self.calls += 1
        return (ObservedInstance("i-1", 1, "running"),)

    def leftovers(self, run, attempts):
        self.calls += 3
        return ()

    def follow(self, run, attempt, seconds):
        # The instance writes as often as it likes: those calls are its own.
        for _ in range(int(seconds) // 15):
            self.clock.now += 15
            beat = Heartbeat(
                run=run.id, attempt=1, time=self.clock.now, pid=1, host="h", boot_id="b", epochs_completed=1,
                epochs=3, state="training",
            )  # fmt: skip
            self.store.store.put(f"runs/{run.id}/attempts/1/heartbeat.json", beat.model_dump_json().encode())
            if int(self.clock.now) % 60 == 0:
                self.renew()


def test_an_hour_of_waiting_takes_fewer_than_200_calls(tmp_path):
    clock = Clock()
    store = Counting(open_store(f"file:{tmp_path}"))
    run = run_of(now=clock.now, deadline_at=clock.now + 86_400)
    journal = Journal(store)
    journal.begin(run)
    driver = Lease(clock=clock)
    journal.open_attempt(
        run.id, attempt_of(run).model_copy(update={"driver": driver.name, "expires_at": clock.now + 80_000})
    )
    journal.record_host(run.id, 1, HostRecord(
        instance_id="i-1", address="127.0.0.9", launched_at=clock.now, market="spot", zone="us-east-1a",
        region="us-east-1", volume_gib=60))  # fmt: skip
    far = Distant(clock, store, run)
    far.renew = lambda: driver.claim(store, run.id)
    far.follow(run, None, 15)
    drive = Controller(
        run,
        journal,
        driver,
        None,
        Console(io.StringIO()),
        SimpleNamespace(spent=lambda _run, _seen: 0.0),
        cloud=far,
        clock=clock,
        sleep=clock.sleep,
    )
    drive.once()
    store.calls = far.calls = 0
    began = clock.now
    while clock.now - began < 3600:
        drive.once()
    hours = (clock.now - began) / 3600
    assert (store.calls + far.calls) / hours < 200
