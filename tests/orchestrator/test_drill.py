"""The drill makes faults happen with real processes; its report names what was leaked and lost, and is green only without either."""

import json

import pytest

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from commands import offload
from leak_case import STORE, train_project

from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.drill import real_account
from gpu_offload.orchestrator.drill.command import DrillError
from gpu_offload.orchestrator.drill.faults import FAULTS
from gpu_offload.orchestrator.drill.project import DrillPace
from gpu_offload.orchestrator.drill.suite import DrillReport, Survived, drill
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.settings.load import load_settings

PROMISED = {
    "cancel-while-launching",
    "cancel-while-starting",
    "cancel-while-training",
    "cancel-while-publishing",
    "reclaim-with-notice",
    "reclaim-without-notice",
    "no-capacity",
    "dead-ssh",
    "expired-token",
    "full-disk",
    "store-unreachable",
    "lost-launch-reply",
}

GOOD = Survived("lost-launch-reply", "the same instance finished it", True, 9.1234, 0)
LEAKED = Survived("runner-killed", "an instance was left", False, 1.0, 0, leaked=2)
LOST = Survived("full-disk", "no whole model is published", False, 1.0, 3, lost=1)


def test_every_fault_that_is_promised_to_be_survived_is_in_the_drill():
    assert {fault.name for fault in FAULTS} >= PROMISED
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_a_report_is_green_only_if_everything_was_survived():
    assert DrillReport((GOOD,)).green
    assert DrillReport((GOOD,)).text().endswith("\n0 leaked, 0 lost")
    bad = DrillReport((GOOD, LEAKED, LOST))
    assert not bad.green
    assert bad.text().endswith("\nRED: 2 leaked, 1 lost; not survived: runner-killed, full-disk")
    assert not DrillReport((Survived("dead-ssh", "?", False, 0.0, 0),)).green


def test_a_report_as_json_is_what_is_documented():
    assert DrillReport((GOOD, LEAKED)).json() == {
        "faults": [
            {"name": "lost-launch-reply", "outcome": "the same instance finished it", "recovered": True,
             "seconds": 9.12, "epochs_repeated": 0},
            {"name": "runner-killed", "outcome": "an instance was left", "recovered": False, "seconds": 1.0,
             "epochs_repeated": 0},
        ],
        "leaked": 2,
        "lost": 0,
    }  # fmt: skip


@pytest.mark.process
def test_an_unknown_fault_is_refused_with_a_list_of_the_known_ones(tmp_path):
    with pytest.raises(DrillError, match=r"no such fault: fire \(there are cancel-while-launching"):
        drill(["fire"])
    offload(tmp_path, "drill", "--only", "fire", code=2)


@pytest.mark.process
def test_a_drill_of_two_faults_is_green_and_its_json_is_alone_on_standard_output(tmp_path, hurried):
    out = offload(tmp_path, "drill", "--json", "--only", "runner-killed", "--only", "reclaim-without-notice")
    document = json.loads(out)
    assert [fault["name"] for fault in document["faults"]] == ["runner-killed", "reclaim-without-notice"]
    assert all(fault["recovered"] for fault in document["faults"]), document
    assert all(fault["epochs_repeated"] <= 1 for fault in document["faults"])
    assert (document["leaked"], document["lost"]) == (0, 0)
    assert list(tmp_path.iterdir()) == [], "a drill leaves nothing where it was started"


@pytest.mark.process
def test_a_drill_on_an_account_needs_a_limit_and_a_store_of_its_own(tmp_path):
    """Without them nothing is asked of the account, let alone rented."""
    train_project(tmp_path)
    offload(tmp_path, "drill", "--on-my-account", "--store", "s3://other/drill", code=2)
    offload(tmp_path, "drill", "--on-my-account", "--max-cost-usd", "1", code=2)
    offload(
        tmp_path, "drill", "--on-my-account", "--max-cost-usd", "0", "--store", "s3://other/drill", code=2
    )
    offload(tmp_path, "drill", "--max-cost-usd", "1", code=2)
    offload(tmp_path, "drill", "--on-my-account", "--max-cost-usd", "1", "--store", STORE, code=2)
    assert real_account.smallest(("g6e.xlarge", "g4dn.xlarge", "p9.huge")) == "g4dn.xlarge"


@pytest.fixture
def cloud(monkeypatch, hurried):
    """A simulated account, and this process inside it."""
    with SimulatedCloud() as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        cloud.client("s3").create_bucket(Bucket="drill")
        yield cloud


def test_a_drill_on_an_account_rents_within_its_limit_and_leaves_nothing(cloud, tmp_path, monkeypatch):
    """The account is a simulated one here; the drill knows of it only what EC2 describes."""
    train_project(tmp_path)
    monkeypatch.setattr(real_account, "PACE", DrillPace(epochs=2, seconds=0.2))
    settings = load_settings(tmp_path, environment={})
    report = real_account.drill_on_account(settings, "s3://drill", 0.4, wanted=["cancel-while-starting"])
    assert report.green, report.text()
    assert report.faults[0].outcome == "all terminated; the same command carried on and published"
    assert not cloud.leftovers()
    runs = Journal(open_store("s3://drill", endpoint_url=cloud.url))
    assert [runs.run(name).max_cost_usd for name in runs.run_ids()] == [0.4]
    assert {a.record.offer.instance_type for a in runs.attempts(next(runs.run_ids()))} == {"g4dn.xlarge"}
