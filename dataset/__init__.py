"""What we train on: snapshot, checks, split, fingerprint, archive, a generated sample.

The public names are loaded when they are first used, so that `import dataset` costs nothing. The fingerprint is
`dataset.fingerprint.fingerprint(snapshot)`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset.finding import DatasetError, Finding
    from dataset.layout import Layout
    from dataset.snapshot import Sample, Snapshot, read_snapshot
    from dataset.split import SplitRule
    from dataset.task import Task
    from dataset.tree import TreeInfo, materialise, read_tree

__all__ = [
    "DatasetError",
    "Finding",
    "Layout",
    "Sample",
    "Snapshot",
    "SplitRule",
    "Task",
    "TreeInfo",
    "materialise",
    "read_snapshot",
    "read_tree",
]

_HOME = {
    "DatasetError": "finding",
    "Finding": "finding",
    "Layout": "layout",
    "Sample": "snapshot",
    "Snapshot": "snapshot",
    "SplitRule": "split",
    "Task": "task",
    "TreeInfo": "tree",
    "materialise": "tree",
    "read_snapshot": "snapshot",
    "read_tree": "tree",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dataset.{_HOME[name]}"), name)
