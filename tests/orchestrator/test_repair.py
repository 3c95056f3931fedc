"""`offload train --repair`: a damaged published version is healed with the very bytes that its manifest names."""

import io

import pytest
from registry_case import manifest_for
from run_case import T0, run_of

from gpu_offload.infra.store.errors import CorruptObjectError, ObjectMissingError, StoreDeniedError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.lifecycle.repair import repair_version
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.download import pull
from gpu_offload.orchestrator.registry.manifest import RegistryError
from gpu_offload.orchestrator.run.journal import Journal

KEY = "models/aaaa/model.pt"
MODEL = b"a model" * 100


class Frozen:
    """A store that refuses to replace or delete what is published, as the bucket's policy does."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        method = getattr(self.store, name)

        def guarded(key, *args, **kwargs):
            if name in {"upload", "put", "delete"} and key.startswith("models/"):
                raise StoreDeniedError(f"{key}: denied")
            return method(key, *args, **kwargs)

        return guarded if name in {"upload", "put", "delete"} else method


@pytest.fixture
def store(tmp_path):
    """A store with the version aaaa, and the staged result of the run that made it."""
    store = open_store(f"file:{tmp_path / 'store'}")
    (tmp_path / "model.pt").write_bytes(MODEL)
    publish.publish(store, manifest_for(tmp_path / "model.pt"), tmp_path / "model.pt", note=lambda _: None)
    Journal(store).begin(run_of(now=T0, id="aaaaaaaaaaaa-1"))
    store.put("runs/aaaaaaaaaaaa-1/result/model.pt", MODEL)
    return store


def repair(store):
    told = io.StringIO()
    repair_version(store, "aaaa", "a" * 64, Console(told))
    return told.getvalue()


@pytest.mark.parametrize("damage", [b"", MODEL[:-1], MODEL.replace(b"a", b"b"), None])
def test_a_damaged_or_missing_model_says_how_to_heal_it_and_is_healed(store, tmp_path, damage):
    if damage is None:
        store.delete(KEY)
    else:
        store.put(KEY, damage)
    with pytest.raises((CorruptObjectError, ObjectMissingError), match="--repair"):
        pull(store, "stable", tmp_path / "got.pt")
    assert "published again" in repair(store)
    assert store.read(KEY)[0] == MODEL
    assert pull(store, "stable", tmp_path / "got.pt")[2]


def test_a_whole_version_is_left_alone(store):
    before = store.stat(KEY)
    assert "is whole" in repair(store)
    assert store.stat(KEY) == before


def test_without_a_whole_copy_it_says_that_a_training_is_needed_and_changes_nothing(store):
    store.put(KEY, b"damaged")
    store.put("runs/aaaaaaaaaaaa-1/result/model.pt", b"damaged, too")
    with pytest.raises(RegistryError, match="a training is needed"):
        repair(store)
    assert store.read(KEY)[0] == b"damaged"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"version": 1}'])
def test_an_unreadable_manifest_is_removed_so_that_the_training_is_published_again(store, body):
    store.put("models/aaaa/manifest.json", body)
    with pytest.raises(RegistryError):
        publish.manifest_of(store, "aaaa")
    repair(store)
    assert publish.manifest_of(store, "aaaa") is None


@pytest.mark.parametrize("key", [KEY, "models/aaaa/manifest.json"])
def test_where_the_store_refuses_to_replace_it_the_error_says_what_the_owner_must_delete(store, key):
    store.put(key, b"damaged")
    with pytest.raises(RegistryError, match=f"delete.*{key}|{key}.*delete"):
        repair(Frozen(store))
