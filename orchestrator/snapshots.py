"""The configured dataset, read and checked."""

from gpu_offload.dataset.snapshot import Snapshot, read_snapshot
from gpu_offload.dataset.split import SplitRule
from gpu_offload.orchestrator.settings import Settings
from gpu_offload.orchestrator.workspace import Workspace


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
