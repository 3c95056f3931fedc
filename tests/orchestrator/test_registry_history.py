"""Numbers, histories, yanks and rollbacks: one order of events, also with several writers."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_case import DyingStore, differ, manifest_for

from gpu_offload.client.model_client import choose
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.registry import alias as aliases
from gpu_offload.orchestrator.registry import download, listing, promote, publish
from gpu_offload.orchestrator.registry.manifest import (
    CANDIDATE,
    STABLE,
    Move,
    RegistryError,
    model_key,
    to_json,
)
from gpu_offload.orchestrator.registry.publish import Rules, Verdict
from gpu_offload.orchestrator.registry.revert import delete_files
from gpu_offload.orchestrator.registry.semver import change_of, following, parse


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.simulator)])
def store(request, tmp_path):
    if request.param == "folder":
        yield open_store(f"file:{tmp_path / 'store'}")
        return
    store = open_store(f"s3://{request.getfixturevalue('bucket')}/project")
    yield store
    store._bucket.reader.close()


@pytest.fixture
def folder(tmp_path):
    return open_store(f"file:{tmp_path / 'store'}")


def publish_now(store, model, version, at=None, rules=publish.DEFAULT, **facts):
    at = time.time() if at is None else at
    manifest = manifest_for(model, version, at).model_copy(update=facts)
    return publish.publish(store, manifest, model, note=lambda _: None, rules=rules)


@pytest.mark.simulator
@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_moves_and_yanks_are_timed_by_the_stores_clock(new_store, model, ahead):
    """A training that began before a rollback is held back: a wrong clock would hold back others, or none."""
    store, here = new_store("bucket"), time.time()
    for version in ("aaaa", "bbbb"):
        publish_now(store, model, version, here - 7200)
    differ(store, ahead)
    promote.rollback(store, why="worse")
    assert aliases.alias_of(store, STABLE).moves[-1].at == pytest.approx(here + ahead, abs=900)
    assert publish.versions(store)[1].yanked.at == pytest.approx(here + ahead, abs=900)
    promote.yank(store, "bbbb", why="not so bad", undo=True)
    assert publish.versions(store)[1].cleared_at == pytest.approx(here + ahead, abs=900)


def reject(why):
    return Rules(judge=lambda _new, _stable: Verdict(promoted=False, why=why, evidence={"new": 0.1}))


def story(store, name=STABLE):
    return [(m.version, m.cause) for m in aliases.alias_of(store, name).moves]


def stable(store):
    return aliases.alias_of(store, STABLE).version


# --------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("update", "bump"),
    [
        ({}, "patch"),
        ({"seed": 7}, "patch"),
        ({"fingerprint": "e" * 64}, "minor"),
        ({"task": "segment"}, "major"),
        ({"classes": ("a", "c")}, "major"),
        ({"classes": ("b", "a")}, "major"),
        ({"base_model": "yolo11n.yaml"}, "major"),
        ({"base_model": "yolov8s.yaml"}, "patch"),
        ({"image_size": 320, "fingerprint": "e" * 64}, "major"),
        ({"classes": None}, "patch"),
    ],
)
def test_how_far_a_model_is_from_its_parent(model, update, bump):
    parent = manifest_for(model).model_copy(update={"classes": ("a", "b"), "image_size": 640})
    assert change_of(parent.model_copy(update=update), parent).bump == bump


@pytest.mark.parametrize(
    ("bump", "parent", "taken", "number"),
    [
        ("minor", None, [], "1.0.0"),
        ("minor", "1.0.0", ["1.0.0"], "1.1.0"),
        ("minor", "1.0.0", ["1.0.0", "1.1.0"], "1.2.0"),
        ("minor", "1.4.0", ["1.4.0", "2.0.0"], "1.5.0"),
        ("patch", "1.4.0", ["1.4.0", "1.5.0"], "1.4.1"),
        ("patch", "1.4.0", ["1.4.0", "1.4.9"], "1.4.10"),
        ("major", "1.4.0", ["1.4.0", "3.0.0"], "4.0.0"),
        ("minor", None, ["1.4.0"], "1.5.0"),
    ],
)
def test_the_next_number_in_a_line(bump, parent, taken, number):
    assert following(bump, parent, taken) == number


@given(st.lists(st.sampled_from(["major", "minor", "patch"]), max_size=30), st.randoms())
def test_a_number_is_never_given_twice_and_always_follows_its_parent(bumps, chance):
    taken = []
    for bump in bumps:
        parent = chance.choice(taken) if taken else None
        number = following(bump, parent, taken)
        assert number not in taken
        assert parent is None or parse(number) > parse(parent)
        taken.append(number)


def test_a_number_is_written_in_ascii_digits():
    """Applications read no others: one in an alias would be no alias to them."""
    assert parse("1.\N{ARABIC-INDIC DIGIT TWO}.0") is None


def test_versions_are_numbered_bound_to_their_parent_and_found_by_either_name(folder, model):
    publish_now(folder, model, "aaaa1111", 100.0)
    publish_now(folder, model, "bbbb2222", 200.0, fingerprint="e" * 64)
    publish_now(folder, model, "cccc3333", 300.0, fingerprint="e" * 64, seed=1)
    publish_now(folder, model, "dddd4444", 400.0, image_size=320, classes=("x",), task="segment")
    entries = publish.versions(folder)
    assert [e.semver for e in entries] == ["1.0.0", "1.1.0", "1.1.1", "2.0.0"]
    assert [e.parent for e in entries] == [None, "aaaa1111", "bbbb2222", "cccc3333"]
    assert publish.manifest_of(folder, "bbbb2222").parent == "aaaa1111"
    for wanted, version in {
        "1.1.0": "bbbb2222",
        "v1.1.0": "bbbb2222",
        "model@v1.1.0": "bbbb2222",
        "1.1": "cccc3333",
        "1": "cccc3333",
        "bbbb": "bbbb2222",
        "stable": "dddd4444",
    }.items():
        assert download.resolve(folder, wanted).version == version
    for wanted in ("9.9.9", "zz", "../x", ""):
        with pytest.raises(RegistryError, match="no version"):
            download.resolve(folder, wanted)


def test_a_number_that_digits_begin_with_too_is_ambiguous(folder, model):
    publish_now(folder, model, "1aaa", 100.0)
    with pytest.raises(RegistryError, match="ambiguous: write v1"):
        download.resolve(folder, "1")
    assert download.resolve(folder, "v1").version == "1aaa"


def test_the_rule_can_be_overridden(folder, model):
    publish_now(folder, model, "aaaa", 100.0)
    publish_now(folder, model, "bbbb", 200.0, rules=Rules(bump="major"))
    assert [e.semver for e in publish.versions(folder)] == ["1.0.0", "2.0.0"]


# ----------------------------------------------------------------------------------- documents of before


def before(store, model, *versions):
    """Publish as the first release of the registry did: no numbers, no sizes, no histories."""
    entries = []
    for n, version in enumerate(versions):
        manifest = manifest_for(model, version, 100.0 * (n + 1))
        store.upload(model_key(version), model)
        old = manifest.model_dump(mode="json")
        for name in ("parent", "classes", "images", "image_size", "batch", "seed", "hyperparameters"):
            del old[name]
        del old["weights_sha256"]
        store.put(model_key(version, "manifest.json"), json.dumps(old).encode())
        entries.append(
            {
                "version": version,
                "created_at": manifest.created_at,
                "sha256": manifest.model.sha256,
                "size": manifest.model.size,
                "metrics": manifest.metrics,
                "commit": None,
            }
        )
    last = entries[-1]
    store.put("index.json", json.dumps({"format": 1, "versions": entries}).encode())
    alias = {"format": 1, "name": "stable", "version": last["version"], "sha256": last["sha256"]}
    store.put("aliases/stable.json", json.dumps(alias | {"moved_at": last["created_at"]}).encode())


def test_no_time_is_broken_where_the_list_of_models_is_narrow(store, model, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    publish_now(store, model, "aaaa", 900.0)
    aliases.move(store, "production-europe", "aaaa", cause="publish", why="by hand " * 20)
    assert max(map(len, listing.history(store, "production-europe").text().splitlines())) <= 80
    text = listing.listing(store).text()
    assert "1970-01-01" in text
    assert not re.search(r"^\s*\d\d:\d\d", text, re.MULTILINE)


def test_what_the_first_release_published_is_read_numbered_and_carried_on(store, model):
    before(store, model, "aaaa", "bbbb")
    assert [e.semver for e in publish.versions(store)] == ["1.0.0", "1.1.0"]
    assert download.resolve(store, "stable").version == "bbbb"
    assert "bbbb" in listing.listing(store).text()

    publish_now(store, model, "cccc", 900.0)
    assert [e.semver for e in publish.versions(store)] == ["1.0.0", "1.1.0", "1.1.1"]
    assert story(store) == [("bbbb", "publish"), ("cccc", "publish")]
    assert aliases.alias_of(store, STABLE).at(250.0).version == "bbbb"
    promote.rollback(store, why="worse")
    assert stable(store) == "bbbb"


# ---------------------------------------------------------------------------------------------- histories


def test_what_was_stable_on_a_day_has_an_answer(folder, model):
    publish_now(folder, model, "aaaa", 1_000.0)
    publish_now(folder, model, "bbbb", 2_000.0)
    publish_now(folder, model, "cccc", 3_000.0)
    found = listing.history(folder, STABLE)
    assert [m.version for m in found.moves] == ["aaaa", "bbbb", "cccc"]
    for at, version in ((999.0, None), (1_000.0, "aaaa"), (2_999.0, "bbbb"), (9e9, "cccc")):
        moves = listing.history(folder, STABLE, at).moves
        assert (moves[0].version if moves else None) == version


@pytest.mark.parametrize(
    ("began_at", "known", "missed"),
    [
        (5.0, "", 30.0),  # two reverts and a person's rollback in between, none known
        (5.0, "x", 30.0),
        (5.0, "xy", 20.0),  # no commit knows what a person did
        (20.0, "x", 30.0),
        (20.0, "xy", None),
        (30.0, "", None),  # it began afterwards
    ],
)
def test_a_training_misses_rollbacks_that_came_later_and_that_its_commit_does_not_know(
    began_at, known, missed
):
    def step(at, cause, commit=None):
        return Move(at=at, version="aaaa", sha256="", cause=cause, commit=commit)

    moves = (
        step(0.0, "publish"),
        step(10.0, "rollback", "x"),
        step(20.0, "rollback"),
        step(30.0, "rollback", "y"),
        step(40.0, "promote"),
        step(50.0, "yank"),
    )
    alias = aliases.written(STABLE, moves, {}, None)
    found = alias.rollback_since(began_at, lambda commit: commit in known)
    assert (found and found.at) == missed


def test_a_move_says_who_when_why_and_on_what_evidence(folder, model, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTOR", "mona")
    publish_now(folder, model, "aaaa")
    publish_now(folder, model, "bbbb", rules=reject("map50 0.100 is below the floor"))
    promote.promote(folder, "1.0.1", why="good enough for the beta", rollout=0.25)
    last = aliases.alias_of(folder, STABLE).moves[-1]
    assert (last.by, last.cause, last.why, last.rollout) == (
        "mona",
        "promote",
        "good enough for the beta",
        0.25,
    )
    held = aliases.alias_of(folder, CANDIDATE).moves[-1]
    assert (held.version, held.evidence) == ("bbbb", {"new": 0.1})


def test_a_version_that_is_not_good_enough_stays_candidate_however_often_it_is_completed(folder, model):
    publish_now(folder, model, "aaaa", 100.0)
    rules = reject("worse")
    manifest = publish_now(folder, model, "bbbb", 200.0, rules=rules)
    assert (stable(folder), story(folder, CANDIDATE)) == ("aaaa", [("bbbb", "publish")])
    assert publish.why_candidate(folder, "bbbb") == "worse"
    for again in (False, True):
        assert publish.complete(folder, manifest, again=again, rules=Rules()) is False
    assert stable(folder) == "aaaa"
    promote.promote(folder, "bbbb", why="by hand")
    assert stable(folder) == "bbbb"
    assert publish.why_candidate(folder, "bbbb") is None


def test_a_first_version_that_is_not_good_enough_leaves_no_stable(folder, model):
    publish_now(folder, model, "aaaa", rules=reject("map50 0.000 is below the floor"))
    assert aliases.alias_of(folder, STABLE) is None
    assert download.resolve(folder, CANDIDATE).version == "aaaa"


# ------------------------------------------------------------------------------------- yank and rollback


def test_a_yanked_version_is_left_by_its_aliases_and_never_comes_back(store, model):
    first = publish_now(store, model, "aaaa", 100.0)
    second = publish_now(store, model, "bbbb", 200.0)
    moved = promote.yank(store, "1.0.1", why="sees keys everywhere")
    assert moved.aliases == {STABLE: "aaaa"}
    assert stable(store) == "aaaa"
    assert aliases.alias_of(store, STABLE).yanked == {"bbbb": "sees keys everywhere"}
    assert publish.complete(store, second, again=True) is False
    with pytest.raises(RegistryError, match="sees keys everywhere"):
        promote.promote(store, "bbbb", why="really")
    assert promote.yank(store, "bbbb", why="again").changed is False
    assert publish.versions(store)[1].yanked.why == "sees keys everywhere"
    assert publish.complete(store, first) is False
    promote.yank(store, "bbbb", why="it was the camera", undo=True)
    promote.promote(store, "bbbb", why="it was the camera")
    assert stable(store) == "bbbb"


def test_when_every_version_is_yanked_the_next_one_is_stable_and_none_is_offered_meanwhile(folder, model):
    publish_now(folder, model, "aaaa")
    assert promote.yank(folder, "stable", why="bad").aliases == {STABLE: None}
    assert promote.yank(folder, "aaaa", why="bad").aliases == {}  # it was left already
    document = json.loads(folder.read("aliases/stable.json")[0])
    assert choose(document) is None
    with pytest.raises(RegistryError, match="yanked"):
        download.resolve(folder, "stable")
    assert download.resolve(folder, "1.0.0").version == "aaaa"
    publish_now(folder, model, "bbbb")
    assert download.resolve(folder, "stable").version == "bbbb"


def test_rollback_goes_to_the_version_before_or_to_the_one_named(folder, model):
    for version in ("aaaa", "bbbb", "cccc"):
        publish_now(folder, model, version)
    promote.rollback(folder, why="worse at night")
    assert stable(folder) == "bbbb"
    publish_now(folder, model, "dddd")
    promote.rollback(folder, "1.0.0", why="worse at night")
    assert stable(folder) == "aaaa"
    assert [e.version for e in publish.versions(folder) if e.yanked] == ["cccc", "dddd"]
    assert promote.rollback(folder, "aaaa", why="again").changed is False
    with pytest.raises(RegistryError, match="yanked"):
        promote.rollback(folder, "dddd", why="no")


def test_rollback_without_a_version_before_changes_nothing(folder, model):
    with pytest.raises(RegistryError, match="nothing to roll back"):
        promote.rollback(folder, why="x")
    publish_now(folder, model, "aaaa")
    with pytest.raises(RegistryError, match="no version before"):
        promote.rollback(folder, why="x")
    assert stable(folder) == "aaaa"
    assert publish.versions(folder)[0].yanked is None


def test_the_lowest_version_is_published_and_limits_later_moves(folder, model):
    for version in ("aaaa", "bbbb"):
        publish_now(folder, model, version)
    promote.promote(folder, "bbbb", why="the old one crashes", minimum="1.0.1")
    assert aliases.alias_of(folder, STABLE).minimum == "1.0.1"
    with pytest.raises(RegistryError, match=r"below 1\.0\.1"):
        promote.promote(folder, "aaaa", why="x")
    publish_now(folder, model, "cccc")
    assert (stable(folder), aliases.alias_of(folder, STABLE).minimum) == ("cccc", "1.0.1")


def test_neither_a_rollback_nor_a_yank_goes_below_the_lowest_version(folder, model):
    """Applications refuse what is below it: `stable` would mean a version that none of them takes."""
    for version in ("aaaa", "bbbb"):
        publish_now(folder, model, version)
    promote.promote(folder, "bbbb", why="the old one crashes", minimum="1.0.1")
    with pytest.raises(RegistryError, match="no version before"):
        promote.rollback(folder, why="worse")
    assert promote.yank(folder, "bbbb", why="worse").aliases == {STABLE: None}
    found = aliases.alias_of(folder, STABLE)
    assert (found.version, choose(json.loads(to_json(found)))) == ("bbbb", None)


def test_a_line_means_its_highest_version_that_is_there(folder, model):
    publish_now(folder, model, "aaaa")
    delete_files(folder, publish_now(folder, model, "bbbb"))
    assert download.resolve(folder, "1").version == "aaaa"
    with pytest.raises(RegistryError, match="deleted"):
        download.resolve(folder, "1.0.1")


class Overtaken:
    """A store in which another act happens between our read and our first write."""

    def __init__(self, store, act):
        self.store, self.act = store, act

    def __getattr__(self, name):
        if name == "replace" and self.act is not None:
            act, self.act = self.act, None
            act()
        return getattr(self.store, name)


def test_a_version_that_became_stable_meanwhile_is_not_rolled_back(folder, model):
    for version in ("aaaa", "bbbb"):
        publish_now(folder, model, version)
    store = Overtaken(folder, lambda: publish_now(folder, model, "cccc"))
    with pytest.raises(aliases.AliasMovedError):
        promote.rollback(store, "aaaa", why="bbbb is worse")
    assert stable(folder) == "cccc"
    assert not [e.version for e in publish.versions(folder) if e.yanked]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("effects", [1, 2, 3])
def test_a_rollback_to_a_version_killed_at_any_write_is_completed_by_the_same_command(
    folder, model, effects, after
):
    for version in ("aaaa", "bbbb", "cccc"):
        publish_now(folder, model, version)
    with pytest.raises(KeyboardInterrupt):
        promote.rollback(DyingStore(folder, effects, after=after), "aaaa", why="bad")
    assert promote.rollback(folder, "aaaa", why="bad").aliases == {STABLE: "aaaa"}
    assert promote.rollback(folder, "aaaa", why="bad").changed is False
    found = aliases.alias_of(folder, STABLE)
    assert (found.version, found.yanked) == ("aaaa", {"cccc": "bad"})


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("effects", [1, 2])
def test_a_yank_killed_at_any_write_can_be_repeated(folder, model, effects, after):
    for version in ("aaaa", "bbbb"):
        publish_now(folder, model, version)
    with pytest.raises(KeyboardInterrupt):
        promote.yank(DyingStore(folder, effects, after=after), "bbbb", why="bad")
    promote.yank(folder, "bbbb", why="bad")
    assert stable(folder) == "aaaa"
