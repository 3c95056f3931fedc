"""`offload demo --gpu`: the whole GPU path on a simulated cloud, with no account."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from gpu_offload.dataset.synthetic import generate
from gpu_offload.infra.environment import replaced_environment
from gpu_offload.infra.simulator.account import BUCKET
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.store.folder import FolderStore
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator import api
from gpu_offload.orchestrator.demo import (
    SHAPES,
    STORE,
    DemoError,
    check_folder,
    configuration_text,
    relative,
    tour,
    write_report,
)
from gpu_offload.orchestrator.lifecycle.train_report import TrainReport, trained_text
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.table import for_terminal
from gpu_offload.orchestrator.registry import stores
from gpu_offload.orchestrator.settings.file import FILE_NAME
from gpu_offload.orchestrator.settings.load import load_settings
from gpu_offload.orchestrator.state import state_folder

HIDDEN = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN")
"""Variables that would lead the GPU demo away from the simulated cloud."""


def run_gpu_demo(
    folder: Path, console: Console, say: Callable[[str], object], *, command: str = "offload"
) -> TrainReport:
    """Go the whole GPU path on the simulated cloud, in a project in `folder`, with a copy of the simulated bucket.

    Raises UsageError; DemoError: something was left that would cost money, or the second run trained again.
    """
    check_folder(folder)
    # The simulated cloud of an earlier demo went with its process, and so must what refers to it.
    for old in (folder / SHAPES, folder / STORE, state_folder(folder)):
        shutil.rmtree(old, ignore_errors=True)
    console.stage("drawing a dataset of shapes")
    generate(folder / SHAPES, images=160, size=96)
    text = configuration_text("it was trained in a simulated cloud, on no GPU", epochs=12, image_size=96)
    (folder / FILE_NAME).write_text(text, encoding="utf-8")
    # Overrides, because the file that stays names the folder into which the bucket is copied below.
    in_cloud = (f"store.url=s3://{BUCKET}/demo", 'ec2.regions=["us-east-1"]')
    settings = load_settings(folder, overrides=in_cloud, environment={})
    console.stage(
        "starting a simulated cloud: its API is a server on this machine, its instances are SSH hosts"
    )
    with SimulatedCloud() as cloud, replaced_environment(cloud.environment(), HIDDEN):
        report = api.train(settings, on="ec2", console=console, show_plan=say)
        say(for_terminal(trained_text(report)))
        model = api.pull(settings, folder / "model.pt").path
        page = write_report(folder, settings, report)
        say(f"model: {relative(model)}; report: {relative(page)}")
        console.stage("training again: nothing has changed, so nothing is launched")
        again = api.train(settings, on="ec2", console=console, show_plan=say)
        say(for_terminal(trained_text(again)))
        copy_store(stores.store_of(settings), FolderStore(folder / STORE))
        cloud.settle()
        left = cloud.leftovers()
        say(
            for_terminal(
                f"left in the simulated cloud: {left}; API calls: {sum(cloud.runner_calls.values())}"
            )
        )
    if left:
        raise DemoError(f"something was left in the simulated cloud: {left}")
    if again.status != "already_trained" or again.version != report.version:
        raise DemoError("the second run trained again, and nothing had changed")
    say(tour(folder, command))
    return report


def copy_store(source: ObjectStore, target: ObjectStore) -> None:
    """Copy every object of a store into another one."""
    with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
        path = Path(scratch) / "object"
        for info in source.list(""):
            source.download(info.key, path, size=info.size)
            target.upload(info.key, path)
