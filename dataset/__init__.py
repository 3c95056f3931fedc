"""What we train on: snapshot, checks, split, fingerprint, archive, a generated sample.

The public names are loaded when they are first used, so that `import dataset` costs nothing. The fingerprint is
`dataset.fingerprint.fingerprint(snapshot)`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset.archive import CorruptArchiveError, pack, unpack
    from dataset.change import NotARepositoryError, UnknownRevisionError, changed_since
    from dataset.finding import DatasetError, Finding
    from dataset.layout import Layout
    from dataset.sample import generate
    from dataset.snapshot import Sample, Snapshot, read_snapshot
    from dataset.split import SplitRule, assign
    from dataset.task import Task
    from dataset.tree import materialise
    from dataset.tree_info import TreeInfo, read_tree

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
    "Sample": "snapshot",
    "Snapshot": "snapshot",
    "SplitRule": "split",
    "Task": "task",
    "TreeInfo": "tree_info",
    "UnknownRevisionError": "change",
    "assign": "split",
    "changed_since": "change",
    "generate": "sample",
    "materialise": "tree",
    "pack": "archive",
    "read_snapshot": "snapshot",
    "read_tree": "tree_info",
    "unpack": "archive",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dataset.{_HOME[name]}"), name)
