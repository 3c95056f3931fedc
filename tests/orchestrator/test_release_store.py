"""What a release keeps can be promoted, yanked and rolled back by who has a token."""

import contextlib
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import store_conformance as conformance
from click.testing import CliRunner
from github_case import TOKEN, GitHub
from registry_case import manifest_for
from release_case import release as release_of

from gpu_offload.client.model_client import ModelClient
from gpu_offload.errors import UsageError
from gpu_offload.infra.github.release_store import ReleaseStore, open_release
from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectMissingError,
    StoreError,
    StoreReadOnlyError,
    StoreUnreachableError,
)
from gpu_offload.orchestrator.cli import offload
from gpu_offload.orchestrator.github.console import GitHubConsole
from gpu_offload.orchestrator.github.event import WorkflowEvent
from gpu_offload.orchestrator.github.inputs import InputsError, WorkflowInputs
from gpu_offload.orchestrator.github.rollback_step import rollback_in_release
from gpu_offload.orchestrator.github.runner import Runner
from gpu_offload.orchestrator.registry import alias, index, promote
from gpu_offload.orchestrator.registry.alias import AliasMovedError
from gpu_offload.orchestrator.registry.index import entry_for
from gpu_offload.orchestrator.registry.manifest import Index, Move, RegistryError, to_json

pytestmark = pytest.mark.simulator

A, B = "a" * 16, "b" * 16


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


LACKS = {
    conformance.of_twenty_that_replace_one_wins: "no conditional write",
    conformance.deleting_is_idempotent: "lists its aliases only",
    conformance.a_listing_is_by_prefix_and_in_the_order_of_bytes: "lists its aliases only",
    conformance.a_file_goes_up_and_comes_down_verified: "takes models from `keep` only",
    conformance.a_file_is_created_once: "takes models from `keep` only",
}
"""What a release does not keep to of what any other store must."""


@pytest.mark.parametrize(
    "check", [c for c in conformance.CHECKS if c not in LACKS], ids=lambda check: check.__name__
)
def test_a_release_keeps_to_what_stores_must(check, store, tmp_path):
    store.release.assets()  # makes the release
    check(store, tmp_path)


def test_a_release_lists_its_aliases_takes_no_model_and_forgets_what_is_deleted(store, tmp_path):
    etag = store.create("aliases/x.json", b"1")
    assert [info.key for info in store.list("aliases/")] == ["aliases/x.json"]
    for _ in range(2):
        store.delete("aliases/x.json")
    with pytest.raises(ObjectMissingError):
        store.read("aliases/x.json")
    with pytest.raises(ObjectChangedError):
        store.replace("aliases/x.json", b"3", etag)
    store.create("aliases/x.json", b"1")
    there = store.release.assets()["aliases-x.json"]
    for _ in range(2):  # another job may have been faster
        store.release.delete(there)
    for refused in (lambda: list(store.list("models/")), lambda: store.upload("models/x/model.pt", tmp_path)):
        with pytest.raises(StoreReadOnlyError):
            refused()


def test_what_two_do_at_once_to_a_release_is_done_or_refused_and_leaves_one_history(published, github):
    acts = [
        lambda: promote.promote(published, "1.0.0", why="a"),
        lambda: promote.rollback(published, why="b"),
    ]
    barrier = threading.Barrier(len(acts))

    def run(act):
        barrier.wait()
        with contextlib.suppress(StoreError, RegistryError):
            act()

    with ThreadPoolExecutor(len(acts)) as pool:
        list(pool.map(run, acts))
    published.release.repair()
    act(github, "yank", "1.0.0", "--why", "bad")  # what was cut short is completed by the next
    stable = alias.alias_of(published, "stable")
    assert {e.version for e in index.versions(published)} == {A, B}
    assert stable.version == stable.history[-1].version
    assert [m.version for m in stable.history][:2] == [A, B]
    assert A in stable.yanked


def test_the_token_goes_to_its_own_server_only(github):
    environment = {"GITHUB_TOKEN": TOKEN}
    assert open_release("https://evil.example/us/boards/releases/download/models", environment) is None
    assert open_release("https://github.com/us/boards/releases/download/models", {}) is None
    assert open_release("https://github.com/us/boards", environment) is None
    own = environment | {"GITHUB_SERVER_URL": github.url, "GITHUB_API_URL": github.url}
    elsewhere = open_release("https://github.com/us/boards/releases/download/models", own)
    assert isinstance(elsewhere, ReleaseStore)
    assert elsewhere.release.base.startswith("https://api.github.com/repos/us/boards")


def roll_back(event, **inputs):
    given = WorkflowInputs(command="rollback", token=TOKEN, **inputs)
    rollback_in_release(given, WorkflowEvent(event, "us/boards"), Runner({}), GitHubConsole(io.StringIO()))


