"""A small training to test with: a generated tree, a spec, and ways to run it."""

import contextlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.synthetic import generate
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.tree import materialise
from gpu_offload.dataset.tree_manifest import read_tree
from gpu_offload.remote_job.interruption import InterruptedTrainingError, Interruption
from gpu_offload.remote_job.progress import Progress, ProgressEvent
from gpu_offload.remote_job.result import CheckpointManifest, Heartbeat
from gpu_offload.remote_job.spec import DatasetRef, StoreRef, TrainingSpec

ROOT = Path(__file__).parent.parent
MODELS = {
    Task.DETECT: "yolov8n.yaml",
    Task.SEGMENT: "yolov8n-seg.yaml",
    Task.POSE: "yolov8n-pose.yaml",
    Task.CLASSIFY: "yolov8n-cls.yaml",
}
PATIENCE_S = 240


def make_tree(folder, task=Task.DETECT, images=20, classes=()):
    """Draw a dataset and lay out its training tree."""
    generate(folder / "raw", images=images, size=64, task=task)
    if classes:
        (folder / "raw" / "classes.txt").write_text("\n".join(classes) + "\n")
    return materialise(read_snapshot(folder / "raw", task=task), folder / "tree")


def small_model(folder, task):
    """Write a definition of YOLOv8n at half its width, a quarter of its weights; return its path."""
    if (found := find_spec("ultralytics")) is None:
        return MODELS[task]
    source = Path(found.origin).parent / "cfg/models/v8" / MODELS[task].replace("8n", "8")
    path = folder / MODELS[task]
    path.write_text(source.read_text().replace("n: [0.33, 0.25, 1024]", "n: [0.33, 0.125, 1024]"))
    return str(path)


def bare_spec(output, **changes):
    """Return a spec of three short epochs whose tree is nowhere."""
    values = {
        "run": "run-1", "attempt": 1, "training_key": "key-1", "task": Task.DETECT, "model": "yolov8n.yaml", "epochs": 3,
        "dataset": DatasetRef(fingerprint="f", tree="/nowhere"), "image_size": 64, "batch": 4, "seed": 0,
    }  # fmt: skip
    return TrainingSpec(**{**values, "output": str(output), **changes})


def make_spec(tree, output, *, store=None, **changes):
    """Return a spec for a tree: three short epochs of a small model."""
    info = read_tree(tree)
    if "model" not in changes and "entrypoint" not in changes:
        changes["model"] = small_model(tree.parent, info.task)
    values = {
        "task": info.task,
        "dataset": DatasetRef(fingerprint=info.fingerprint, tree=str(tree)),
        "hyperparameters": {"plots": False, "close_mosaic": 1, "nbs": 12},
        # One thread: several wait for each other at every operation while another test has a core.
        "speed": {"threads": False},
        "store": StoreRef(url=f"file:{store}") if store else None,
    }
    return bare_spec(output, **{**values, **changes})


@contextlib.contextmanager
def module(spec, folder, *flags, env=None, cwd=ROOT):
    """Run `python -m remote_job` on a spec, and never leave it behind."""
    path = folder / "spec.json"
    path.write_text(spec.model_dump_json())
    with (
        (folder / "stderr.txt").open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "gpu_offload.remote_job", str(path), *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=cwd,
            env=env,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def run_module(spec, folder, *flags, env=None, cwd=ROOT):
    """Run `python -m remote_job` to its end; return its exit code and events."""
    with module(spec, folder, *flags, env=env, cwd=cwd) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, [json.loads(line) for line in output.splitlines()]


def wait_for(process, matches):
    """Read events until one matches, and return it."""
    for line in process.stdout:
        event = json.loads(line)
        if matches(event):
            return event
    raise AssertionError(f"the training ended with {process.wait()} before that")


@contextlib.contextmanager
def stopping_at(monkeypatch, epoch, batch):
    """Yield an interruption that is asked for right after a batch."""
    interruption = Interruption()
    report = Progress.batch

    def at(self, number, batches, **fields):
        if (fields["epoch"], number) == (epoch, batch):
            interruption.request("the test said so")
        report(self, number, batches, **fields)

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "batch", at)
        yield interruption


def stderr(folder):
    """Return what the module said."""
    return (Path(folder) / "stderr.txt").read_text()


def read_events(path):
    """Read progress.jsonl."""
    return [ProgressEvent.model_validate_json(line) for line in path.read_text("utf-8").splitlines()]


def epochs(output):
    """Return the epochs that were reported, in order."""
    return [event.epoch for event in read_events(output / "progress.jsonl") if event.event == "epoch"]


def manifest(output):
    """Read the manifest of the newest checkpoint."""
    return CheckpointManifest.model_validate_json((output / "checkpoint" / "manifest.json").read_bytes())


def heartbeat(output):
    """Read the heartbeat."""
    return Heartbeat.model_validate_json((output / "heartbeat.json").read_bytes())


def interrupt(monkeypatch, spec, epoch, batch):
    """Train until right after a batch, and be interrupted there."""
    from gpu_offload.remote_job.train import train

    with stopping_at(monkeypatch, epoch, batch) as interruption, pytest.raises(InterruptedTrainingError):
        train(spec, interruption=interruption)


class Poison:
    """Pickled, it creates a file when it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)
