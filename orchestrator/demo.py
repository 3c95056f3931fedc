"""`offload demo`: plan, train, publish, report and skip on a generated dataset, with no account."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from gpu_offload.dataset.synthetic import generate
from gpu_offload.errors import OffloadError, UsageError
from gpu_offload.orchestrator import api
from gpu_offload.orchestrator.lifecycle.train_report import TrainReport, trained_text
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.table import for_terminal
from gpu_offload.orchestrator.project_states import has_models
from gpu_offload.orchestrator.registry import stores
from gpu_offload.orchestrator.report.load import gather, render
from gpu_offload.orchestrator.settings.file import FILE_NAME
from gpu_offload.orchestrator.settings.load import Settings, load_settings
from gpu_offload.orchestrator.state import state_folder

WORTH_SHOWING = 0.5
"""Lowest mAP50 with which the demo succeeds; it reached more on every machine we tried."""


class DemoError(OffloadError):
    """The demo did not show what it promises."""


MARK = "# The project of a demo: "
"""The beginning of a demo's configuration, by which it is recognised."""

SHAPES, STORE = "shapes", "store"
CONFIGURATION = """\
[dataset]
path = "{shapes}"
classes = ["circle", "square", "triangle"]

[training]
epochs = {epochs}
image-size = {image_size}
batch = 16
# Large shapes on plain ground need no mosaic, and so few steps a quicker start.
hyperparameters = {{ plots = false, mosaic = 0.0, optimizer = "AdamW", lr0 = 0.002, warmup_epochs = 1.0 }}

[store]
url = "file:{store}"
"""


def configuration_text(comment: str, *, epochs: int, image_size: int) -> str:
    """Return the configuration of a demo's project."""
    settings = CONFIGURATION.format(epochs=epochs, image_size=image_size, shapes=SHAPES, store=STORE)
    return f"{MARK}{comment}.\n{settings}"


def check_folder(folder: Path) -> None:
    """Refuse a folder with something other than an earlier demo in it. Raises UsageError."""
    file = folder / FILE_NAME
    if file.is_file():
        is_demo = file.read_bytes().startswith(MARK.encode())
    else:
        # A demo that was interrupted before it wrote its configuration leaves only shapes.
        left = {path.name for path in folder.iterdir()}
        is_demo = left <= {SHAPES} and not has_models(state_folder(folder))
    if not is_demo:
        raise UsageError(
            f"{folder} holds a project or files that are no demo's, and a demo would replace them; "
            "name a new folder with --into"
        )


def run_demo(
    folder: Path, console: Console, say: Callable[[str], object], *, command: str = "offload"
) -> TrainReport:
    """Train, publish, report, and skip the second time, in a project in `folder`, which is there.

    Raises UsageError; DemoError: it did not work.
    """
    check_folder(folder)
    # Written last, it marks a complete project: a demo that is run again carries on with it and deletes nothing.
    if not (folder / FILE_NAME).is_file():
        shutil.rmtree(folder / SHAPES, ignore_errors=True)
        console.stage("drawing a dataset of shapes")
        generate(folder / SHAPES)
        text = configuration_text("small enough for two cores and two minutes", epochs=15, image_size=160)
        (folder / FILE_NAME).write_text(text, encoding="utf-8")
    # No variable of this shell may change what the demo shows.
    settings = load_settings(folder, environment={})
    report = api.train(settings, console=console, show_plan=say)
    say(for_terminal(trained_text(report)))
    model = api.pull(settings, folder / "model.pt").path
    say(f"model: {relative(model)}")
    if report.status == "trained":
        page = write_report(folder, settings, report)
        say(f"report, with predictions on pictures that it was not trained on: {relative(page)}")
    console.stage("training again: nothing has changed, so it is skipped")
    again = api.train(settings, console=console, show_plan=say)
    say(for_terminal(trained_text(again)))
    quality = report.metrics.get("map50", 0.0)
    if again.status != "already_trained" or again.version != report.version:
        raise DemoError("the second run trained again, and nothing had changed")
    if quality < WORTH_SHOWING:
        raise DemoError(f"the model reached a mAP50 of {quality:.2f}, not the {WORTH_SHOWING} it should")
    say(tour(folder, command))
    return report


def tour(folder: Path, command: str) -> str:
    """Return what there is to look at in the project of a demo; `command` is how `offload` is called here."""
    return (
        f"\n{relative(folder)} is a project now. Look around:\n\n"
        f"    cd {shlex.quote(str(relative(folder)))}\n"
        f"    {command} report    # the run: time, cost and quality\n"
        f"    {command} models    # the published versions\n"
        f"    {command} status    # the runs, and where everything is kept\n"
        f"    {command} plan      # a training that is done is not done again\n"
    )


def write_report(folder: Path, settings: Settings, report: TrainReport) -> Path:
    """Write the report of a run as a page into a demo's folder; return its path."""
    page = folder / "report.html"
    found = gather(stores.store_of(settings), settings.store, report.run, pictures=True)
    page.write_text(render(found, "html"), encoding="utf-8")
    return page


def relative(path: Path) -> Path:
    """Return a path relative to the current folder if it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
