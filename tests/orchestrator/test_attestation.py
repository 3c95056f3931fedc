"""`offload pull --verify-signer`: only a file that a workflow of the named repository attested is put into place."""

import os
import sys

import pytest
from registry_case import manifest_for

from gpu_offload.infra.store.folder import FolderStore
from gpu_offload.orchestrator.registry import attestation, download
from gpu_offload.orchestrator.registry.attestation import AttestationError, SignerError
from gpu_offload.orchestrator.registry.manifest import to_json

GH = """#!{python}
import hashlib, sys
assert sys.argv[1:3] == ["attestation", "verify"] and sys.argv[4:] == ["--repo", "us/boards"], sys.argv
with open(sys.argv[3], "rb") as file:
    if hashlib.sha256(file.read()).hexdigest() != "{attested}":
        sys.exit("no attestations found\x1b[2J for this artifact")
"""


@pytest.fixture
def gh(tmp_path, monkeypatch):
    """Return a function that makes a stand-in for `gh`, which knows one file as attested: GitHub cannot be asked here."""

    def made(attested):
        program = tmp_path / "bin" / "gh"
        program.parent.mkdir(exist_ok=True)
        program.write_text(GH.format(python=sys.executable, attested=attested))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return made


@pytest.fixture
def published(tmp_path):
    """Return a store with one version, and the version's manifest."""
    store = FolderStore(tmp_path / "store")
    model = tmp_path / "trained.pt"
    model.write_bytes(b"weights")
    manifest = manifest_for(model)
    store.upload(f"models/{manifest.version}/model.pt", model, create=True)
    store.create(f"models/{manifest.version}/manifest.json", to_json(manifest))
    return store, manifest


@pytest.mark.process
def test_an_attested_model_is_put_into_place_and_asked_about_again(published, gh, tmp_path):
    store, manifest = published
    gh(manifest.model.sha256)
    target = tmp_path / "app" / "model.pt"
    assert download.pull(store, manifest.version, target, signer="us/boards")[1:] == (target, True)
    assert download.pull(store, manifest.version, target, signer="us/boards")[2] is False
    gh("0" * 64)
    with pytest.raises(AttestationError):
        download.pull(store, manifest.version, target, signer="us/boards")
    assert target.read_bytes() == b"weights"


@pytest.mark.process
def test_a_model_that_is_not_attested_leaves_what_was_there(published, gh, tmp_path):
    store, manifest = published
    gh("0" * 64)
    target = tmp_path / "app" / "model.pt"
    target.parent.mkdir()
    target.write_bytes(b"older")
    with pytest.raises(AttestationError, match="us/boards") as caught:
        download.pull(store, manifest.version, target, signer="us/boards")
    assert "no attestations found" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert target.read_bytes() == b"older"
    assert [path.name for path in target.parent.iterdir()] == ["model.pt"]


def test_without_gh_nothing_is_taken_on_trust(published, tmp_path, monkeypatch):
    store, manifest = published
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AttestationError, match="gh"):
        download.pull(store, manifest.version, tmp_path / "app" / "model.pt", signer="us/boards")
    assert not (tmp_path / "app" / "model.pt").exists()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "boards",
        "us/boards/x",
        "--repo",
        "us/b oards",
        "-x/y",
        "us/\x1b[2J",
        "us/..",
        "us/.",
        "us-/x",
        "u--s/x",
        "a" * 40 + "/x",
    ],
)
def test_a_signer_is_a_repository_at_github(name, tmp_path):
    with pytest.raises(SignerError) as caught:
        attestation.verify(tmp_path, name)
    assert caught.value.exit_code == 2
