"""What a release keeps can be promoted, yanked and rolled back by who has a token."""

import json

import pytest
from click.testing import CliRunner
from github_case import TOKEN, GitHub
from registry_case import manifest_for

from gpu_offload.client.model_client import ModelClient
from gpu_offload.infra.github.release_store import ReleaseStore, open_release
from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreReadOnlyError,
)
from gpu_offload.orchestrator.cli import offload
from gpu_offload.orchestrator.registry import alias
from gpu_offload.orchestrator.registry.index import entry_for
from gpu_offload.orchestrator.registry.manifest import Index, Move, to_json

pytestmark = pytest.mark.simulator

A, B = "a" * 16, "b" * 16


@pytest.fixture
def github():
    with GitHub() as server:
        yield server


@pytest.fixture
def store(github, monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("GITHUB_API_URL", github.url)
    monkeypatch.setenv("GITHUB_SERVER_URL", github.url)
    return open_release(github.address)


@pytest.fixture
def published(store, tmp_path):
    """A release with two versions, as `keep` leaves it; the second is stable."""
    entries = []
    for number, version in enumerate((A, B)):
        path = tmp_path / "model.pt"
        path.write_bytes(version.encode() * 10)
        manifest = manifest_for(path, version, 100.0 + number)
        entries.append(entry_for(manifest, f"1.{number}.0"))
        store.release.upload(f"models-{version}-model.pt", path)
        store.create(f"models/{version}/manifest.json", to_json(manifest))
    moves = tuple(
        Move(at=e.created_at, version=e.version, sha256=e.sha256, semver=e.semver, size=e.size)
        for e in entries
    )
    store.create("index.json", to_json(Index(versions=tuple(entries))))
    store.create("aliases/stable.json", to_json(alias.written("stable", moves, {}, None)))
    return store


def act(github, *words):
    result = CliRunner().invoke(offload, [*words, "--store", github.address, "--json"], standalone_mode=False)
    if result.exception:
        raise result.exception
    return json.loads(result.output)


def test_a_release_is_rolled_back_and_applications_follow(published, github, tmp_path):
    application = ModelClient(github.address, tmp_path / "app", interval=0)
    assert application.get().version == B
    assert act(github, "rollback", "--why", "worse at night")["aliases"] == {"stable": A}
    assert application.get().version == A
    act(github, "yank", "1.1.0", "--why", "it was the camera", "--undo")
    act(github, "promote", "1.1.0", "--why", "good after all")
    assert application.get().version == B
    history = alias.alias_of(published, "stable").moves
    assert [m.version for m in history] == [A, B, A, B]
    assert not [name for name in github.files() if name.endswith(".new")]


def test_documents_are_created_once_and_replaced_only_as_they_were(store):
    etag = store.create("aliases/x.json", b"1")
    assert store.create("aliases/x.json", b"1") == etag
    with pytest.raises(ObjectExistsError):
        store.create("aliases/x.json", b"2")
    new = store.replace("aliases/x.json", b"2", etag)
    with pytest.raises(ObjectChangedError):
        store.replace("aliases/x.json", b"3", etag)
    assert store.read("aliases/x.json") == (b"2", new)
    assert [info.key for info in store.list("aliases/")] == ["aliases/x.json"]
    store.delete("aliases/x.json")
    with pytest.raises(ObjectMissingError):
        store.read("aliases/x.json")
    with pytest.raises(ObjectChangedError):
        store.replace("aliases/x.json", b"3", new)
    with pytest.raises(StoreReadOnlyError):
        list(store.list("models/"))


def test_the_token_goes_to_its_own_server_only(github):
    environment = {"GITHUB_TOKEN": TOKEN}
    assert open_release("https://evil.example/us/boards/releases/download/models", environment) is None
    assert open_release("https://github.com/us/boards/releases/download/models", {}) is None
    assert open_release("https://github.com/us/boards", environment) is None
    own = environment | {"GITHUB_SERVER_URL": github.url, "GITHUB_API_URL": github.url}
    elsewhere = open_release("https://github.com/us/boards/releases/download/models", own)
    assert isinstance(elsewhere, ReleaseStore)
    assert elsewhere.release.base.startswith("https://api.github.com/repos/us/boards")
