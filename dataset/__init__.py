"""What we train on: snapshot, checks, split, fingerprint, archive, a generated sample.

The public names are loaded when they are first used: most programs need a few of these modules, some of them none. The
fingerprint is `dataset.fingerprint.fingerprint(snapshot)`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_offload.dataset.archive import pack as pack
    from gpu_offload.dataset.archive import unpack as unpack
    from gpu_offload.dataset.change import UnknownRevisionError as UnknownRevisionError
    from gpu_offload.dataset.change import changed_since as changed_since
    from gpu_offload.dataset.finding import DatasetError as DatasetError
    from gpu_offload.dataset.finding import Finding as Finding
    from gpu_offload.dataset.git import NotARepositoryError as NotARepositoryError
    from gpu_offload.dataset.layout import Layout as Layout
    from gpu_offload.dataset.samples import Sample as Sample
    from gpu_offload.dataset.snapshot import Snapshot as Snapshot
    from gpu_offload.dataset.snapshot import read_snapshot as read_snapshot
    from gpu_offload.dataset.split import SplitRule as SplitRule
    from gpu_offload.dataset.split import assign as assign
    from gpu_offload.dataset.synthetic import generate as generate
    from gpu_offload.dataset.task import Task as Task
    from gpu_offload.dataset.tree import materialise as materialise
    from gpu_offload.dataset.tree_manifest import TreeInfo as TreeInfo
    from gpu_offload.dataset.tree_manifest import read_tree as read_tree
    from gpu_offload.dataset.unpacking import CorruptArchiveError as CorruptArchiveError

_NAMES = {
    "archive": {"pack", "unpack"},
    "change": {"UnknownRevisionError", "changed_since"},
    "finding": {"DatasetError", "Finding"},
    "git": {"NotARepositoryError"},
    "layout": {"Layout"},
    "samples": {"Sample"},
    "snapshot": {"Snapshot", "read_snapshot"},
    "split": {"SplitRule", "assign"},
    "synthetic": {"generate"},
    "task": {"Task"},
    "tree": {"materialise"},
    "tree_manifest": {"TreeInfo", "read_tree"},
    "unpacking": {"CorruptArchiveError"},
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
