"""The commands about what is published, from the command line."""

import json

import pytest
import yaml
from click.testing import CliRunner
from clone_case import git
from registry_case import manifest_for

from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.synthetic import generate
from gpu_offload.errors import OffloadError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.cli import offload
from gpu_offload.orchestrator.registry import difference, listing, publish
from gpu_offload.orchestrator.registry.card import card
from gpu_offload.orchestrator.registry.index import entry_for

DAY = 86_400.0
MARCH_3 = 1_772_496_000.0
"""2026-03-03T00:00Z."""


@pytest.fixture
def project(tmp_path):
    """Return a project with two versions: 1.0.0 of 2 March, and 1.1.0, published at noon of 3 March."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "offload.toml").write_text('[dataset]\npath = "raw"\n[store]\nurl = "file:store"\n')
    store = open_store(f"file:{tmp_path / 'store'}")
    model = tmp_path / "model.pt"
    for version, at, facts in (
        ("aaaa1111", MARCH_3 - DAY, {}),
        ("bbbb2222", MARCH_3 + DAY / 2, {"fingerprint": "e" * 64, "epochs": 5, "metrics": {"map50": 0.75}}),
    ):
        model.write_bytes(version.encode() * 100)
        per_class = {"circle": {"map50": 0.5 if version < "b" else 0.75}, "square": {"map50": 0.9}}
        manifest = manifest_for(model, version, at).model_copy(update={"per_class": per_class, **facts})
        publish.publish(store, manifest, model, note=lambda _: None)
    return tmp_path


def run(project, *arguments):
    result = CliRunner().invoke(
        offload, [arguments[0], *arguments[1:], "-C", str(project)], standalone_mode=False
    )
    if result.exception is not None:
        raise result.exception
    return result.output


def run_json(project, *arguments):
    return json.loads(run(project, *arguments, "--json"))


def test_the_list_shows_numbers_aliases_and_metrics(project):
    newest, oldest = run(project, "models").splitlines()[-2:]
    assert newest.split()[:2] == ["1.1.0", "bbbb2222"]
    assert "stable" in newest
    assert "0.750" in newest
    assert oldest.split()[0] == "1.0.0"
    found = run_json(project, "models")
    assert (found["stable"], found["aliases"]) == ("bbbb2222", {"stable": "bbbb2222"})
    assert [v["semver"] for v in found["versions"]] == ["1.1.0", "1.0.0"]


def test_show_prints_the_whole_provenance(project):
    found = run_json(project, "models", "show", "1.1.0")
    assert (found["version"], found["semver"], found["parent"]) == ("bbbb2222", "1.1.0", "aaaa1111")
    assert [m["version"] for m in found["moves"]["stable"]] == ["bbbb2222"]
    text = run(project, "models", "show", "stable")
    for fact in ("1.1.0 (bbbb2222)", "aaaa1111", "e" * 64, "mAP50 0.7500"):
        assert fact in text


def test_the_address_of_a_version_is_that_of_its_own_file(tmp_path):
    """Code of the user's own chooses the suffix."""
    model = tmp_path / "model.bin"
    model.write_bytes(b"weights")
    store, manifest = open_store("file:store", base=tmp_path), manifest_for(model)
    file = manifest.model.model_copy(update={"name": model.name})
    publish.publish(store, manifest.model_copy(update={"model": file}), model, note=lambda _: None)
    assert listing.provenance(store, "aaaa", str).url == "models/aaaa/model.bin"


def test_what_was_stable_on_a_day(project):
    assert run_json(project, "models", "history", "--at", "2026-03-02")["moves"][0]["version"] == "aaaa1111"
    assert (
        run_json(project, "models", "history", "--at", "2026-03-03T11:59")["moves"][0]["version"]
        == "aaaa1111"
    )
    assert run_json(project, "models", "history", "--at", "2026-03-03")["moves"][0]["version"] == "bbbb2222"
    assert run_json(project, "models", "history", "--at", "2026-01-01")["moves"] == []
    assert len(run(project, "models", "history").splitlines()) == 2
    with pytest.raises(Exception, match="2026-03-03"):
        run(project, "models", "history", "--at", "yesterday")
    with pytest.raises(OffloadError, match="no alias 'beta'"):
        run(project, "models", "history", "beta")


def test_diff_shows_settings_metrics_and_classes(project):
    found = run_json(project, "models", "diff", "1.0.0", "1.1.0")
    assert found["settings"] == {"epochs": [3, 5]}
    assert found["metrics"] == {"map50": [0.5, 0.75]}
    assert found["per_class"] == {"circle": {"map50": [0.5, 0.75]}}
    assert found["data"] is None
    text = run(project, "models", "diff", "1.0.0", "stable")
    assert text.startswith("1.0.0 (aaaa1111) -> 1.1.0 (bbbb2222)")
    assert "+0.2500" in text


def test_diff_across_tasks_is_in_words_and_names_only_what_differs(tmp_path):
    model = tmp_path / "model.pt"
    model.write_bytes(b"weights")
    store, one = open_store("file:store", base=tmp_path), manifest_for(model)
    one = one.model_copy(update={"classes": ("a", "b"), "hyperparameters": {"lr0": 0.1, "mosaic": 0.5}})
    two = manifest_for(model, "bbbb").model_copy(
        update={"task": "classify", "classes": ("b",), "hyperparameters": {"lr0": 0.2, "mosaic": 0.5}}
    )
    for each in (one, two):
        publish.publish(store, each, model, note=print)
    lines = difference.difference(store, "1.0.0", "2.0.0").text().splitlines()
    assert {"task: detect -> classify", "classes: a, b -> b", "lr0: 0.1 -> 0.2"} <= set(lines)
    assert not any("mosaic" in line for line in lines)


