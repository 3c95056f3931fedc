"""`offload demo`: plan, train, publish, report and skip on a generated dataset, with no account."""

import shutil
from collections.abc import Callable
from pathlib import Path

from gpu_offload.dataset.synthetic import generate
from gpu_offload.errors import OffloadError
from gpu_offload.infra.environment import replaced_environment
from gpu_offload.infra.simulator.account import BUCKET
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.orchestrator import api
from gpu_offload.orchestrator.lifecycle.train_report import TrainReport, trained_text
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import stores
from gpu_offload.orchestrator.report.load import gather, render
from gpu_offload.orchestrator.settings.file import FILE_NAME
from gpu_offload.orchestrator.settings.load import Settings, load_settings
from gpu_offload.orchestrator.settings.sections import (
    DatasetSettings,
    Ec2Settings,
    StoreSettings,
    TrainingSettings,
)
from gpu_offload.orchestrator.state import state_folder

CLASSES = ("circle", "square", "triangle")
QUICK = {"plots": False, "mosaic": 0.0, "optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 1.0}
"""Large shapes on plain ground need no mosaic, and so few steps a quicker start."""

WORTH_SHOWING = 0.5
"""mAP50 below which the demo says that something is wrong: it reaches more on every machine we tried."""


class DemoError(OffloadError):
    """The demo did not show what it promises."""


CONFIGURATION = """\
# The demo's project: small enough for two cores and two minutes.
[dataset]
path = "shapes"
classes = ["circle", "square", "triangle"]

[training]
epochs = 15
image-size = 160
batch = 16
# Large shapes on plain ground need no mosaic, and so few steps a quicker start.
hyperparameters = { plots = false, mosaic = 0.0, optimizer = "AdamW", lr0 = 0.002, warmup_epochs = 1.0 }

[store]
url = "file:store"
"""

HIDDEN = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN")
"""Variables that would lead the GPU demo away from the simulated cloud."""


def run_demo(folder: Path, console: Console, say: Callable[[str], object]) -> TrainReport:
    """Train, publish, report, and skip the second time; leave a project in `folder`, or carry on with the one there.

    Raises:
        DemoError: the model does not work, or was trained again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Written last, it marks a complete project: a demo that is run again carries on with it and deletes nothing.
    if not (folder / FILE_NAME).is_file():
        shutil.rmtree(folder / "shapes", ignore_errors=True)
        console.stage("drawing a dataset of shapes")
        generate(folder / "shapes")
        (folder / FILE_NAME).write_text(CONFIGURATION, encoding="utf-8")
    settings = load_settings(folder, environment={})
    report = api.train(settings, console=console, show_plan=say)
    say(trained_text(report))
    model = api.pull(settings, folder / "model.pt").path
    say(f"model: {_relative(model)}")
    if report.status == "trained":
        page = _write_report(folder, settings, report)
        say(f"report, with predictions on pictures that it was not trained on: {_relative(page)}")
    console.stage("training again: nothing has changed, so it is skipped")
    again = api.train(settings, console=console, show_plan=say)
    say(trained_text(again))
    quality = report.metrics.get("map50", 0.0)
    if again.status != "already_trained" or again.version != report.version:
        raise DemoError("the second run trained again, and nothing had changed")
    if quality < WORTH_SHOWING:
        raise DemoError(f"the model reached a mAP50 of {quality:.2f}, not the {WORTH_SHOWING} it should")
    say(
        f"\n{_relative(folder)} is a project now. Look around:\n\n"
        f"    cd {_relative(folder)}\n"
        "    offload report    # the run: time, cost and quality\n"
        "    offload models    # the published versions\n"
        "    offload plan      # a training that is done is not done again\n"
    )
    return report


def _write_report(folder: Path, settings: Settings, report: TrainReport) -> Path:
    page = folder / "report.html"
    found = gather(stores.store_of(settings), settings.store, report.run, pictures=True)
    page.write_text(render(found, "html"), encoding="utf-8")
    return page


def _relative(path: Path) -> Path:
    """Return a path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def gpu_demo_settings(folder: Path) -> Settings:
    """Return the settings: small enough for two cores, in the GPU's place, to need less than three minutes."""
    return Settings(
        root=folder,
        dataset=DatasetSettings(path="shapes", classes=CLASSES),
        training=TrainingSettings(epochs=12, image_size=96, batch=16, hyperparameters=QUICK),
        store=StoreSettings(url=f"s3://{BUCKET}/demo"),
        ec2=Ec2Settings(regions=("us-east-1",)),
    )


def run_gpu_demo(folder: Path, console: Console, say: Callable[[str], object]) -> TrainReport:
    """Launch, connect, train, collect, publish, terminate and account, on the simulated cloud.

    Raises:
        DemoError: something was left that would cost money, or the second run trained again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The simulated cloud of an earlier demo went with its process, and so must what refers to it.
    for old in (folder / "shapes", state_folder(folder)):
        shutil.rmtree(old, ignore_errors=True)
    console.stage("drawing a dataset of shapes")
    generate(folder / "shapes", images=160, size=96)
    settings = gpu_demo_settings(folder)
    console.stage(
        "starting a simulated cloud: its API is a server on this machine, its instances are SSH hosts"
    )
    with SimulatedCloud() as cloud, replaced_environment(cloud.environment(), HIDDEN):
        report = api.train(settings, on="ec2", console=console, show_plan=say)
        say(trained_text(report))
        model = api.pull(settings, folder / "model.pt").path
        page = _write_report(folder, settings, report)
        say(f"model: {_relative(model)}; report: {_relative(page)}")
        console.stage("training again: nothing has changed, so nothing is launched")
        again = api.train(settings, on="ec2", console=console, show_plan=say)
        say(trained_text(again))
        cloud.settle()
        left = cloud.leftovers()
        say(f"left in the simulated cloud: {left}; API calls: {sum(cloud.runner_calls.values())}")
    if left:
        raise DemoError(f"something was left in the simulated cloud: {left}")
    if again.status != "already_trained" or again.version != report.version:
        raise DemoError("the second run trained again, and nothing had changed")
    return report
