"""The registry: what is visible is complete, whichever process is killed at whichever moment."""

import hashlib
import json
import os

import pytest
from crash_scenario import Scenario, result_of, run_record
from model_server import ModelServer
from registry_case import DyingStore, manifest_for

from gpu_offload.infra.store.errors import CorruptObjectError, ObjectMissingError, StoreDeniedError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.registry import download, publish
from gpu_offload.orchestrator.registry.manifest import RegistryError, model_key, to_json
from gpu_offload.orchestrator.run import collect
from gpu_offload.remote_job.files.artifact import describe
from gpu_offload.remote_job.result import Export


def publish_now(store, manifest, model):
    return publish.publish(store, manifest, model, note=lambda _text: None)


def with_export(manifest, model):
    """Return a manifest with an export beside the model."""
    path = model.with_name("model.onnx")
    path.write_bytes(b"graph" * 500)
    export = Export(format="onnx", file=describe(path), agreement=1.0, images=8)
    return manifest.model_copy(update={"exports": (export,), "failed_exports": {"torchscript": "no"}})


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("effects", [1, 2, 3])
def test_a_version_is_visible_only_with_its_exports(store, model, effects, after):
    manifest = with_export(manifest_for(model), model)
    with pytest.raises(KeyboardInterrupt):
        publish_now(DyingStore(store, effects, after=after), manifest, model)
    if publish.manifest_of(store, "aaaa") is not None:
        assert store.stat(model_key("aaaa", "model.onnx")) is not None
    publish_now(store, manifest, model)
    assert store.read(model_key("aaaa", "model.onnx"))[0] == b"graph" * 500


def test_an_export_is_pulled_by_its_format(store, model, tmp_path):
    publish_now(store, with_export(manifest_for(model), model), model)
    _, path, _ = download.pull(store, "stable", tmp_path / "app", export="onnx")
    assert (path.name, path.read_bytes()) == ("model.onnx", b"graph" * 500)
    assert download.pull(store, "stable", tmp_path / "app", export="pt")[1].name == "model.pt"
    with pytest.raises(RegistryError, match="torchscript: no"):
        download.pull(store, "stable", tmp_path / "app", export="torchscript")
    with pytest.raises(RegistryError, match=r"only as model\.pt, onnx"):
        download.pull(store, "stable", tmp_path / "app", export="mlx")


@pytest.mark.parametrize("name", ["model.pt", "../model.onnx", "manifest.json"])
def test_an_export_whose_name_is_no_models_is_refused(store, model, name):
    manifest = with_export(manifest_for(model), model)
    export = manifest.exports[0]
    forged = export.model_copy(update={"file": export.file.model_copy(update={"name": name})})
    store.put(model_key("aaaa", "manifest.json"), to_json(manifest.model_copy(update={"exports": (forged,)})))
    with pytest.raises(RegistryError, match="replaced"):
        publish.manifest_of(store, "aaaa")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("effects", range(1, 5))
def test_a_publish_killed_at_any_write_shows_no_incomplete_version_and_can_be_repeated(
    store, model, effects, after
):
    manifest = manifest_for(model)
    with pytest.raises(KeyboardInterrupt):
        publish_now(DyingStore(store, effects, after=after), manifest, model)
    for entry in publish.versions(store):
        found = publish.manifest_of(store, entry.version)
        body, _ = store.read(model_key(entry.version))
        assert hashlib.sha256(body).hexdigest() == found.model.sha256
    alias = publish.alias_of(store, "stable")
    assert alias is None or publish.manifest_of(store, alias.version) is not None

    publish_now(store, manifest, model)

    assert [e.version for e in publish.versions(store)] == ["aaaa"]
    assert publish.alias_of(store, "stable").version == "aaaa"


def test_the_second_publisher_gets_what_the_first_published(store, model, tmp_path):
    first = publish_now(store, manifest_for(model), model)
    other = tmp_path / "other.pt"
    other.write_bytes(b"different weights")
    second = publish_now(store, manifest_for(other, run="aaaa-2"), other)
    assert second == first
    assert store.read(model_key("aaaa"))[0] == model.read_bytes()


def test_a_model_without_a_manifest_is_replaced_because_no_reader_sees_it(store, model):
    store.put(model_key("aaaa"), b"left by a publish whose result got lost")
    notes = []
    publish.publish(store, manifest_for(model), model, note=notes.append)
    assert store.read(model_key("aaaa"))[0] == model.read_bytes()
    assert "replacing models/aaaa/model.pt" in notes[0]


def test_stable_moves_to_the_newest_publish_and_not_back_by_an_old_one_that_is_completed_late(store, model):
    old, new = manifest_for(model, "aaaa", 100.0), manifest_for(model, "bbbb", 200.0)
    publish_now(store, old, model)
    publish_now(store, new, model)
    assert publish.complete(store, old) is False
    assert publish.alias_of(store, "stable").version == "bbbb"


def test_stable_moves_back_when_an_old_version_is_wanted_again(store, model):
    old, new = manifest_for(model, "aaaa", 100.0), manifest_for(model, "bbbb", 200.0)
    publish_now(store, old, model)
    publish_now(store, new, model)
    assert publish.complete(store, old, again=True) is True
    assert publish.alias_of(store, "stable").version == "aaaa"


