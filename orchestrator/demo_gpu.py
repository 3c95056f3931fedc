"""`offload demo --gpu`: the whole GPU path on the simulated cloud, with no account, no root and no GPU."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gpu_offload.dataset.synthetic import generate
from gpu_offload.infra.simulator.cloud import BUCKET, SimulatedCloud
from gpu_offload.orchestrator import api
from gpu_offload.orchestrator.console import Console
from gpu_offload.orchestrator.demo import CLASSES, QUICK, DemoError
from gpu_offload.orchestrator.reporting import gather, render
from gpu_offload.orchestrator.settings import (
    DatasetSettings,
    Ec2Settings,
    Settings,
    StoreSettings,
    TrainingSettings,
)
from gpu_offload.orchestrator.training import TrainReport, trained_text


def gpu_demo_settings(folder: Path) -> Settings:
    """Return the settings: so small that two cores, which stand in for the GPU, need no three minutes."""
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
    for old in ("shapes", ".offload"):
        shutil.rmtree(folder / old, ignore_errors=True)
    console.stage("drawing a dataset of shapes")
    generate(folder / "shapes", images=160, size=96)
    settings = gpu_demo_settings(folder)
    console.stage(
        "starting a simulated cloud: its API is a server on this machine, its instances are SSH hosts"
    )
    with SimulatedCloud() as cloud, _environment(cloud.environment()):
        report = api.train(settings, on="ec2", console=console, show_plan=say)
        say(trained_text(report))
        model = api.pull(settings, folder / "model.pt").path
        page = folder / "report.html"
        page.write_text(render(gather(api.store_of(settings), settings.store, report.run), "html"))
        say(f"the model lies in {model}, what it took and cost in {page}")
        console.stage("once more: nothing has changed, so nothing is launched")
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


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Lead everything in this process, and what it starts, into the simulated cloud for a while."""
    hidden = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN")
    before = {name: os.environ.get(name) for name in (*variables, *hidden)}
    for name in hidden:
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
