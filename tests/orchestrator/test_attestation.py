"""`offload pull --verify-signer`: only a file that a workflow of the named repository attested is put into place."""

import hashlib
import os
import sys

import pytest
from registry_case import manifest_for

from gpu_offload.infra.store.folder import FolderStore
from gpu_offload.orchestrator.registry import attestation, download
from gpu_offload.orchestrator.registry.attestation import AttestationError, SignerError, checksums
from gpu_offload.orchestrator.registry.manifest import RegistryError, to_json
from gpu_offload.remote_job.result import Artifact, Export

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
    """Return a store with one version, as weights and as ONNX, and the digest of its manifest."""
    store = FolderStore(tmp_path / "store")
    model, onnx = tmp_path / "trained.pt", tmp_path / "trained.onnx"
    model.write_bytes(b"weights")
    onnx.write_bytes(b"graph")
    file = Artifact(name="model.onnx", size=5, sha256=hashlib.sha256(b"graph").hexdigest())
    export = Export(format="onnx", file=file, agreement=1.0, images=8)
    manifest = manifest_for(model).model_copy(update={"exports": (export,)})
    for path in (model, onnx):
        store.upload(f"models/{manifest.version}/model{path.suffix}", path, create=True)
    store.create(f"models/{manifest.version}/manifest.json", to_json(manifest))
    return store, manifest


def manifest_digest(manifest):
    return hashlib.sha256(to_json(manifest)).hexdigest()


@pytest.mark.process
@pytest.mark.parametrize("name", ["model.pt", "model.onnx"])
def test_a_file_of_an_attested_manifest_is_put_into_place_and_asked_about_again(
    published, gh, tmp_path, name
):
    store, manifest = published
    gh(manifest_digest(manifest))
    target = tmp_path / "app" / name
    export = download.format_of(target)
    pulled = download.pull(store, manifest.version, target, export=export, signer="us/boards")
    assert pulled[1:] == (target, True)
    body = target.read_bytes()
    assert download.pull(store, manifest.version, target, export=export, signer="us/boards")[2] is False
    gh("0" * 64)
    with pytest.raises(AttestationError):
        download.pull(store, manifest.version, target, export=export, signer="us/boards")
    assert target.read_bytes() == body


@pytest.mark.process
@pytest.mark.parametrize(
    "change", [{"license": "MIT"}, {"cost_usd": 0.0, "commit": "0" * 40}, {"metrics": {"map50": 1.0}}]
)
def test_a_manifest_that_was_changed_since_leaves_what_was_there(published, gh, tmp_path, change):
    """Write access to the store is enough to change a version's manifest together with its weights."""
    store, manifest = published
    gh(manifest_digest(manifest))
    key = f"models/{manifest.version}/manifest.json"
    store.delete(key)
    store.create(key, to_json(manifest.model_copy(update=change)))
    target = tmp_path / "app" / "model.pt"
    target.parent.mkdir()
    target.write_bytes(b"older")
    with pytest.raises(AttestationError, match="us/boards") as caught:
        download.pull(store, manifest.version, target, signer="us/boards")
    assert "no attestations found" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert target.read_bytes() == b"older"
    assert [path.name for path in target.parent.iterdir()] == ["model.pt"]


@pytest.mark.process
def test_an_attested_manifest_of_another_version_is_not_taken_for_this_one(published, gh, tmp_path):
    store, manifest = published
    gh(manifest_digest(manifest))
    other = "f" * 16
    for name in ("manifest.json", "model.pt"):
        store.create(f"models/{other}/{name}", store.read(f"models/{manifest.version}/{name}")[0])
    with pytest.raises(RegistryError):
        download.pull(store, other, tmp_path / "app" / "model.pt", signer="us/boards")
    assert not (tmp_path / "app").exists()


def test_a_workflow_attests_the_manifest_and_every_file_it_names(published):
    _, manifest = published
    names = dict(map(str.split, checksums(to_json(manifest)).splitlines()))
    folder = f"models/{manifest.version}"
    assert names == {
        manifest_digest(manifest): f"{folder}/manifest.json",
        **{file.sha256: f"{folder}/{file.name}" for file in manifest.files},
    }


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