def test_a_version_is_found_by_alias_name_or_unambiguous_beginning(store, model):
    publish_now(store, manifest_for(model, "abcd1234"), model)
    publish_now(store, manifest_for(model, "abff5678"), model)
    assert download.resolve(store, "stable").version == "abff5678"
    assert download.resolve(store, "abcd").version == "abcd1234"
    with pytest.raises(RegistryError, match="ambiguous: abcd1234, abff5678"):
        download.resolve(store, "ab")
    with pytest.raises(RegistryError, match=r"no version or alias 'zz'.*abff5678"):
        download.resolve(store, "zz")
    with pytest.raises(RegistryError, match=r"no version or alias '\.\./x'"):
        download.resolve(store, "../x")


def test_pull_downloads_once_verified_and_again_only_when_the_file_is_not_the_version(store, model, tmp_path):
    publish_now(store, manifest_for(model), model)
    folder = tmp_path / "app"
    _, path, downloaded = download.pull(store, "stable", folder)
    assert (path, downloaded) == (folder / "model.pt", True)
    assert path.read_bytes() == model.read_bytes()
    assert download.pull(store, "stable", folder)[2] is False
    path.write_bytes(b"half a download")
    assert download.pull(store, "stable", folder)[2] is True
    assert path.read_bytes() == model.read_bytes()


@pytest.mark.simulator
@pytest.mark.simulator
def test_pull_from_a_web_address_resumes_what_an_earlier_command_left(store, model, tmp_path):
    model.write_bytes(os.urandom(200_000))
    publish_now(store, manifest_for(model), model)
    with ModelServer() as server:
        server.files = {f"/{info.key}": store.read(info.key)[0] for info in store.list("")}
        target, web, told = tmp_path / "app" / "m.pt", open_store(server.url), []
        server.cut("model.pt", 50_000)
        server.status("model.pt", 404, times=1)
        with pytest.raises(ObjectMissingError):
            download.pull(web, "stable", target)
        assert not target.exists()
        server.requests.clear()
        download.pull(web, "stable", target, progress=lambda done, _total: told.append(done))
        assert server.requests[-1].headers["Range"] == "bytes=50000-"
        assert target.read_bytes() == model.read_bytes()
        assert told[-1] == 200_000
        server.files["/models/aaaa/model.pt"] = os.urandom(200_000)
        with pytest.raises(CorruptObjectError, match="sha256"):
            download.pull(web, "stable", tmp_path / "other.pt")


def test_pull_of_a_corrupt_model_leaves_the_old_file_alone(store, model, tmp_path):
    publish_now(store, manifest_for(model), model)
    target = tmp_path / "model.pt"
    target.write_bytes(b"the model of before")
    store.put(model_key("aaaa"), b"x" * len(model.read_bytes()))
    with pytest.raises(Exception, match="sha256"):
        download.pull(store, "stable", target)
    assert target.read_bytes() == b"the model of before"
    assert [p.name for p in tmp_path.glob("*model*")] == ["model.pt"]


def test_a_document_of_another_version_is_an_error_that_names_it(store):
    store.put("index.json", json.dumps({"format": 2, "versions": []}).encode())
    with pytest.raises(RegistryError, match=r"index\.json is no Index"):
        publish.versions(store)


def test_a_stray_model_that_the_store_protects_is_an_error_that_says_what_to_do(store, model):
    """The bucket's policy of `offload bootstrap` denies every overwrite below models/."""
    store.put(model_key("aaaa"), b"no manifest")

    class Protected:
        def __getattr__(self, name):
            return getattr(store, name)

        def upload(self, key, path, *, create=False):
            if create:
                return store.upload(key, path, create=True)
            raise StoreDeniedError("AccessDenied")

    with pytest.raises(RegistryError, match="delete it as the bucket's owner"):
        publish_now(Protected(), manifest_for(model), model)


def test_a_result_that_did_not_complete_its_epochs_does_not_count(store, tmp_path):
    """Whatever it says of itself: it is not published, and the training goes on from its checkpoint."""
    scenario = Scenario(epochs=500)
    result = result_of(scenario, 1).model_copy(update={"epochs_completed": 470})
    with pytest.raises(RegistryError, match="completed 470 of 500 epochs"):
        collect.verify_staged(store, run_record(scenario), result, tmp_path)


@pytest.mark.parametrize("required", [False, True])
def test_a_failed_export_holds_a_model_back_only_where_the_configuration_says_so(store, tmp_path, required):
    scenario = Scenario()
    run, result = run_record(scenario), result_of(scenario, 1)
    run = run.model_copy(update={"spec": run.spec.model_copy(update={"exports_required": required})})
    result = result.model_copy(update={"failed_exports": {"onnx": "another model"}})
    wanted = collect.UnfitResultError if required else ObjectMissingError  # nothing is staged here
    with pytest.raises(wanted):
        collect.verify_staged(store, run, result, tmp_path)


@pytest.mark.parametrize(
    ("name", "form"), [("a.onnx", "onnx"), ("a.safetensors", "safetensors"), ("a.pt", None), ("app", None)]
)
def test_a_destination_that_is_named_after_an_export_gets_it(name, form, tmp_path):
    assert download.format_of(tmp_path / name) == form
