"""`offload demo`: the main job on a generated dataset, with no account: plan, train, publish, predict, skip."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gpu_offload.dataset.synthetic import generate
from gpu_offload.orchestrator import api
from gpu_offload.orchestrator.console import Console
from gpu_offload.orchestrator.settings import DatasetSettings, Settings, StoreSettings, TrainingSettings
from gpu_offload.orchestrator.training import TrainReport, trained_text

CLASSES = ("circle", "square", "triangle")
QUICK = {"plots": False, "mosaic": 0.0, "optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 1.0}
"""Large shapes on plain ground need no mosaic, and so few steps a quicker start."""

PICTURES = 8
WORTH_SHOWING = 0.5
"""mAP50 below which the demo says that something is wrong: it reaches more on every machine we tried."""


class DemoError(Exception):
    """The demo did not show what it promises."""


def demo_settings(folder: Path) -> Settings:
    """Return the demo's settings: small enough for two cores and two minutes."""
    return Settings(
        root=folder,
        dataset=DatasetSettings(path="shapes", classes=CLASSES),
        training=TrainingSettings(epochs=15, image_size=160, batch=16, hyperparameters=QUICK),
        store=StoreSettings(url="file:store"),
    )


def run_demo(folder: Path, console: Console, say: Callable[[str], object]) -> TrainReport:
    """Go the whole way twice. Raises DemoError where the model does not work or is trained again."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in ("shapes", "store", ".offload"):
        shutil.rmtree(folder / old, ignore_errors=True)
    console.stage("drawing a dataset of shapes")
    generate(folder / "shapes")
    settings = demo_settings(folder)
    report = api.train(settings, console=console, show_plan=say)
    say(trained_text(report))
    model = api.pull(settings, folder / "model.pt").path
    say(f"the model lies in {model}")
    picture = folder / "predictions.png"
    console.stage("drawing predictions on pictures that it was not trained on")
    found = _predict(settings, model, picture)
    say(f"{found} shapes found on {PICTURES} pictures: {picture}")
    console.stage("once more: nothing has changed, so nothing is trained")
    again = api.train(settings, console=console, show_plan=say)
    say(trained_text(again))
    quality = report.metrics.get("map50", 0.0)
    if again.status != "already_trained" or again.version != report.version:
        raise DemoError("the second run trained again, and nothing had changed")
    if quality < WORTH_SHOWING:
        raise DemoError(f"the model reached a mAP50 of {quality:.2f}, not the {WORTH_SHOWING} it should")
    return report


def _predict(settings: Settings, model: Path, picture: Path) -> str:
    validation = [s.image for s in api.snapshot(settings).samples if s.split == "val"][:PICTURES]
    images = [str(settings.dataset_path / image) for image in validation]
    command = [
        sys.executable,
        "-P",
        "-m",
        "gpu_offload.remote_job.yolo.prediction",
        str(model),
        str(picture),
        *images,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(f"no predictions could be drawn: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout.strip().splitlines()[-1]
