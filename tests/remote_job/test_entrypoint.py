"""A training of one's own, through the same machinery."""

import json
import os
import sys
from pathlib import Path

import pytest
from remote_job_case import ROOT, make_spec, make_tree, read_events, run_module, stderr, stopping_at

from gpu_offload.dataset.task import Task
from gpu_offload.remote_job.entrypoint import EntrypointError, fault
from gpu_offload.remote_job.interruption import InterruptedTrainingError, Interruption
from gpu_offload.remote_job.result import TrainingResult
from gpu_offload.remote_job.spec import SpecError
from gpu_offload.remote_job.train import train
from gpu_offload.remote_job.yolo.overrides import overrides

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
    assert parts.curves == whole.curves, "those before the interruption are not lost"


def test_a_metric_that_is_no_number_spoils_neither_checkpoint_nor_result(tree, tmp_path):
    body = (
        "(context.output / 'state').write_bytes(b's')\n"
        "    for epoch in range(context.epochs_completed + 1, 5):\n"
        "        context.epoch(epoch, metrics={'f1': epoch / 8, 'loss': float('nan') if epoch == 2 else 1.0})\n"
        "        context.checkpoint(context.output / 'state', epochs_completed=epoch)\n"
        f"    {RETURN})"
    )
    result = train(with_code(tree, tmp_path, body))
    assert TrainingResult.model_validate_json(result.model_dump_json()).curves == {
        "f1": (0.125, 0.25, 0.375, 0.5)
    }


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


def test_a_function_that_is_missing_is_a_clear_failure(tree, tmp_path, example):
    with pytest.raises(EntrypointError, match="has no function nothing"):
        train(own(tree, tmp_path, entrypoint="softmax_regression:nothing"))


def test_a_name_of_another_form_is_a_faulty_spec(tree, tmp_path):
    assert fault("package.module:function") is None
    with pytest.raises(SpecError, match=r"package\.module:function"):
        train(own(tree, tmp_path, entrypoint="os.system"))


RETURN = "return Trained(model=write(context), metrics={'f1': 0.5}"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("return None", "returned None without having been asked to stop"),
        ("return 7", "returned int"),
        ("return Trained(model=context.output / 'none', metrics={})", "there is no model"),
        (f"{RETURN})", r"mine\.py:\d+ \(train\) returned after 0 of 4 epochs: call context\.epoch"),
        (f"context.epoch(1, metrics={{}}); {RETURN})", "returned after 1 of 4 epochs"),
        ("context.epoch(5, metrics={})", r"mine\.py:\d+: context\.epoch\(5\) of 4"),
        ("context.epoch(1, metrics={'n' * 300: 1.0})", r"mine\.py:\d+: context\.epoch\(1\): .* 300 letters"),
        ("context.epoch(1, metrics={'': 1.0})", "has no name"),
        ("raise SystemExit(0)", r"left by sys\.exit\(0\)"),
        (f"{RETURN}, stopped_early=True, extras=(context.output / 'gone.csv',))", "extras names"),
        (
            f"own = write(context).rename('model.joblib'); {RETURN}, stopped_early=True, extras=(own,))",
            r"extras names model\.joblib",
        ),
        (f"{RETURN}, stopped_early=True, extras=[write(context)] * 2)", r"extras names any\.joblib"),
        ("return Trained(model=write(context), metrics={'f1': 'high'})", "numbers by name"),
        ("return Trained(model=write(context), metrics={1: 0.5})", "numbers by name"),
        ("return Trained(model=None, metrics={})", "must be paths"),
        ("open('words.txt')", "training.include"),
    ],
)
def test_a_function_that_breaks_the_contract_gets_an_error_that_says_how(tree, tmp_path, body, complaint):
    with pytest.raises(EntrypointError, match=complaint):
        train(with_code(tree, tmp_path, body))


def test_a_training_that_stops_early_is_complete_and_says_after_how_many_epochs(tree, tmp_path):
    body = (
        "context.epoch(2, metrics={'f1': 0.5}); "
        "return Trained(model=str(write(context)), metrics={'f1': 0.5}, stopped_early=True)"
    )
    result = train(with_code(tree, tmp_path, body))
    assert (result.epochs_completed, result.stopped_early) == (2, True)
    assert result.model.name == "model.joblib"
    assert result.metrics == {"f1": 0.5}


def test_a_function_may_exit_when_it_is_asked_to_stop(tree, tmp_path):
    spec = with_code(tree, tmp_path, "import signal; signal.raise_signal(2); raise SystemExit(1)")
    with pytest.raises(InterruptedTrainingError):
        train(spec, interruption=Interruption())


@pytest.mark.process
def test_a_project_with_modules_named_like_ours_imports_its_own_also_at_the_end(tree, tmp_path):
    """Runner and instance both train from a shipped project, which is not the working directory."""
    files = {
        "dataset/__init__.py": "from .loader import NAME",
        "dataset/loader.py": "NAME = 'own dataset'",
        "infra.py": "NAME = 'own infra'",
        "orchestrator/__init__.py": "NAME = 'own orchestrator'",
        "random_words.txt": "words",
    }
    body = (
        "import dataset; names = [dataset.NAME]; context.epoch(1, metrics={}); import infra, orchestrator; "
        "names += [infra.NAME, orchestrator.NAME, open('random_words.txt').read()]; "
        f"open('scratch.txt', 'w').write(','.join(names)); {RETURN}, stopped_early=True, "
        "extras=(Path('scratch.txt'),))"
    )
    spec = with_code(tree, tmp_path, body, **files)
    code, events = run_module(spec, tmp_path, cwd=tmp_path)
    assert code == 0, stderr(tmp_path)
    assert events[-1]["event"] == "finished"
    said = (tmp_path / "output" / "result" / "scratch.txt").read_text()
    assert said == "own dataset,own infra,own orchestrator,words"
    assert not (Path(spec.project) / "scratch.txt").exists(), "what was shipped stays as it was"


@pytest.mark.training
def test_a_device_that_this_machine_lacks_is_refused_before_anything_is_trained(tmp_path_factory, tmp_path):
    detect = make_tree(tmp_path_factory.mktemp("detect"), images=8)
    with pytest.raises(SpecError, match="device: cuda:7 is asked for"):
        train(make_spec(detect, tmp_path, device="cuda:7"))


@pytest.mark.parametrize(
    ("device", "argument"), [("cpu", "cpu"), ("cuda", "0"), ("cuda:1", "1"), ("3", "3"), ("mps", "mps")]
)
def test_a_device_reaches_ultralytics(tree, tmp_path, device, argument):
    spec = make_spec(tree, tmp_path, device=device)
    given = overrides(spec, data=tree, model="m.yaml", weights=None, folder=tmp_path / "x")
    assert given["device"] == argument
    auto = overrides(
        make_spec(tree, tmp_path), data=tree, model="m.yaml", weights=None, folder=tmp_path / "x"
    )
    assert "device" not in auto


def with_code(tree, folder, body, **files):
    """Return the spec of a shipped project with this training function."""
    code = (
        "from pathlib import Path\nfrom gpu_offload.remote_job.entrypoint import Trained\n\n"
        "def write(context):\n    path = context.output / 'any.joblib'\n    path.write_text('x')\n    return path\n\n"
        f"def train(context):\n    {body}\n"
    )
    for name, text in {"mine.py": code, **files}.items():
        path = folder / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("mine", "dataset", "infra", "orchestrator"):
        sys.modules.pop(name, None)
    return own(tree, folder / "output", entrypoint="mine:train", project=str(folder / "project"))
