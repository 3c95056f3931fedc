"""Real, small trainings on a GPU; skipped where there is none.

python -m pytest tests/remote_job/test_gpu.py
"""

import hashlib
import json
import signal
import subprocess
import sys

import pytest
from remote_job_case import (
    MODELS,
    PATIENCE_S,
    ROOT,
    make_spec,
    make_tree,
    module,
    read_events,
    run_module,
    stderr,
    wait_for,
)

from gpu_offload.errors import EXIT_RESUMABLE
from gpu_offload.remote_job import machine
from gpu_offload.remote_job.result import TrainingResult
from gpu_offload.remote_job.spec import Weights

pytestmark = [
    pytest.mark.training,
    pytest.mark.process,
    pytest.mark.skipif(machine.driver() is None, reason="no NVIDIA GPU is here"),
]

LIMITED = """
import sys, torch
torch.cuda.set_per_process_memory_fraction(float(sys.argv.pop(1)))
from gpu_offload.remote_job.__main__ import main
sys.exit(main())
"""
"""The module, on a GPU of which it gets so small a part."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("gpu"), images=24)


def done(folder):
    """Return the result of a training that ended well."""
    path = folder / "output" / "result" / "result.json"
    assert path.exists(), stderr(folder)[-3000:]
    return TrainingResult.model_validate_json(path.read_bytes())


def limited(spec, folder, fraction):
    """Run the module on a part of the GPU's memory; return its exit code."""
    (folder / "spec.json").write_text(spec.model_dump_json())
    command = [sys.executable, "-P", "-c", LIMITED, str(fraction), str(folder / "spec.json")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_S, check=False)
    (folder / "stderr.txt").write_text(ended.stderr)
    return ended.returncode


@pytest.mark.parametrize("task", list(MODELS), ids=str)
def test_every_task_trains_in_mixed_precision_and_is_exported(task, tmp_path):
    spec = make_spec(
        make_tree(tmp_path, task, images=24), tmp_path / "output",
        hyperparameters={"plots": True, "close_mosaic": 1}, exports=("onnx", "safetensors"), exports_required=True,
    )  # fmt: skip
    code, events = run_module(spec, tmp_path)
    assert code == 0, stderr(tmp_path)[-3000:]
    result = done(tmp_path)
    assert result.environment["gpu"]
    assert {export.format for export in result.exports} == {"onnx", "safetensors"}, result.failed_exports
    assert result.speed["mixed_precision"]["on"] is False, "that switch is of a CPU"
    assert "AMP: offline check passed" in (tmp_path / "output" / "log.txt").read_text()
    assert any(event["event"] == "epoch" and event["pace"]["validation"] > 0 for event in events)


@pytest.mark.parametrize("changes", [{"amp": False}, {"amp": "bf16"}, {"optimizer": "MuSGD"}, {"rect": True},
                                     {"multi_scale": 0.5}, {"freeze": 10}, {"cache": "ram"}, {"workers": 0},
                                     {"compile": False, "cos_lr": True, "patience": 1}], ids=str)  # fmt: skip
def test_a_hyperparameter_trains_on_a_gpu(tree, tmp_path, changes):
    spec = make_spec(tree, tmp_path / "output", hyperparameters={"plots": False, **changes})
    code, _ = run_module(spec, tmp_path)
    assert code == 0, stderr(tmp_path)[-3000:]
    assert done(tmp_path).epochs_completed >= 1


@pytest.mark.parametrize(("first", "second"), [("cuda", "cuda"), ("cpu", "cuda"), ("cuda", "cpu")])
def test_a_training_that_is_killed_goes_on_on_either_device(tree, tmp_path, first, second):
    store = tmp_path / "store"
    spec = make_spec(tree, tmp_path / "output", epochs=4, device=first, store=store)
    with module(spec, tmp_path) as process:
        wait_for(process, lambda event: event["event"] == "batch" and event["epoch"] == 3)
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = spec.model_copy(update={"device": second, "attempt": 2})
    code, _ = run_module(again, tmp_path)
    assert code == 0, stderr(tmp_path)[-3000:]
    result = done(tmp_path)
    assert result.epochs_completed == 4
    assert len(result.timings.epoch_train) == 4
    assert "Resuming after" in (tmp_path / "output" / "log.txt").read_text()