def test_text_from_the_store_cannot_move_the_terminals_cursor(project):
    run(project, "promote", "1.0.0", "--why", "good\x1b[2J\u202eevil")
    for command in (["models", "history"], ["models", "show", "1.0.0"]):
        text = run(project, *command)
        assert "good" in text
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_diff_knows_the_images_from_the_store(tmp_path, project):
    store = open_store(f"file:{project / 'store'}")
    generate(tmp_path / "shapes", images=12, size=32)
    snapshot = read_snapshot(tmp_path / "shapes", classes=("circle", "square", "triangle"))
    difference.record_data(store, "f" * 64, snapshot)
    gone = next(iter(snapshot.samples)).image
    (tmp_path / "shapes" / gone).unlink()
    for label in (tmp_path / "shapes").glob(f"{gone.rpartition('.')[0]}.txt"):
        label.unlink()
    left = read_snapshot(tmp_path / "shapes", classes=("circle", "square", "triangle"))
    difference.record_data(store, "e" * 64, left)
    difference.record_data(store, "e" * 64, left)
    data = run_json(project, "models", "diff", "1.0.0", "1.1.0")["data"]
    assert [name.partition("/")[2] for name in data["removed"]] == [gone]
    assert (data["added"], data["changed"]) == ([], [])


@pytest.mark.process
def test_diff_knows_the_images_from_git_where_the_store_does_not(project):
    commits = []
    git(project, "init", "-q")
    for name in ("one.png", "two.png"):
        (project / "raw" / name).write_bytes(name.encode())
        git(project, "add", "raw")
        git(project, "commit", "-qm", name)
        commits.append(git(project, "rev-parse", "HEAD"))
    store = open_store(f"file:{project / 'store'}")
    for version, commit in zip(("aaaa1111", "bbbb2222"), commits, strict=True):
        key = f"models/{version}/manifest.json"
        manifest = json.loads(store.read(key)[0]) | {"commit": commit}
        store.put(key, json.dumps(manifest).encode())
    assert run_json(project, "models", "diff", "1.0.0", "1.1.0")["data"]["added"] == ["two.png"]


def test_promote_yank_and_rollback_say_what_they_did(project):
    assert "1.0.0 (aaaa1111) promoted" in run(project, "promote", "1.0.0", "--why", "calmer")
    assert run_json(project, "models")["stable"] == "aaaa1111"
    assert (
        run_json(project, "promote", "1.1.0", "--rollout", "10")["done"]
        == "promoted for 10% of installations"
    )
    assert "for 0.4%" in run(project, "promote", "1.1.0", "--rollout", "0.4")
    assert "for 0.4%" in run(project, "models", "history")
    assert "stable means 1.0.0 (aaaa1111)" in run(project, "yank", "1.1.0", "--why", "bad")
    assert "yanked" in run(project, "models")
    with pytest.raises(OffloadError, match="bad"):
        run(project, "promote", "1.1.0")
    with pytest.raises(OffloadError, match="no version before"):
        run(project, "rollback", "--why", "x")
    run(project, "yank", "1.1.0", "--why", "fine after all", "--undo")
    run(project, "promote", "1.1.0")
    assert run_json(project, "rollback", "--why", "worse")["aliases"] == {"stable": "aaaa1111"}


def test_a_reason_is_asked_for(project):
    for command in (["yank", "1.1.0"], ["rollback"]):
        with pytest.raises(Exception, match="why"):
            run(project, *command)


def test_the_card_has_the_hubs_metadata_and_shows_names_as_they_are(project):
    store = open_store(f"file:{project / 'store'}")
    text = store.read("models/bbbb2222/README.md")[0].decode()
    _, head, body = text.split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert metadata["pipeline_tag"] == "object-detection"
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.75
    assert "1.1.0" in body
    manifest = publish.manifest_of(store, "bbbb2222").model_copy(
        update={"per_class": {"<img src=x>|[a](b)": {"map50": 0.1}}, "classes": ("---\n# evil",)}
    )
    shown = card(manifest, entry_for(manifest, "1.1.0"))
    assert "<img" not in shown
    assert "\n# evil" not in shown


def test_a_yanked_version_is_not_promoted_and_what_to_do_is_said(project):
    run(project, "yank", "1.0.0", "--why", "bad at night")
    for command in (["promote", "1.0.0"], ["rollback", "--to", "1.0.0", "--why", "x"]):
        with pytest.raises(OffloadError, match=r"offload yank 1\.0\.0 --undo"):
            run(project, *command)
    with pytest.raises(OffloadError, match=r"--to.*offload yank 1\.1\.0"):
        run(project, "rollback", "--why", "x")


def test_a_number_that_json_cannot_write_is_null_in_a_listing(project):
    index = project / "store" / "index.json"
    index.write_text(index.read_text().replace(f'"created_at":{MARCH_3 - DAY}', '"created_at":NaN'))
    found = run_json(project, "models")
    assert [version["created_at"] for version in found["versions"]] == [MARCH_3 + DAY / 2, None]


def test_a_manifest_as_large_as_none_is_refused(project):
    (project / "store" / "models" / "aaaa1111" / "manifest.json").write_text(" " * (5 << 20))
    with pytest.raises(OffloadError, match="more than any Manifest"):
        run(project, "models", "show", "1.0.0")


def test_a_rollback_that_is_refused_has_changed_nothing(project):
    run(project, "promote", "1.1.0", "--minimum", "1.1.0")
    with pytest.raises(OffloadError, match="below"):
        run(project, "rollback", "--to", "1.0.0", "--why", "x")
    assert "yanked" not in run(project, "models")
    assert run_json(project, "models")["stable"] == "bbbb2222"
