"""`--on ray`: real clusters of one and two nodes on this machine, of which one is cut off in the middle of a training."""

import json
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter

import pytest
from clone_case import own_training
from commands import offload, run, start, wait_until
from ray_case import Nodes, processes_of

from gpu_offload.dataset.synthetic import generate
from gpu_offload.infra.instance.wheel import pack_wheel
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.backends import ray_worker
from gpu_offload.orchestrator.backends.ray_client import answer_faults
from gpu_offload.orchestrator.backends.ray_cluster import RayNode, connection_fault, needs_of, placement_fault
from gpu_offload.orchestrator.offers import ray as ray_offers
from gpu_offload.orchestrator.offers.ray import RayFacts, offer_of
from gpu_offload.orchestrator.output.units import human_cost
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.settings.sections import RaySettings
from gpu_offload.remote_job.spec import StoreRef

pytestmark = [pytest.mark.process]

TRAINING = """
import time
from pathlib import Path

from gpu_offload.remote_job.entrypoint import Trained

HERE = Path(FOLDER)


def main(context):
    quality = context.spec.hyperparameters["quality"]
    model = context.output / "model.txt"
    for epoch in range(context.epochs_completed + 1, context.spec.epochs + 1):
        while epoch == 3 and not (HERE / "gate").exists():
            if context.interrupted():
                return None
            time.sleep(0.02)
        with (HERE / "epochs.txt").open("a") as file:
            file.write(f"{context.spec.training_key} {epoch}\\n")
        model.write_text(str(epoch))
        context.epoch(epoch, metrics={"score": quality * epoch})
        context.checkpoint(model, epochs_completed=epoch)
    return Trained(model, {"score": quality * context.spec.epochs})
"""
"""Waits before its third epoch for the file `gate`."""


@pytest.fixture
def nodes():
    """Start clusters; end them, and see that they left no process."""
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    found = []

    def begin(count, service=""):
        found.append(Nodes(count, service))
        return found[-1]

    yield begin
    for one in found:
        one.end()
    left = [line for one in found for line in processes_of(one)]
    for one in found:
        shutil.rmtree(one.folder)
    assert not left


def project(folder, *, sweep=""):
    generate(folder / "shapes", images=12, size=64)
    (folder / "mine.py").write_text(f"FOLDER = {str(folder)!r}\n" + TRAINING)
    training = 'license = "MIT"\nhyperparameters = {quality = 1.0}\n'
    text = own_training(4, training, f'[store]\nurl = "file:store"\n{sweep}\n')
    (folder / "offload.toml").write_text(text)
    return folder


def free_port():
    with socket.create_server(("127.0.0.2", 0)) as server:
        return server.getsockname()[1]


def kept(store):
    """Return how many epochs of each run are in the store."""
    journal = Journal(store)
    found = {name: journal.checkpoint(name) for name in journal.run_ids()}
    return {name: one.epochs_completed for name, one in found.items() if one}


def heard(journal, name):
    return [attempt.record.number for attempt in journal.attempts(name) if attempt.heartbeat]


def trained_twice(folder):
    return [
        line for line, times in Counter((folder / "epochs.txt").read_text().splitlines()).items() if times > 1
    ]


