"""A project's files on this machine beside its store: caches, training trees, running trainings."""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.snapshot import Snapshot, read_snapshot
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.settings.findings import findings_prefix
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.model_task import check_task
from gpu_offload.orchestrator.state import make_folder, prepare_state
from gpu_offload.remote_job.files.removal import remove_tree

CALIBRATION = "calibration-"
"""Prefix of the folders in `work` that belong to no run."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Folders in the state of a project; everything in them can be deleted and is made again."""

    root: Path

    @classmethod
    def of(cls, project: Path) -> "Workspace":
        """Return the workspace of a project, and make it. Raises StateError where state may have been planted."""
        return cls(prepare_state(project, note=Console().note))

    @property
    def stat_cache(self) -> Path:
        """Cached facts of unchanged dataset files."""
        return make_folder(self.root, "cache") / "stat"

    @property
    def calibrations(self) -> Path:
        """Calibrations of this machine."""
        return make_folder(self.root, "cache", "calibration")

    @property
    def clusters(self) -> Path:
        """Checks of Ray clusters."""
        return make_folder(self.root, "cache", "ray")

    @property
    def weights(self) -> Path:
        """Starting weights that were fetched."""
        return make_folder(self.root, "cache", "weights")

    @property
    def packages(self) -> Path:
        """Installed requirements of the user's training code."""
        return make_folder(self.root, "cache", "packages")

    @property
    def work(self) -> Path:
        """One folder for each run that trains or trained here."""
        return make_folder(self.root, "work")

    def tree(self, fingerprint: str) -> Path:
        """Where the training tree of a dataset is or will be."""
        return make_folder(self.root, "trees") / fingerprint[:16]

    def caches(self) -> tuple[Path, ...]:
        """Return the folders that can be deleted while nothing runs here."""
        return (make_folder(self.root, "cache"), make_folder(self.root, "trees"), self.work)

    def forget_run(self, run: str) -> None:
        """Remove the files of a run that is over."""
        with contextlib.suppress(FileNotFoundError):
            remove_tree(self.work / run)

    def runs(self) -> list[str]:
        """Return the runs that have files here."""
        return [folder.name for folder in self.work.iterdir() if not folder.name.startswith(CALIBRATION)]

    def forget_trees(self, but: str) -> None:
        """Remove the training trees of other datasets; they can be copies and take much space."""
        for folder in make_folder(self.root, "trees").iterdir():
            if folder.name != but[:16]:
                shutil.rmtree(folder, ignore_errors=True)


def snapshot_of(settings: Settings, workspace: Workspace) -> Snapshot:
    """Read and check the dataset, and that its labels are for the model's task. Raises DatasetError with every fault."""
    try:
        snapshot = read_snapshot(
            settings.dataset_path,
            classes=settings.dataset.classes,
            task=settings.dataset.task,
            split=settings.dataset.split.rule,
            cache=workspace.stat_cache,
        )
    except DatasetError as error:
        # Findings have paths in the dataset; a reader needs them in the repository.
        error.args = (error.text(findings_prefix(settings)),)
        raise
    check_task(settings, snapshot)
    return snapshot
