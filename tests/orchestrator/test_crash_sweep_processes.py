"""A sample of the crash sweep with real processes: `offload train` on the simulated cloud, killed at chosen calls."""

import json
import signal

import pytest

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from commands import offload, start
from killing_cloud import Killing
from leak_case import STORE, train_project

from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.run import liveness
from gpu_offload.orchestrator.run.accounting import COST
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import run_key


@pytest.fixture
def cloud(monkeypatch, hurried):
    with Killing() as simulated:
        for name, value in simulated.environment().items():
            monkeypatch.setenv(name, value)
        yield simulated


@pytest.mark.parametrize(
    ("operation", "key", "after", "instances"),
    [
        ("RunInstances", "", False, 1),
        ("RunInstances", "", True, 2),
        ("PutObject", "collected.json", False, 1),
        ("TerminateInstances", "", True, 1),
        ("PutObject", "manifest.json", True, 1),
    ],
)
def test_a_killed_command_is_carried_on_by_the_next(
    cloud, tmp_path, monkeypatch, operation, key, after, instances
):
    """One version, one instance more at most, everything accounted for, and nothing left."""
    # The model world waits the five minutes in which EC2 may show a launch late; this cloud shows it at once.
    monkeypatch.setattr(liveness, "VISIBLE_S", 3.0)
    train_project(tmp_path)
    cloud.point, cloud.done_first = (operation, key), after
    process = cloud.victim = start(tmp_path, "train", "--on", "ec2", "--json")
    process.communicate(timeout=120)
    assert cloud.happened, "the call never came"
    assert process.returncode == -signal.SIGKILL
    report = json.loads(offload(tmp_path, "train", "--on", "ec2", "--json"))
    assert report["status"] in {"trained", "already_trained"}
    store = open_store(STORE)
    assert [e.version for e in publish.versions(store)] == [report["version"]]
    if report["status"] == "already_trained":
        # It was published before the kill: this run only has to be closed.
        offload(tmp_path, "tend")
    journal = Journal(store)
    outcome = journal.outcome(report["run"])
    assert outcome is not None
    assert outcome.status == "published"
    attempts = journal.attempts(report["run"])
    assert all(a.end is not None for a in attempts)
    assert len({a.host.instance_id for a in attempts if a.host}) <= instances
    assert store.stat(run_key(report["run"], COST)) is not None
    cloud.settle()
    assert not cloud.leftovers()