def test_a_training_that_is_stopped_in_an_epoch_goes_on_there(tree, tmp_path):
    spec = make_spec(tree, tmp_path / "output", epochs=4, batch=2)
    with module(spec, tmp_path) as process:
        wait_for(process, lambda event: event["event"] == "batch" and event["epoch"] == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == EXIT_RESUMABLE, stderr(tmp_path)[-3000:]
    assert run_module(spec.model_copy(update={"attempt": 2}), tmp_path)[0] == 0, stderr(tmp_path)[-3000:]
    assert done(tmp_path).epochs_completed == 4


def test_a_batch_that_is_too_large_is_halved_and_the_training_says_so(tree, tmp_path):
    spec = make_spec(tree, tmp_path / "output", model="yolov8m.yaml", image_size=640, batch=16, epochs=2)
    assert limited(spec, tmp_path, 0.02) == 0, stderr(tmp_path)[-3000:]
    assert done(tmp_path).epochs_completed == 2
    assert "Reducing to batch" in (tmp_path / "output" / "log.txt").read_text()


def test_a_training_that_no_batch_makes_fit_fails_with_a_remedy(tree, tmp_path):
    spec = make_spec(tree, tmp_path / "output", model="yolov8x.yaml", image_size=640, batch=16)
    assert limited(spec, tmp_path, 0.016) == 1
    failed = list(read_events(tmp_path / "output" / "progress.jsonl"))[-1]
    assert failed.event == "failed"
    assert "training.batch" in (failed.message or ""), failed.message
    assert "Traceback" not in (tmp_path / "output" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("device", "gpu"), [("cuda", True), ("cuda:0", True), ("0", True), ("auto", True), ("cpu", False)]
)
def test_a_training_computes_where_the_setting_says(tree, tmp_path, device, gpu):
    code, _ = run_module(make_spec(tree, tmp_path / "output", device=device, epochs=1), tmp_path)
    assert code == 0, stderr(tmp_path)[-3000:]
    beat = json.loads((tmp_path / "output" / "heartbeat.json").read_text())
    assert beat["device"].startswith("cuda") is gpu


def test_a_gpu_that_is_not_there_is_refused(tree, tmp_path):
    code, _ = run_module(make_spec(tree, tmp_path / "output", device="cuda:9"), tmp_path)
    assert code == 2
    assert "cuda:9" in stderr(tmp_path)


def test_a_trained_model_starts_the_next_training(tree, tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    assert run_module(make_spec(tree, first / "output", epochs=1), first)[0] == 0, stderr(first)[-3000:]
    path = first / "output" / "result" / "model.pt"
    weights = Weights(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), path=str(path))
    code, _ = run_module(make_spec(tree, tmp_path / "output", epochs=1, weights=weights), tmp_path)
    assert code == 0, stderr(tmp_path)[-3000:]
    assert "Transferred" in (tmp_path / "output" / "log.txt").read_text()
    compared = tmp_path / "compared.json"
    command = [sys.executable, "-m", "gpu_offload.remote_job.yolo.evaluation", path,
               tmp_path / "output" / "result" / "model.pt", tree, "map50", "64", "4", compared]  # fmt: skip
    ended = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert json.loads(compared.read_text())["images"] > 0


def test_the_device_is_checked_and_the_first_steps_are_measured(tree, tmp_path):
    command = [sys.executable, "-P", "-m", "gpu_offload.remote_job"]
    told = subprocess.run(
        [*command, "--device-check"], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert json.loads(told.stdout)["ok"] is True, told.stdout
    (tmp_path / "spec.json").write_text(make_spec(tree, tmp_path / "output", epochs=20).model_dump_json())
    measured = subprocess.run(
        [*command, "--calibrate", str(tmp_path / "spec.json")],
        capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr[-3000:]
    found = json.loads(measured.stdout)
    assert found["device"].startswith("cuda")
    assert found["pace"]["mosaic"]["batch"] > 0


OWN = """
import json
from pathlib import Path
import torch
from gpu_offload.remote_job.entrypoint import Trained

def train(context):
    weight = torch.zeros(3, device="cuda", requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for epoch in range(1, context.spec.epochs + 1):
        loss = ((weight - 1) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        context.epoch(epoch, metrics={"loss": float(loss)})
    path = context.output / "model.pt"
    torch.save(weight.detach().cpu(), path)
    return Trained(model=path, metrics={"loss": float(loss)})
"""


def test_own_code_uses_the_gpu(tree, tmp_path, own_module):
    code, events = run_module(own_module(OWN), tmp_path, cwd=tmp_path)
    assert code == 0, stderr(tmp_path)[-3000:]
    assert events[-1]["event"] == "finished"


@pytest.fixture
def own_module(tree, tmp_path):
    def make(text):
        (tmp_path / "own_training.py").write_text(text)
        return make_spec(
            tree, tmp_path / "output", entrypoint="own_training:train", model="own.yaml", hyperparameters={}
        )

    return make
