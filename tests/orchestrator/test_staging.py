"""A dataset is staged in shards: what is in the store is not sent again, and what an instance reads is whole."""

import io

import pytest
from crash_scenario import Scenario, run_record

from gpu_offload.dataset import shards
from gpu_offload.dataset.archive import pack
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.synthetic import generate
from gpu_offload.dataset.tree import materialise
from gpu_offload.dataset.tree_manifest import read_tree
from gpu_offload.dataset.unpacking import CorruptArchiveError
from gpu_offload.infra.store.errors import StoreUnreachableError
from gpu_offload.infra.store.folder import FolderStore
from gpu_offload.orchestrator.backends.staging import Staging, dataset_keys, staged_dataset
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.remote_job import data
from gpu_offload.remote_job.spec import DatasetRef
from gpu_offload.remote_job.staged_dataset import SHARDS


class Counting(FolderStore):
    """Counts uploads, and refuses those beyond `most`."""

    def __init__(self, root, most=1000):
        super().__init__(root)
        self.sent, self.most = [], most

    def upload(self, key, path, *, create=False):
        if len(self.sent) >= self.most:
            raise StoreUnreachableError("the line is cut")
        self.sent.append(key)
        return super().upload(key, path, create=create)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    for name, value in (("MOST", 20_000), ("LEAST", 8_000), ("SPREAD", 8_000)):
        monkeypatch.setattr(shards, name, value)


@pytest.fixture
def raw(tmp_path):
    generate(tmp_path / "raw", images=12, size=48)
    return tmp_path / "raw"


def staged(store, raw):
    """Stage the dataset as it is now for a run; return the run and its tree."""
    tree = materialise(read_snapshot(raw), raw.parent / "tree")
    run = run_record(Scenario()).model_copy(update={"fingerprint": read_tree(tree).fingerprint})
    Staging(store, Console(io.StringIO()), lambda: tree).stage(run)
    return run, tree


def fetched(store, run, output):
    """Return the files that an instance has after it fetched the dataset."""
    reference = DatasetRef(fingerprint=run.fingerprint, archive=staged_dataset(store, run))
    return contents(data.tree(reference, store=store, output=output))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_unchanged_dataset_is_not_sent_again_nor_made(tmp_path, raw):
    store = Counting(tmp_path / "store")
    run, tree = staged(store, raw)
    assert len(store.sent) > 4
    store.sent.clear()
    Staging(store, Console(io.StringIO()), lambda: pytest.fail("the tree is not needed")).stage(run)
    assert store.sent == []
    assert fetched(store, run, tmp_path / "output") == contents(tree)
    assert [p.name for p in (tmp_path / "output").iterdir()] == ["dataset"]


def test_a_changed_image_is_sent_with_its_shard_and_the_description(tmp_path, raw):
    store = Counting(tmp_path / "store")
    staged(store, raw)
    first = set(store.sent)
    store.sent.clear()
    image = next(raw.rglob("*.png"))
    image.write_bytes(image.read_bytes() + b"more")
    run, tree = staged(store, raw)
    assert len(store.sent) == 2
    assert not first & set(store.sent)
    assert fetched(store, run, tmp_path / "output") == contents(tree)


def test_an_interrupted_upload_is_carried_on(tmp_path, raw):
    store = Counting(tmp_path / "store", most=3)
    with pytest.raises(StoreUnreachableError):
        staged(store, raw)
    first, store.most = set(store.sent), 1000
    store.sent.clear()
    run, tree = staged(store, raw)
    assert len(first) == 3
    assert not first & set(store.sent)
    assert fetched(store, run, tmp_path / "output") == contents(tree)


@pytest.mark.parametrize("damage", ["cut", "gone", "changed", "all gone"])
def test_what_was_damaged_since_is_sent_again_where_the_role_may_write(tmp_path, raw, damage):
    store = Counting(tmp_path / "store")
    run, tree = staged(store, raw)
    victims = [key for key in store.sent if key.startswith(SHARDS)][: None if damage == "all gone" else 1]
    for key in victims:
        if damage in {"cut", "changed"}:
            whole = store.read(key)[0]
            store.put(key, whole[:-512] if damage == "cut" else b"?" + whole[1:])
        else:
            store.delete(key)
    store.sent.clear()
    staged(store, raw)
    own = damage in {"cut", "changed"}
    assert len(store.sent) == len(victims)
    assert all(key.startswith(f"runs/{run.id}/inputs/" if own else SHARDS) for key in store.sent)
    assert staged_dataset(store, run) == dataset_keys(run)[own]
    assert fetched(store, run, tmp_path / "output") == contents(tree)
    store.sent.clear()
    staged(store, raw)
    assert store.sent == []


def test_an_instance_that_finds_a_damaged_shard_names_it_and_keeps_nothing(tmp_path, raw):
    store = Counting(tmp_path / "store")
    run, _ = staged(store, raw)
    victim = max((info for info in store.list(SHARDS)), key=lambda info: info.size).key
    whole = store.read(victim)[0]
    store.put(victim, whole[:600] + b"?" + whole[601:])
    with pytest.raises(CorruptArchiveError, match=victim):
        fetched(store, run, tmp_path / "output")
    assert list((tmp_path / "output").iterdir()) == []


def test_the_archive_of_an_earlier_version_is_read(tmp_path, raw):
    run, tree = staged(Counting(tmp_path / "store"), raw)
    store = Counting(tmp_path / "earlier")
    pack(tree, tmp_path / "dataset.tar")
    key = f"datasets/{run.fingerprint}.tar"
    store.upload(key, tmp_path / "dataset.tar")
    reference = run.spec.dataset.model_copy(update={"archive": key})
    run = run.model_copy(update={"spec": run.spec.model_copy(update={"dataset": reference})})
    assert fetched(store, run, tmp_path / "output") == contents(tree)
