"""`offload sweep` with real processes: on this CPU and on simulated instances."""

import json
import signal
import subprocess
import sys
from collections import Counter

import pytest
from commands import OFFLOAD, offload, run, start, wait_until
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
    wait_until(lambda: epochs.exists() and len(epochs.read_text().splitlines()) == 2, process=process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "run the same command" in said

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


def test_folds_give_an_interval_and_all_that_is_wrong_is_said_at_once(tmp_path):
    folder = sweep_project(tmp_path, epochs=1, sweep="")
    text = (folder / "offload.toml").read_text().replace('lr = "log 1e-4..1e-1"', "folds = 2")
    (folder / "offload.toml").write_text(text)
    done = json.loads(offload(folder, "sweep", "--on", "cpu", "--json"))
    [trial] = done["trials"]
    assert {(s["seed"], s["fold"]) for s in trial["scores"]} == {(0, 1), (0, 2)}
    assert trial["score"]["low"] <= trial["score"]["mean"] <= trial["score"]["high"]
    assert len(set(trial["versions"])) == 2

    code, _, said = run(folder, "sweep", "--set", "sweep.epochs=0..3", "--set", "sweep.batch=[0, 4]")
    assert code == 2
    assert "sweep.epochs" in said
    assert "sweep.batch" in said
    assert run(folder, "sweep", "--set", "sweep.trails=3")[0] == 2
    assert run(folder, "report", "sweep-000000000000")[0] == 1


@pytest.mark.simulator
def test_instances_train_two_at_a_time_and_a_reclaimed_one_resumes(tmp_path):
    """The trials' costs are the bill, nothing is left, and a budget that buys nothing starts nothing."""
    pytest.importorskip("moto", reason="the extra [simulator] is not installed")
    folder = sweep_project(
        tmp_path, pace=0.3, epochs=6, store="s3://gpu-offload/sweep", sweep="trials = 2\nprune = false"
    )
    command = " ".join([*OFFLOAD, "sweep", "--on", "ec2", "--parallel", "2", "--json"])
    script = f"{command} --budget-usd 0.001; test $? = 1 || exit 9; {command} && {sys.executable} check.py"
    (folder / "check.py").write_text(CHECK)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gpu_offload.infra.simulator",
         "--fault", "instance:reclaim:no-notice:after=epoch=2", "--", "sh", "-c", script],
        cwd=folder, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "left: 0 instances, 0 volumes, 0 security groups, 0 schedules" in done.stderr
    assert "reclaimed" in done.stderr
    refused, report, bills = map(json.loads, _documents(done.stdout))
    assert "budget" in refused["error"]["message"]
    assert [trial["state"] for trial in report["trials"]] == ["complete", "complete"]
    assert report["cost_usd"] == pytest.approx(sum(bills["usd"]), abs=1e-6)
    assert report["cost_usd"] > 0
    assert sum(bills["attempts"]) == 3
    assert bills["together"], "the two never trained at the same time"


CHECK = """
import json

from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.run.accounting import read_bill
from gpu_offload.orchestrator.run.journal import Journal

store = open_store("s3://gpu-offload/sweep")
journal = Journal(store)
runs = list(journal.run_ids())
looks = [journal.read(run) for run in runs]
spans = [(look.attempts[0].record.created_at, look.outcome.at) for look in looks]
print(json.dumps({
    "usd": [float(read_bill(store, run).total) for run in runs],
    "attempts": [len(look.attempts) for look in looks],
    "together": max(begin for begin, _ in spans) < min(end for _, end in spans),
}))
"""


def _documents(text):
    """Split what several commands printed into JSON documents."""
    decoder, found, rest = json.JSONDecoder(), [], text.strip()
    while rest:
        _, end = decoder.raw_decode(rest)
        found.append(rest[:end])
        rest = rest[end:].strip()
    return found
