"""A real training at full speed against the same training without any switch."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from remote_job_case import make_spec
from resources import needs

from gpu_offload.dataset import synthetic
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.tree import materialise
from gpu_offload.remote_job.machine import cores
from gpu_offload.remote_job.result import TrainingResult
from gpu_offload.remote_job.speed import capacity, plan
from gpu_offload.remote_job.yolo import isolation

pytestmark = needs("ultralytics")
ROOT = Path(__file__).parents[2]


@pytest.mark.training
def test_ultralytics_computes_in_no_more_threads_than_there_are_cores_for(monkeypatch, same_environment):
    """It counts the machine's cores, also where a container or a mask leaves two of sixteen."""
    import torch
    from ultralytics.utils import torch_utils

    before, all_there = torch.get_num_threads(), 4 * cores()
    monkeypatch.setattr(torch_utils, "NUM_THREADS", all_there)
    try:
        with isolation.offline():
            torch_utils.select_device("cpu", verbose=False)
            assert torch.get_num_threads() == cores()
    finally:
        torch.set_num_threads(before)
    assert all_there == torch_utils.NUM_THREADS


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One training with all switches, one with none: result and rows of results.csv by way."""
    folder = tmp_path_factory.mktemp("speed")
    synthetic.generate(folder / "flat", images=24, size=64)
    snapshot = read_snapshot(folder / "flat", task=Task.DETECT)
    tree = materialise(snapshot, folder / "tree")
    seen = {}
    for way, wishes in {"on": {}, "off": dict.fromkeys(plan.CHOICES, False)}.items():
        spec = make_spec(
            tree,
            folder / way,
            run=way,
            model="yolov8n.yaml",
            epochs=2,
            batch=8,
            hyperparameters={"plots": False, "close_mosaic": 1},
            speed=wishes,
        )
        path = folder / f"{way}.json"
        path.write_text(spec.model_dump_json())
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in {"GLIBC_TUNABLES", "OMP_NUM_THREADS"}
        }
        subprocess.run(
            [sys.executable, "-P", "-m", "gpu_offload.remote_job", str(path)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            timeout=300,
            check=True,
        )
        result = TrainingResult.model_validate_json((folder / way / "result" / "result.json").read_bytes())
        with (folder / way / "work" / "train" / "results.csv").open() as file:
            seen[way] = result, list(csv.DictReader(file)), folder / way / "result" / "model.pt"
    return seen


@pytest.mark.training
def test_the_losses_are_the_same_but_for_rounding(runs):
    for ours, plain in zip(runs["on"][1], runs["off"][1], strict=True):
        for name in ours:
            if "loss" in name:
                assert float(ours[name]) == pytest.approx(float(plain[name]), rel=0.02), name
            if name.startswith("lr/"):
                assert ours[name] == plain[name]


@pytest.mark.training
def test_the_result_says_which_switches_were_on_and_why(runs):
    on, off = runs["on"][0].speed, runs["off"][0].speed
    assert on.keys() == off.keys() == plan.CHOICES.keys()
    assert all(on[name]["on"] for name in ("threads", "channels_last", "fused_optimizer", "image_cache")), on
    multiplies = {"avx512_bf16", "amx_bf16"} & capacity.capacity().instruction_sets
    assert on["mixed_precision"]["on"] is bool(multiplies)
    assert on["trial"] == {"on": False, "reason": "the training has 6 steps, too few for a trial to pay"}
    assert all(switch == {"on": False, "reason": "turned off by hand"} for switch in off.values())
    json.dumps(on)


@pytest.mark.training
def test_the_published_model_is_in_the_usual_layout(runs):
    """Released versions of Ultralytics cannot fuse weights that lie channels last."""
    import torch

    model = torch.load(runs["on"][2], weights_only=False)["model"]
    assert all(value.is_contiguous() for value in model.state_dict().values())
