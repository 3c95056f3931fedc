"""`offload sweep` with real processes: on this CPU and on simulated instances."""

import json
import signal
from collections import Counter
from itertools import pairwise

import pytest
from commands import offload, run, start, wait_until
from sweep_case import sweep_project

from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.registry.alias import alias_of
from gpu_offload.orchestrator.run.journal import Journal

pytestmark = [pytest.mark.process]


def test_an_interrupted_sweep_carries_on_prunes_and_proposes_its_best(tmp_path, foreground):
    folder = sweep_project(tmp_path, held=3, sweep="trials = 3")
    command = ("sweep", "--on", "cpu", "--json")
    process = start(folder, *command)
    epochs = folder / "epochs.txt"
    # Three commands start one another, each with its imports: beside load that takes long.
    wait_until(
        lambda: epochs.exists() and len(epochs.read_text().splitlines()) == 2, seconds=240, process=process
    )
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 75, said
    assert "run the same command" in said
    assert "trial 1: epoch 1/" in said, "a trial shows how far it is"

    (folder / "gate").touch()
    done = json.loads(offload(folder, *command))
    assert [trial["state"] for trial in done["trials"]] == ["complete", "pruned", "pruned"]
    assert (done["status"], done["best"], done["metric"]) == ("complete", 1, "score")
    assert done["trials"][0]["scores"] == [{"seed": 0, "fold": None, "value": 0.54}]
    assert done["saved"]["seconds"] > 0
    assert max(Counter(epochs.read_text().split("\n")[:-1]).values()) == 1, "an epoch was trained twice"

    store = open_store(f"file:{folder / 'store'}")
    assert alias_of(store, "stable") is None
    assert alias_of(store, "candidate").version == done["candidate"] == done["trials"][0]["versions"][0]
    assert Journal(store).open_ids() == []

    again = json.loads(offload(folder, *command))
    assert again == done, "there was nothing to do"
    page = folder / "sweep.html"
    offload(folder, "report", done["sweep"], "-o", str(page))
    assert page.read_text().count("<polyline") == 3


@pytest.mark.training
def test_folds_give_an_interval_and_all_that_is_wrong_is_said_at_once(tmp_path):
    """With Ultralytics, whose model finds nothing after an epoch: below the floor, it is not proposed."""
    folder = sweep_project(tmp_path, epochs=1, sweep="")
    text = (folder / "offload.toml").read_text().replace('lr = "log 1e-4..1e-1"', "folds = 2")
    text = text.replace('entrypoint = "mine:main"', 'model = "yolov8n.yaml"\nimage-size = 32\nbatch = 6')
    (folder / "offload.toml").write_text(text)
    done = json.loads(offload(folder, "sweep", "--on", "cpu", "--json"))
    [trial] = done["trials"]
    assert done["metric"] == "map50_95"
    assert {(s["seed"], s["fold"]) for s in trial["scores"]} == {(0, 1), (0, 2)}
    assert trial["score"]["low"] <= trial["score"]["mean"] <= trial["score"]["high"]
    assert len(set(trial["versions"])) == 2
    assert trial["score"]["mean"] < 0.001
    assert done["candidate"] is None

    code, _, said = run(folder, "sweep", "--set", "sweep.epochs=0..3", "--set", "sweep.batch=[0, 4]")
    assert code == 2
    assert "sweep.epochs" in said
    assert "sweep.batch" in said
    models = 'sweep.model=["yolov8n.yaml", "yolov8zz.yaml", "yolov8n-seg.yaml"]'
    code, _, said = run(folder, "sweep", "--plan", "--set", models)
    assert code == 2
    assert "sweep.model, 'yolov8zz.yaml'" in said
    assert "sweep.model, 'yolov8n-seg.yaml'" in said
    assert run(folder, "sweep", "--set", "sweep.trails=3")[0] == 2
    assert run(folder, "report", "sweep-000000000000")[0] == 1


@pytest.mark.simulator
def test_instances_survive_a_small_budget_a_reclaim_and_an_interruption(tmp_path, foreground, monkeypatch):
    """Nothing is trained twice, the trials' costs are the bill, and nothing is left, also while it is interrupted."""
    pytest.importorskip("moto", reason="the extra [simulator] is not installed")
    from chaos_processes import lives_of
    from sweep_judge import sweep_faults

    from gpu_offload.infra.simulator.behaviour import Behaviour
    from gpu_offload.infra.simulator.cloud import SimulatedCloud

    folder = sweep_project(
        tmp_path, pace=0.3, epochs=6, store="s3://gpu-offload/sweep", sweep="trials = 2\nprune = false"
    )
    command = ("sweep", "--on", "ec2", "--parallel", "2", "--json")
    with SimulatedCloud(Behaviour(vanish_seconds=3600.0)) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        refused = json.loads(offload(folder, *command, "--budget-usd", "0.001", code=1))
        assert "budget" in refused["error"]["message"]
        assert lives_of(cloud) == {}
        cloud.inject("instance:reclaim:no-notice:after=epoch=2")
        process = start(folder, *command)
        wait_until(lambda: any(taken for _, _, taken in lives_of(cloud).values()), process=process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 75, said
        cloud.settle()
        assert not cloud.leftovers().costs_money
        report = json.loads(offload(folder, *command))
        cloud.settle()
        assert not cloud.leftovers()
        assert [trial["state"] for trial in report["trials"]] == ["complete", "complete"]
        lives = lives_of(cloud)
        store = open_store("s3://gpu-offload/sweep")
        assert sweep_faults(store, report, trainings=2, epochs=6, lives=lives, lost=3) == []
        assert report["cost_usd"] > 0
        spans = sorted((began, ended) for began, ended, _ in lives.values())
        assert any(later < ended for (_, ended), (later, _) in pairwise(spans)), "no two trained at once"
