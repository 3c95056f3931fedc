"""A training of one's own, through the same machinery."""

import json
import os
import sys
from pathlib import Path

import pytest
from remote_job_case import ROOT, make_spec, make_tree, run_module, stderr, stopping_at

from gpu_offload.dataset.task import Task
from gpu_offload.remote_job.entrypoint import EntrypointError, fault, load
from gpu_offload.remote_job.interruption import InterruptedTrainingError
from gpu_offload.remote_job.progress import read_events
from gpu_offload.remote_job.spec import SpecError
from gpu_offload.remote_job.train import train

EXAMPLE = ROOT / "examples" / "bring_your_own"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("own"), Task.CLASSIFY, images=36)


@pytest.fixture
def example(monkeypatch):
    monkeypatch.chdir(EXAMPLE)
    yield "softmax_regression:train"
    sys.modules.pop("softmax_regression", None)


def own(tree, output, **changes):
    values = {
        "entrypoint": "softmax_regression:train",
        "model": "softmax.yaml",
        "epochs": 4,
        "hyperparameters": {},
    }
    return make_spec(tree, output, **{**values, **changes})


def test_the_example_learns_and_yields_a_result(tree, tmp_path, example):
    lines = []
    result = train(own(tree, tmp_path, hyperparameters={"learning_rate": 0.3}), emit=lines.append)
    assert result.model.name == "model.json"
    assert json.loads((tmp_path / "result" / "model.json").read_text())["classes"] == [
        "circle",
        "square",
        "triangle",
    ]
    assert result.epochs_completed == 4
    losses = result.curves["cross_entropy"]
    assert losses[-1] < losses[0]
    assert 0 <= result.metrics["accuracy"] <= 1
    assert {json.loads(line)["event"] for line in lines} >= {
        "start",
        "batch",
        "epoch",
        "checkpoint",
        "finished",
    }


def test_interrupted_and_resumed_it_yields_the_same_model(tree, tmp_path, example, monkeypatch):
    whole = train(own(tree, tmp_path / "whole"))
    spec = own(tree, tmp_path / "parts")
    with (
        stopping_at(monkeypatch, 3, 2) as interruption,
        pytest.raises(InterruptedTrainingError, match="the test said so"),
    ):
        train(spec, interruption=interruption)
    parts = train(spec)
    assert parts.model.sha256 == whole.model.sha256
    epochs = [e.epoch for e in read_events(tmp_path / "parts" / "progress.jsonl") if e.event == "epoch"]
    assert epochs == [1, 2, 3, 4]


@pytest.mark.process
def test_no_torch_is_imported_for_it(tree, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{EXAMPLE}"}
    code, events = run_module(own(tree, tmp_path / "output", epochs=1), tmp_path, env=env)
    assert code == 0, stderr(tmp_path)
    assert events[-1]["event"] == "finished"


def test_a_module_that_is_missing_is_a_clear_failure(tree, tmp_path, example):
    with pytest.raises(EntrypointError, match="modules are looked for in"):
        train(own(tree, tmp_path, entrypoint="no_such_module:train"))
    beat = json.loads((tmp_path / "heartbeat.json").read_text())
    assert beat["state"] == "failed"
    assert "no_such_module" in beat["message"]


def test_a_function_that_is_missing_is_a_clear_failure(example):
    with pytest.raises(EntrypointError, match="has no function nothing"):
        load("softmax_regression:nothing")


def test_a_name_of_another_form_is_a_faulty_spec(tree, tmp_path):
    assert fault("package.module:function") is None
    with pytest.raises(SpecError, match=r"package\.module:function"):
        train(own(tree, tmp_path, entrypoint="os.system"))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("return None", "returned None without having been told to stop"),
        ("return 7", "returned int"),
        ("return Trained(model=context.output / 'none', metrics={})", "there is no model"),
    ],
)
def test_a_function_that_breaks_the_contract_is_told_so(tree, tmp_path, monkeypatch, body, complaint):
    name = f"own_training_{abs(hash(body))}"
    code = f"from gpu_offload.remote_job.entrypoint import Trained\n\ndef train(context):\n    {body}\n"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EntrypointError, match=complaint):
        train(own(tree, Path("output").absolute(), entrypoint=f"{name}:train"))
