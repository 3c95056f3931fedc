"""How a dataset is in the store: a list of shards, each an archive of some files of the training tree.

    datasets/<fingerprint>.json           the list, written once all its shards are there
    datasets/shards/<id>.tar              a shard, named by its files; datasets share it
    runs/<run>/inputs/<fingerprint>.json  the list of a run that found a shared object damaged, and what it sent again
    runs/<run>/inputs/<id>.tar

Earlier versions staged one archive, `datasets/<fingerprint>.tar`, which is read as a list of one.
"""

from typing import Literal

from pydantic import Field, ValidationError

from gpu_offload.dataset.unpacking import CorruptArchiveError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.remote_job.wire import Wire

SHARDS = "datasets/shards/"


def dataset_key(fingerprint: str) -> str:
    """Return where the list of a dataset's shards is."""
    return f"datasets/{fingerprint}.json"


class StagedShard(Wire):
    """An archive, with the size and ETag that the store reported when it was staged; None where unknown."""

    key: str
    size: int | None = None
    etag: str | None = None


class StagedDataset(Wire):
    """The archives of a training tree; the first begins with the tree's description."""

    format: Literal[1] = 1
    shards: tuple[StagedShard, ...] = Field(min_length=1)


def read_staged(store: ObjectStore, key: str) -> StagedDataset:
    """Return what is staged at a key.

    Raises:
        CorruptArchiveError: It is no list of shards.
        StoreError: It cannot be read.
    """
    if key.endswith(".tar"):  # staged by an earlier version
        return StagedDataset(shards=(StagedShard(key=key),))
    try:
        return StagedDataset.model_validate_json(store.read(key)[0])
    except ValidationError:
        raise CorruptArchiveError(f"{store.url}/{key}: no list of shards; stage the dataset again") from None
