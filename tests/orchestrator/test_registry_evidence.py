"""Whether a version is good enough for `stable`, and what is said of it."""

import io
import math
from pathlib import Path

import pytest
from registry_case import manifest_for

from gpu_offload.dataset.finding import DatasetError, error
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import alias, download, publish
from gpu_offload.orchestrator.registry.evaluation import Judge
from gpu_offload.orchestrator.registry.evidence import judge
from gpu_offload.orchestrator.registry.manifest import RegistryError
from gpu_offload.orchestrator.settings.sections import RegistrySettings


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    return path


def version(model, name, value, **facts):
    metrics = {} if value is None else {"map50_95": value, "map50": value}
    return manifest_for(model, name).model_copy(update={"metrics": metrics, **facts})


@pytest.mark.parametrize(
    ("new", "old", "floor", "promoted", "said"),
    [
        (0.5, None, 0.0, True, "no version in use"),
        (0.05, None, 0.1, False, "below the floor 0.100"),
        (0.05, 0.01, 0.1, False, "below the floor"),
        (0.1, None, 0.1, True, "no version in use"),
        (0.5, 0.5, 0.0, True, "(+0.000)"),
        (0.49, 0.5, 0.0, True, "(-0.010)"),
        (0.48, 0.5, 0.0, True, "(-0.020)"),
        (0.47, 0.5, 0.0, False, "worse by more than 0.020"),
        (0.9, 0.5, 0.0, True, "by their own validations"),
        (0.0, 0.7, 0.0, False, "worse"),
        (0.0, None, RegistrySettings().worst, False, "below the floor"),
        (0.0004, None, RegistrySettings().worst, False, "below the floor"),
        (0.002, None, RegistrySettings().worst, True, "no version in use"),
        (math.nan, None, 0.0, False, "not finite"),
        (None, 0.5, 0.0, False, "does not have a metric"),
        (None, None, 0.0, True, "does not have a metric"),
    ],
)
def test_a_version_must_reach_the_floor_and_not_be_worse_than_stable(model, new, old, floor, promoted, said):
    rival = None if old is None else version(model, "aaaa", old)
    verdict = judge(version(model, "bbbb", new), rival, None, metric=None, floor=floor, tolerance=0.02)
    assert (verdict.promoted, said in verdict.why) == (promoted, True), verdict.why


@pytest.mark.parametrize(
    ("new", "old", "floor", "data", "promoted", "said"),
    [
        (0.9, None, None, "b", True, "no version in use"),
        (0.0, None, None, "b", True, "no version in use"),
        (0.9, None, 0.5, "b", False, "above the floor"),
        (0.5, None, 0.5, "b", True, "no version in use"),
        (math.inf, None, None, "b", False, "not finite"),
        (0.1, 0.5, None, "a", True, "(-0.400)"),
        (0.52, 0.5, None, "a", True, "(+0.020)"),
        (0.53, 0.5, None, "a", False, "worse by more than 0.020"),
        (0.9, 0.5, None, "b", True, "different"),
        (1.1, 0.5, None, "b", False, "worse by more than 0.500"),
    ],
)
def test_of_an_error_less_is_better(model, new, old, floor, data, promoted, said):
    """The floor is a ceiling then, and only the user can say which."""
    settings = RegistrySettings(metric="map50_95", goal="minimize", floor=floor)
    rival = None if old is None else version(model, "aaaa", old).model_copy(update={"fingerprint": "a"})
    verdict = judge(
        version(model, "bbbb", new).model_copy(update={"fingerprint": data}),
        rival,
        None,
        metric=settings.metric,
        goal=settings.goal,
        floor=settings.worst,
        tolerance=settings.tolerance,
    )
    assert (verdict.promoted, said in verdict.why) == (promoted, True), verdict.why


def test_what_was_seen_on_the_same_images_counts_more_than_own_validations(model):
    """New data made validation harder: the old model would do no better on it."""
    paired = {"old": 0.38, "new": 0.40, "low": -0.01, "high": 0.05, "images": 77, "split": "val"}
    verdict = judge(
        version(model, "bbbb", 0.40),
        version(model, "aaaa", 0.60),
        paired,
        metric=None,
        floor=0.0,
        tolerance=0.02,
    )
    assert verdict.promoted
    assert verdict.evidence | paired == verdict.evidence
    assert (verdict.evidence["against"], verdict.evidence["method"]) == ("aaaa", "paired")
    assert "on the same 77 images" in verdict.why


