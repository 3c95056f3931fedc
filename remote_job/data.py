"""The training tree as Ultralytics wants it: a data.yaml of our own, and no file that it would unpickle."""

import itertools
import json
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_offload.dataset.finding import DatasetError
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.tree_manifest import read_tree
from gpu_offload.dataset.unpacking import unpacking
from gpu_offload.errors import OffloadError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.remote_job.spec import DatasetRef
from gpu_offload.remote_job.staged_dataset import StagedShard, read_staged

AT_ONCE = 8
"""Shards that are read and unpacked at a time; S3 gives each connection 85 to 90 MB/s, less than any instance's network."""


class TreeError(OffloadError):
    """The training tree is not the one that the spec means."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """A tree that is ready for Ultralytics."""

    tree: Path
    argument: Path
    """What Ultralytics gets as `data`: a data.yaml, or the tree for classification."""
    images: dict[str, int]
    """Number of images by split."""


def tree(reference: DatasetRef, *, store: ObjectStore | None, output: Path) -> Path:
    """Return the training tree, downloaded and unpacked first where the spec names what is in the store.

    Raises:
        CorruptArchiveError: What is staged is not of this fingerprint.
        StoreError: It cannot be read.
    """
    if reference.tree is not None:
        return Path(reference.tree)
    assert store is not None  # noqa: S101 - the spec was checked
    assert reference.archive is not None  # noqa: S101 - as above
    folder = output / "dataset"
    if not _is_there(folder, reference.fingerprint):
        _fetch(store, reference.archive, folder, reference.fingerprint)
    return folder


def _fetch(store: ObjectStore, key: str, folder: Path, fingerprint: str) -> None:
    """Download and unpack what is staged; beside the files, only the shards being read are on disk."""
    first, *others = read_staged(store, key).shards
    with (
        unpacking(folder, fingerprint=fingerprint) as unpacked,
        tempfile.TemporaryDirectory(prefix=".shards.", dir=folder.parent) as scratch,
    ):

        def fetch(number: int, shard: StagedShard) -> None:
            path = Path(scratch, f"{number}.tar")
            store.download(shard.key, path, size=shard.size)
            unpacked.add(path, f"{store.url}/{shard.key}")
            path.unlink()

        fetch(0, first)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(fetch, itertools.count(1), others))


def _is_there(folder: Path, fingerprint: str) -> bool:
    """Whether the tree was unpacked before: `unpack` renames it into place when it is whole."""
    try:
        return read_tree(folder).fingerprint == fingerprint
    except DatasetError:
        return False


def prepare(tree: Path, *, task: Task, fingerprint: str, output: Path) -> TrainingData:
    """Check that the tree is the one meant, remove caches, and describe it to Ultralytics.

    Raises:
        DatasetError: There is no training tree, or its description is damaged.
        TreeError: It is of another dataset or task.
    """
    info = read_tree(tree)
    if info.fingerprint != fingerprint:
        raise TreeError(f"{tree}: holds the dataset {info.fingerprint}, the training is for {fingerprint}")
    if info.task is not task:
        raise TreeError(f"{tree}: is for {info.task}, the training is for {task}")
    remove_caches(tree)
    if task is Task.CLASSIFY:
        return TrainingData(tree, tree, dict(info.images))
    data: dict[str, Any] = {
        "path": str(tree.resolve()),
        "train": "images/train",
        "val": "images/val",
        "names": list(info.classes),
    }
    if info.images["test"]:
        data["test"] = "images/test"
    if info.keypoint_shape is not None:
        data["kpt_shape"] = list(info.keypoint_shape)
    if info.flip_idx is not None:
        data["flip_idx"] = list(info.flip_idx)
    path = output / "data.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    # JSON is YAML, and quotes every name as it must be.
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")
    return TrainingData(tree, path, dict(info.images))


def remove_caches(tree: Path) -> None:
    """Remove label caches, also folders of such a name: Ultralytics unpickles what it finds beside the labels."""
    for path in list(tree.rglob("*.cache")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
