"""What we train on: snapshot, checks, split, fingerprint, archive, a generated sample.

The public names are loaded when they are first used, so that `import dataset` costs nothing. The fingerprint is
`dataset.fingerprint.fingerprint(snapshot)`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_offload.dataset.archive import CorruptArchiveError, pack, unpack
    from gpu_offload.dataset.change import UnknownRevisionError, changed_since
    from gpu_offload.dataset.finding import DatasetError, Finding
    from gpu_offload.dataset.git import NotARepositoryError
    from gpu_offload.dataset.layout import Layout
    from gpu_offload.dataset.samples import Sample
    from gpu_offload.dataset.snapshot import Snapshot, read_snapshot
    from gpu_offload.dataset.split import SplitRule, assign
    from gpu_offload.dataset.synthetic import generate
    from gpu_offload.dataset.task import Task
    from gpu_offload.dataset.tree import materialise
    from gpu_offload.dataset.tree_manifest import TreeInfo, read_tree

__all__ = [
    "CorruptArchiveError",
    "DatasetError",
    "Finding",
    "Layout",
    "NotARepositoryError",
    "Sample",
    "Snapshot",
    "SplitRule",
    "Task",
    "TreeInfo",
    "UnknownRevisionError",
    "assign",
    "changed_since",
    "generate",
    "materialise",
    "pack",
    "read_snapshot",
    "read_tree",
    "unpack",
]

_HOME = {
    "CorruptArchiveError": "archive",
    "DatasetError": "finding",
    "Finding": "finding",
    "Layout": "layout",
    "NotARepositoryError": "change",
    "Sample": "samples",
    "Snapshot": "snapshot",
    "SplitRule": "split",
    "Task": "task",
    "TreeInfo": "tree_manifest",
    "UnknownRevisionError": "change",
    "assign": "split",
    "changed_since": "change",
    "generate": "synthetic",
    "materialise": "tree",
    "pack": "archive",
    "read_snapshot": "snapshot",
    "read_tree": "tree_manifest",
    "unpack": "archive",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"gpu_offload.dataset.{_HOME[name]}"), name)