@pytest.mark.parametrize(("value", "promoted"), [(0.45, True), (0.31, True), (0.29, False), (0.0, False)])
def test_on_different_images_only_a_collapse_counts(model, value, promoted):
    new = version(model, "bbbb", value, fingerprint="e" * 64)
    verdict = judge(new, version(model, "aaaa", 0.60), None, metric=None, floor=0.0, tolerance=0.02)
    assert (verdict.promoted, "different images" in verdict.why) == (promoted, True)


def test_a_configured_metric_that_a_version_lacks_makes_it_a_candidate(model):
    verdict = judge(version(model, "bbbb", 0.4), None, None, metric="accuracy", floor=0.0, tolerance=0.02)
    assert (verdict.promoted, "accuracy" in verdict.why) == (False, True)


def test_a_detector_without_a_figure_is_no_first_version(model):
    """Figures that are not finite are left out of a result."""
    new = version(model, "aaaa", None, environment={"ultralytics": "8.4"})
    assert not judge(new, None, None, metric=None, floor=0.0, tolerance=0.02).promoted


def test_by_the_configuration_a_worse_version_stays_candidate_with_its_evidence(tmp_path, model):
    store, out = open_store(f"file:{tmp_path / 'store'}"), io.StringIO()
    rules = Judge(store, RegistrySettings(floor=0.1), Console(out)).rules()

    def publish_now(name, value, at):
        manifest = version(model, name, value, created_at=at)
        publish.publish(store, manifest, model, note=lambda _: None, rules=rules)

    publish_now("aaaa", 0.05, 100.0)
    assert alias.alias_of(store, "stable") is None
    with pytest.raises(RegistryError, match=r"1\.0\.0 stays a candidate: .* below the floor"):
        download.resolve(store, "stable")
    publish_now("bbbb", 0.60, 200.0)
    publish_now("cccc", 0.40, 300.0)
    publish_now("dddd", 0.59, 400.0)
    assert [m.version for m in alias.alias_of(store, "stable").moves] == ["bbbb", "dddd"]
    held = alias.alias_of(store, "candidate").moves
    assert [m.version for m in held] == ["aaaa", "cccc"]
    assert held[1].evidence["old"] == 0.60
    assert "candidate: worse" in out.getvalue()


def test_the_bump_of_the_configuration_is_taken(tmp_path, model):
    store = open_store(f"file:{tmp_path / 'store'}")
    rules = Judge(store, RegistrySettings(bump="major"), Console(io.StringIO())).rules()
    for name, at in (("aaaa", 1.0), ("bbbb", 2.0)):
        publish.publish(
            store, version(model, name, 0.5, created_at=at), model, note=lambda _: None, rules=rules
        )
    assert [e.semver for e in publish.versions(store)] == ["1.0.0", "2.0.0"]


def test_a_dataset_that_changed_while_its_model_trained_ends_no_publication(tmp_path, model):
    def changed():
        raise DatasetError([error("a.png", "changed", "it changed")])

    store, out = open_store(f"file:{tmp_path / 'store'}"), io.StringIO()
    rules = Judge(store, RegistrySettings(), Console(out), changed).rules()
    for name, at in (("aaaa", 1.0), ("bbbb", 2.0)):
        new = version(model, name, 0.5, created_at=at, environment={"ultralytics": "8.4"})
        publish.publish(store, new, model, note=lambda _: None, rules=rules)
    assert alias.alias_of(store, "stable").version == "bbbb"
    assert "not compared on the same images" in out.getvalue()


@pytest.mark.process
def test_what_loads_published_models_has_no_credentials_and_half_an_answer_ends_no_publication(
    tmp_path, model, monkeypatch
):
    store, told = open_store(f"file:{tmp_path / 'store'}"), tmp_path / "told"
    python = tmp_path / "python"
    half = """for last in "$@"; do :; done; echo '{"old": 0.' >"$last\""""
    python.write_text(f"#!/bin/sh\n(pwd; env) >{told}\n{half}\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "STORE_SECRET_ACCESS_KEY",
        "HF_TOKEN",
    ):
        monkeypatch.setenv(name, "s3cr3t")
    rules = Judge(store, RegistrySettings(), Console(io.StringIO()), lambda: tmp_path).rules()
    for name, at in (("aaaa", 1.0), ("bbbb", 2.0)):
        new = version(model, name, 0.5, created_at=at, environment={"ultralytics": "8.4"})
        publish.publish(store, new, model, note=lambda _: None, rules=rules)
    assert "PATH=" in told.read_text()
    assert "s3cr3t" not in told.read_text()
    assert told.read_text().splitlines()[0] != str(Path.cwd())
    assert alias.alias_of(store, "stable").version == "bbbb"
