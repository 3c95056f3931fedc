"""Where we keep things on this machine: `.offload` beside the configuration.

A folder store has its place there by default too; the names do not clash.
"""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.dataset.snapshot import Snapshot, read_snapshot
from gpu_offload.dataset.split import SplitRule
from gpu_offload.orchestrator.settings.load import Settings


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders below `.offload`; everything in them can be deleted and is made again."""

    root: Path

    @classmethod
    def beside(cls, project: Path) -> "Workspace":
        """Return the workspace of a project, made and hidden from its git."""
        root = project / ".offload"
        root.mkdir(exist_ok=True)
        ignore = root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        return cls(root)

    @property
    def stat_cache(self) -> Path:
        """What is known of unchanged dataset files."""
        return self._made("cache") / "stat"

    @property
    def calibrations(self) -> Path:
        """What was measured on this machine."""
        return self._made("cache/calibration")

    @property
    def weights(self) -> Path:
        """Starting weights that were fetched."""
        return self._made("cache/weights")

    @property
    def work(self) -> Path:
        """One folder for each run that trains or trained here."""
        return self._made("work")

    def tree(self, fingerprint: str) -> Path:
        """Where the training tree of a dataset is or will be."""
        return self._made("trees") / fingerprint[:16]

    def forget_run(self, run: str) -> None:
        """Remove what a published run left here."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root / "work" / run)

    def forget_trees(self, but: str) -> None:
        """Remove the training trees of other datasets; they are links, or copies that would add up."""
        for folder in self._made("trees").iterdir():
            if folder.name != but[:16]:
                shutil.rmtree(folder, ignore_errors=True)

    def _made(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def snapshot_of(settings: Settings, workspace: Workspace) -> Snapshot:
    """Read and check the dataset that the settings name. Raises DatasetError with every fault."""
    split = settings.dataset.split
    return read_snapshot(
        settings.dataset_path,
        classes=settings.dataset.classes,
        task=settings.dataset.task,
        split=SplitRule(seed=split.seed, val=split.val, test=split.test),
        cache=workspace.stat_cache,
    )
