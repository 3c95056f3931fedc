"""A store or a checkout of a stranger: what it holds is data, and starts, overwrites and replaces nothing."""

import gzip
import json
import subprocess

import pytest
from registry_case import manifest_for

from gpu_offload.infra.store.errors import StoreUrlError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.project_states import places_text
from gpu_offload.orchestrator.registry import difference
from gpu_offload.orchestrator.registry.manifest import Manifest, RegistryError, parse, to_json
from gpu_offload.orchestrator.registry.revert import is_ancestor
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import DatasetSettings
from gpu_offload.orchestrator.state import state_folder
from gpu_offload.orchestrator.workspace import Workspace

EXPORT = {
    "format": "onnx",
    "file": {"name": "model.onnx", "size": 1, "sha256": "0" * 64},
    "agreement": 1.0,
    "images": 8,
}

BARE = """
[core]
repositoryformatversion = 1
bare = true
sshCommand = touch {marker}; false
[extensions]
partialClone = o
[remote "o"]
url = ssh://x/y
promisor = true
"""


@pytest.fixture
def versions(tmp_path):
    """Return a function that makes the manifests of two versions with these commits."""
    model = tmp_path / "model.pt"
    model.write_bytes(b"weights")

    def made(one, two):
        return tuple(manifest_for(model).model_copy(update={"commit": commit}) for commit in (one, two))

    return made


@pytest.mark.process
def test_a_committed_bare_repository_is_not_asked_and_runs_no_command(tmp_path, versions):
    data, marker = tmp_path / "data", tmp_path / "executed"
    for folder in ("objects", "refs/heads"):
        (data / folder).mkdir(parents=True)
    (data / "HEAD").write_text("ref: refs/heads/main\n")
    (data / "config").write_text(BARE.format(marker=marker))
    assert difference._by_git(data, *versions("1" * 40, "2" * 40)) is None
    assert not is_ancestor(data, "1" * 40, "2" * 40)
    assert not marker.exists()


@pytest.mark.process
def test_a_published_commit_is_no_option_of_git(tmp_path, versions):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    who = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(["git", "-C", str(tmp_path), *who, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    assert difference._by_git(tmp_path, *versions(f"--output={victim}", "HEAD")) is None
    assert not is_ancestor(tmp_path, "--all", "HEAD")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    "body",
    [
        b"no archive",
        gzip.compress(b"{")[:-4],
        gzip.compress(b"[1]"),
        gzip.compress(b'{"images": [1]}'),
        gzip.compress(b"[" * 100_000),
        gzip.compress(bytes(difference.MOST_BYTES + 1), 1),
    ],
    ids=["no archive", "cut", "no object", "no list of images", "deep", "bomb"],
)
def test_a_damaged_list_of_images_is_no_list(body, tmp_path, versions):
    store = open_store(f"file:{tmp_path / 'store'}")
    one, two = versions(None, None)
    store.put(difference.data_key(one.fingerprint), body)
    assert difference._by_store(store, one, two) is None


@pytest.mark.parametrize(
    "protocol", ["file", "local", "dir", "generic", "zip", "tar", "git", "reference", "data"]
)
def test_a_store_of_other_files_leads_away_from_this_machine(protocol, tmp_path):
    """A checkout may hold a planted folder or archive; `file:` has its own check."""
    with pytest.raises(StoreUrlError, match="file:FOLDER"):
        open_store(f"fsspec+{protocol}://{tmp_path}")


def test_the_folders_that_may_be_deleted_do_not_hold_the_store(tmp_path):
    settings = Settings(dataset=DatasetSettings(path="x"), root=tmp_path)
    workspace = Workspace.of(tmp_path)
    store = state_folder(tmp_path) / "store"
    assert store.is_relative_to(workspace.root)
    assert not any(store.is_relative_to(folder) for folder in workspace.caches())
    assert "cache, trees, work in" in places_text(settings, workspace)


@pytest.mark.parametrize(
    "claim",
    [
        {"cost_usd": 1e300},
        {"cost_usd": -1.0},
        {"cost_usd": float("nan")},
        {"where": "x" * 1000},
        {"metrics": {"m" * 1000: 0.5}},
        {"metrics": {f"m{number}": 0.5 for number in range(1000)}},
        {"exports": [EXPORT | {"format": "x" * 1000}]},
        {"exports": [EXPORT | {"format": "../x"}]},
    ],
    ids=lambda claim: str(claim)[:30],
)
def test_what_a_training_claims_of_itself_is_bounded_before_it_is_published(claim, versions):
    manifest, _ = versions("1" * 40, "2" * 40)
    document = json.loads(to_json(manifest)) | claim
    with pytest.raises(RegistryError):
        parse(Manifest, "manifest.json", json.dumps(document).encode())
