"""Commands that train on the simulated cloud over real SSH: one instance, one version, nothing left."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time

import pytest
from commands import OFFLOAD, offload, start, wait_until
from commands import run as command
from leak_case import train_project

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from recording_cloud import Recording

from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.backends import progress
from gpu_offload.orchestrator.plan.receipt import BASES
from gpu_offload.orchestrator.run.journal import Journal


@pytest.fixture
def cloud(monkeypatch, hurried):
    """A simulated cloud, and an environment that leads there."""
    with Recording() as simulated:
        for name, value in simulated.environment().items():
            monkeypatch.setenv(name, value)
        yield simulated


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