def test_a_training_survives_ctrl_c_and_the_end_of_its_cluster(nodes, tmp_path, foreground, monkeypatch):
    """Each time the same command carries on after the last epoch, at last by the Jobs API of another cluster."""
    cluster, folder = nodes(1), project(tmp_path)
    store = open_store(f"file:{folder / 'store'}")
    command = ("train", "--on", "ray", "--set", f"ray.address={cluster.address}")
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    code, _, said = run(
        folder, *command, "--set", "ray.resources={trainer=1}", "--set", "ray.memory-gib=4000"
    )
    assert code == 1
    assert "no node" in said
    assert "trainer" in said
    assert Journal(store).open_ids() == [], "nothing was started"

    process = start(folder, *command, environment=cluster.environment)
    wait_until(lambda: list(kept(store).values()) == [2], process=process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "2 of 4 epochs are kept" in said

    process = start(folder, *command, environment=cluster.environment)
    journal = Journal(store)
    [name] = journal.open_ids()
    wait_until(lambda: heard(journal, name) == [1, 2], process=process)
    cluster.end()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "run the same command" in said.lower()
    assert Journal(store).open_ids() == [name]

    (folder / "gate").touch()
    port = free_port()
    another = nodes(1, f"dashboard_port={port}")
    address = f"ray.address=http://127.0.0.2:{port}"
    done = json.loads(offload(folder, "train", "--json", "--on", "ray", "--set", address))
    assert (done["status"], done["where"], done["metrics"]["score"]) == ("trained", "ray", 4.0)
    assert not trained_twice(folder)
    ends = [attempt.end.reason for attempt in journal.attempts(name)]
    assert (ends[0], ends[-1]) == ("stopped", "finished")
    assert not list(another.folder.glob("gpu-offload-ray-*/*")), "files of a training are left on its node"


def test_a_sweep_goes_on_where_a_node_dies(nodes, tmp_path):
    """The training of the dead node resumes on the other one; ranking and scores are those of the values."""
    cluster = nodes(2)
    folder = project(tmp_path, sweep="[sweep]\nquality = [0.3, 0.9, 0.6]\nparallel = 2\nprune = false\n")
    store = open_store(f"file:{folder / 'store'}")
    arguments = ("--on", "ray", "--json", "--set", f"ray.address={cluster.address}")
    process = start(folder, "sweep", *arguments, environment=cluster.environment)
    wait_until(lambda: list(kept(store).values()) == [2, 2], process=process)
    cluster.cut_one_off()
    (folder / "gate").touch()
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    done = json.loads(out)
    scores = {trial["values"]["quality"]: trial["scores"][0]["value"] for trial in done["trials"]}
    assert scores == pytest.approx({0.3: 1.2, 0.6: 2.4, 0.9: 3.6})
    assert done["trials"][done["best"] - 1]["values"] == {"quality": 0.9}
    journal = Journal(store)
    ends = [[a.end.reason for a in journal.attempts(name)] for name in journal.run_ids()]
    assert sorted(ends, key=len) == [["finished"], ["finished"], ["reclaimed", "finished"]]
    assert not trained_twice(folder)
    assert journal.open_ids() == []


def test_what_a_node_lacks_is_found_before_a_training(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "store").mkdir()
    store = StoreRef(url=f"file:{tmp_path / 'store'}")
    given = {
        "modules": ["json", "no_such_module"],
        "store": store.model_dump(),
        "key": "runs/a/b",
        "body": "1",
    }
    answer = ray_worker.check(pack_wheel("1").body, given, {})
    missing, unread = answer_faults(answer, store)
    assert "no_such_module" in missing
    assert "json" not in missing.partition(":")[0]
    assert "every node" in unread
    assert "role" in answer_faults({"store": "AccessDenied"}, StoreRef(url="s3://bucket"))[0]


def test_a_training_that_must_be_isolated_is_refused(tmp_path):
    code, _, said = run(project(tmp_path), "plan", "--on", "ray", "--set", "training.isolation=required")
    assert code == 1
    assert "isolates nothing" in said


def test_what_a_cluster_costs_is_not_called_free():
    assert human_cost(0.0, "ray, g4dn.xlarge") == human_cost(0.0, "the Ray cluster") == "not counted"
    assert human_cost(0.0, "cpu") == "free"
    assert human_cost(1.5, "ray") == "$1.50"


def test_the_process_that_asks_a_cluster_has_no_token_of_a_workflow(tmp_path, monkeypatch):
    """What a node answers is a pickle: a hostile one runs code there."""
    for name in (
        "GITHUB_TOKEN",
        "GH_TOKEN",
        "ACTIONS_RUNTIME_TOKEN",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "AWS_TOKEN",
    ):
        monkeypatch.setenv(name, "secret")
    look = "import json, os; print(json.dumps({'faults': [n for n in os.environ if 'TOKEN' in n]}))"
    monkeypatch.setattr(ray_offers, "CLIENT", (sys.executable, "-c", look))
    assert ray_offers.ray_offer(RaySettings(), StoreRef(url=f"file:{tmp_path}"), (), tmp_path / "kept")
    with pytest.raises(ray_offers.RayError) as told:
        ray_offers.ray_offer(RaySettings(), StoreRef(url="s3://bucket"), (), tmp_path / "kept")
    assert "AWS_TOKEN" in str(told.value)
    assert "GITHUB_TOKEN" not in str(told.value)


def test_a_training_asks_for_what_a_node_can_have():
    cpu = RayNode("a", "10.0.0.1", {"CPU": 4, "memory": 8 * 2**30})
    gpu = RayNode("b", "10.0.0.2", {"CPU": 8, "GPU": 1, "memory": 2**35, "accelerator_type:A10G": 1})
    assert needs_of(RaySettings(), [cpu]) == {"CPU": 1}
    assert needs_of(RaySettings(), [cpu, gpu]) == {"CPU": 1, "GPU": 1}
    quarter = RaySettings(gpus=0.25, memory_gib=2, resources={"trainer": 1})
    assert needs_of(quarter, [cpu]) == {"CPU": 1, "GPU": 0.25, "memory": 2**31, "trainer": 1}
    assert placement_fault([cpu, gpu], {"CPU": 8, "GPU": 0.25}) is None
    assert "4 CPU, 0 GPU" in placement_fault([cpu], {"CPU": 1, "GPU": 1})
    assert "2.0 GiB" in placement_fault([cpu], {"CPU": 9, "memory": 2**31})
    assert placement_fault([], {"CPU": 1})
    offer = offer_of(RayFacts(cpus=2, gpus=0.5, gpu="A10G", memory_gib=31.96))
    assert (offer.gpu.name, offer.vcpus, offer.usd_per_hour) == ("NVIDIA A10G", 2, 0.0)
    assert offer_of(RayFacts(cpus=0.5)).gpu is None


def test_a_cluster_that_cannot_be_reached_is_explained():
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    from ray._private.utils import check_version_info

    with pytest.raises(RuntimeError) as differs:
        check_version_info(
            {"ray_version": "1.0.0", "python_version": "3.8.0"}, "this process", raise_on_mismatch=True
        )
    said = connection_fault(differs.value, "ray://head:10001")
    assert f"other versions than this machine (Ray {ray.__version__}" in said
    assert "1.0.0" in said
    assert "ray start" in connection_fault(ConnectionError("no cluster"), "auto")
    assert "ray://HOST:10001" in connection_fault(OSError("refused"), "head:6379")
