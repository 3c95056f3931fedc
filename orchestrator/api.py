"""The commands as Python functions, for scripts.

from gpu_offload.orchestrator.api import load_settings, plan, train

settings = load_settings(Path("."), environment={})
print(plan(settings).decision.why)
print(train(settings).version)
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_offload.dataset.change import changed_since
from gpu_offload.dataset.finding import DatasetError, error
from gpu_offload.dataset.fingerprint import fingerprint as fingerprint_of
from gpu_offload.dataset.snapshot import Snapshot
from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.check_report import Checked
from gpu_offload.orchestrator.offers.offer import Where
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.table import terminal_width
from gpu_offload.orchestrator.registry.listing import Listing, listing
from gpu_offload.orchestrator.registry.manifest import STABLE
from gpu_offload.orchestrator.registry.pulled import Pulled, pulled
from gpu_offload.orchestrator.registry.stores import check_exists, existing_store_of, store_of
from gpu_offload.orchestrator.settings.load import Settings, load_settings
from gpu_offload.orchestrator.workspace import Workspace, snapshot_of

if TYPE_CHECKING:
    from gpu_offload.client.model_client import Progress
    from gpu_offload.orchestrator.backends.standby import Standby
    from gpu_offload.orchestrator.lifecycle.train_report import TrainReport
    from gpu_offload.orchestrator.plan.option import PlanReport

__all__ = [
    "Checked",
    "Listing",
    "Pulled",
    "changed",
    "check",
    "fingerprint",
    "load_settings",
    "models",
    "plan",
    "pull",
    "pull_from",
    "snapshot",
    "store_of",
    "train",
]


def snapshot(settings: Settings) -> Snapshot:
    """Read and check the dataset. Raises DatasetError with every fault."""
    return snapshot_of(settings, Workspace.of(settings.root))


def fingerprint(settings: Settings) -> str:
    """Return the dataset's fingerprint, 64 hex digits. Raises DatasetError."""
    return fingerprint_of(snapshot(settings))


def check(settings: Settings) -> Checked:
    """Check the dataset, the training code and the model definition. Raises DatasetError, PlanningError: every fault."""
    from gpu_offload.orchestrator.plan.inputs import read_project
    from gpu_offload.orchestrator.plan.prerequisites import check_code
    from gpu_offload.orchestrator.plan.project import PlanningError

    wrong: PlanningError | None = None
    try:
        check_code(read_project(settings))
    except PlanningError as fault:
        wrong = fault
    try:
        found = snapshot(settings)
    except DatasetError as fault:
        if wrong is None:
            raise
        text = "; ".join(line.strip(" -") for line in str(wrong).splitlines()).replace(":; ", ": ")
        raise DatasetError([*fault.findings, error("", "training", text)]) from None
    if wrong is not None:
        raise wrong
    return Checked(found, found.warnings)


def changed(settings: Settings, since: str) -> bool:
    """Return whether the dataset changed since a git revision. Raises UnknownRevisionError, NotARepositoryError."""
    return changed_since(settings.dataset_path, since)


def plan(
    settings: Settings, *, on: Where = "auto", calibrate: bool | None = None, console: Console | None = None
) -> "PlanReport":
    """Return the estimated time and cost of the training in every place where it could run; spends nothing.

    Args:
        settings: The configuration.
        on: A place to decide for, or `auto`.
        calibrate: Measure this machine; None: if Ultralytics is installed.
        console: For progress messages.

    Raises DatasetError, StoreError, PlanningError.
    """
    from gpu_offload.orchestrator.lifecycle.new_run import with_forecast
    from gpu_offload.orchestrator.plan.planner import planning_of

    store = store_of(settings)
    planned = planning_of(settings, store, console or Console()).plan(on=on, calibrate=calibrate)
    return with_forecast(planned, store).report


def train(
    settings: Settings,
    *,
    on: Where = "auto",
    calibrate: bool | None = None,
    console: Console | None = None,
    show_plan: Callable[[str], object] | None = None,
    detach: bool = False,
    sweep: str | None = None,
    repair: bool = False,
    standby: "Standby | None" = None,
) -> "TrainReport":
    """Train where it is cheapest and publish; skips a training that is published already.

    Args:
        settings: The configuration.
        on: A place to decide for, or `auto`.
        calibrate: Measure this machine first; None: where the decision depends on it.
        console: For progress messages.
        show_plan: Called with the receipt before anything starts.
        detach: On an instance, return once it trains by itself; `attach`, the same call or `tend` carries on.
        sweep: The sweep that it is a training of: the version is published, and no alias moves.
        repair: Read a version that is published already back whole first, and put back what is damaged.
        standby: A process for a training on this machine; see `backends.standby`.

    Raises:
        DatasetError, StoreError, PlanningError, RentingError, CloudError, NothingFeasibleError, TrainingFailedError, InterruptedRunError
    """
    from gpu_offload.orchestrator.backends.standby import Standby
    from gpu_offload.orchestrator.cleanup.prune import after_publication
    from gpu_offload.orchestrator.lifecycle.new_run import with_forecast
    from gpu_offload.orchestrator.lifecycle.repair import repair_version
    from gpu_offload.orchestrator.lifecycle.train import Training
    from gpu_offload.orchestrator.plan.inputs import read_inputs
    from gpu_offload.orchestrator.plan.planner import planning_of
    from gpu_offload.orchestrator.plan.receipt import receipt_text
    from gpu_offload.orchestrator.plan.training_key import version_of
    from gpu_offload.orchestrator.site.write import update_site

    console = console or Console()
    store, workspace = store_of(settings), Workspace.of(settings.root)
    if repair:
        inputs = read_inputs(settings, store, workspace)
        repair_version(store, version_of(inputs.key), inputs.key, console)
    standby = standby or Standby()
    planning = planning_of(settings, store, console, beside=standby.pids, quiet=standby.drop)
    planning.moves_aliases = sweep is None
    planned = planning.plan(on=on, calibrate=calibrate, only_if_it_matters=True)
    if planned.report.already_trained is not None:
        standby.drop()
    # Where nothing fits, the error says why.
    if (
        show_plan is not None
        and planned.report.already_trained is None
        and planned.report.decision.where != "none"
    ):
        show_plan(receipt_text(with_forecast(planned, store).report, width=terminal_width()))
    report = Training(
        planned,
        store,
        workspace,
        console,
        detach=detach,
        sweep=sweep,
        standby=standby,
        clock=clock_of(store),
    ).run()
    if report.status == "trained" and sweep is None:
        after_publication(store, settings, console)
        update_site(store, settings, console)
    return report


def models(settings: Settings) -> Listing:
    """List the published versions. Raises StoreError, RegistryError."""
    return listing(existing_store_of(settings))


def pull(
    settings: Settings,
    destination: Path,
    *,
    version: str = STABLE,
    export: str | None = None,
    progress: "Progress | None" = None,
    signer: str | None = None,
) -> Pulled:
    """Download a model from the configured store, in its own format or another; see `registry.download.pull`."""
    return pulled(existing_store_of(settings), destination, version, export, progress=progress, signer=signer)


def pull_from(
    url: str,
    destination: Path,
    *,
    version: str = STABLE,
    export: str | None = None,
    progress: "Progress | None" = None,
    signer: str | None = None,
) -> Pulled:
    """Download a model from any store, such as a public address; see `registry.download.pull`."""
    store = open_store(url)
    check_exists(store)
    return pulled(store, destination, version, export, progress=progress, signer=signer)