def test_the_job_that_may_write_to_a_release_rolls_back_what_the_other_found(published, monkeypatch):
    monkeypatch.delenv("GITHUB_TOKEN")
    for _ in range(2):  # harmless to repeat
        roll_back("push", to=A, withdraw=B)
        stable = alias.alias_of(published, "stable")
        assert [(m.version, m.cause) for m in stable.moves][1:] == [(B, "publish"), (A, "rollback")]
        assert index.entry_of(index.versions(published), B).yanked.reverted
    with pytest.raises(UsageError):
        roll_back("pull_request_target", to=A, withdraw=B)
    with pytest.raises(InputsError, match="find-revert"):
        roll_back("push")
    with pytest.raises(InputsError, match="reason"):
        roll_back("workflow_dispatch")


def test_a_version_that_became_stable_meanwhile_is_not_rolled_back_with_the_reverted_one(published):
    promote.promote(published, A, why="by hand")
    with pytest.raises(AliasMovedError):
        promote.take_back(published, B, ["c" * 16], why="reverted")
    assert alias.alias_of(published, "stable").version == A


def test_a_person_rolls_back_a_release_by_the_workflow(published):
    roll_back("workflow_dispatch", reason="worse at night")
    stable = alias.alias_of(published, "stable")
    assert (stable.version, set(stable.yanked)) == (A, {B})
    assert "worse at night" in stable.moves[-1].why


ONE = {"id": 1, "name": "index.json", "size": 1, "state": "uploaded"}


class Hostile(GitHub):
    """Answers what `forged` says to a request whose path ends so."""

    forged = ("nothing", b"")

    def answer(self, method, target, headers, body):
        if method == "GET" and target.partition("?")[0].endswith(self.forged[0]):
            return 200, self.forged[1]
        return super().answer(method, target, headers, body)


def test_the_state_of_a_document_that_was_replaced_since_it_was_listed_is_that_of_the_new_one(
    store, monkeypatch
):
    etag = store.create("aliases/x.json", b"1")
    read, gone = store.release.read, ["listed, and replaced since"]

    def read_later(asset):
        if gone:
            raise FileNotFoundError(gone.pop())
        return read(asset)

    monkeypatch.setattr(store.release, "read", read_later)
    assert store.stat("aliases/x.json").etag == etag


@pytest.mark.parametrize(
    "forged",
    [
        ("/7/assets", b"<html>"),
        ("/7/assets", b"[" * 200_000),
        ("/7/assets", {"assets": []}),
        ("/7/assets", [{"name": "index.json"}]),
        ("/7/assets", [ONE | {"id": "../../../users/x"}]),
        ("/7/assets", [ONE | {"size": "large"}]),
        ("/tags/offload-models", {"id": 7}),
        ("/tags/offload-models", [7]),
        ("/tags/offload-models", {"id": "7/../x", "upload_url": "https://example.org"}),
    ],
    ids=lambda forged: str(forged)[:60],
)
def test_an_answer_that_is_not_github_s_is_an_error_and_no_release(forged, tmp_path):
    with Hostile() as server:
        release = release_of(server)
        path = tmp_path / "index.json"
        path.write_text("{}")
        release.upload("index.json", path)
        server.forged = forged
        with pytest.raises(StoreError, match="cannot be read"):
            release_of(server).assets()


@pytest.mark.parametrize(
    ("status", "message"), [(403, "API rate limit exceeded for installation"), (429, "Too many requests")]
)
def test_too_many_requests_are_no_missing_permission(store, github, status, message):
    github.broken = ("GET", "tags", (status, {"message": message}))
    with pytest.raises(StoreUnreachableError, match="too many requests"):
        store.release.assets()


def test_of_two_jobs_that_make_the_release_both_use_it(store, github):
    store.release.assets()
    github.broken = ("GET", "tags", (404, {"message": "Not Found"}))  # the other makes it after this look
    assert release_of(github).assets() == {}


@pytest.mark.parametrize(("hours", "stays"), [(0.5, True), (2, False)])
def test_an_upload_is_removed_only_after_a_time_that_none_takes(store, github, hours, stays):
    """A younger one may be another job's, whose model would be lost."""
    began = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
    github.assets[1] = {
        "name": f"models-{A}-model.pt",
        "body": b"",
        "more": {"state": "starter", "created_at": began},
    }
    store.release.repair()
    assert bool(github.assets) == stays


def test_a_document_whose_upload_broke_off_is_written_again(store, github):
    github.assets[1] = {"name": "index.json", "body": b"", "more": {"state": "starter"}}
    store.create("index.json", b"{}")
    assert store.read("index.json")[0] == b"{}"


def test_names_of_a_release_that_no_object_has_are_no_objects(store, github):
    store.create("aliases/stable.json", b"{}")
    for name in ("../../x", "aliases-../x.json", "aliases-\x1b[2J.json", ".", ""):
        github.assets[len(github.assets)] = {"name": name, "body": b"x"}
    assert [info.key for info in store.list("aliases/")] == ["aliases/stable.json"]
