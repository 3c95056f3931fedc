"""A revert brings `stable` back and withdraws what it reverted, by the history of a real git repository."""

import io
import subprocess
import time

import pytest
from clone_case import git
from registry_case import manifest_for

from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import alias, promote, publish
from gpu_offload.orchestrator.registry.revert import Revert, is_ancestor
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import DatasetSettings, RegistrySettings

pytestmark = pytest.mark.process


class Project:
    """A repository whose commits change one file; the version of a state is named by its content."""

    def __init__(self, root, on_revert="yank", file="data"):
        self.root, self.file = root, file
        self.git("init", "-q", "-b", "main")
        self.store = open_store(f"file:{root.parent / 'store'}")
        self.settings = Settings(
            root=root,
            source=root / "offload.toml",
            dataset=DatasetSettings(path="data"),
            registry=RegistrySettings(on_revert=on_revert),
        )
        self.training = None
        """The commits of the trainings that run, by version; None where they cannot be seen."""

    def git(self, *words):
        return git(self.root, *words)

    def commit(self, data):
        (self.root / self.file).write_text(data)
        self.git("add", self.file)
        self.git("commit", "-qm", data)
        return self.git("rev-parse", "HEAD")

    def train(self):
        """Publish the version of what is checked out, as `offload train` does; return whether it was trained."""
        version = (self.root / self.file).read_text() * 4
        known = publish.manifest_of(self.store, version)
        if known is None:
            self.finish(self.begin())
        else:
            training = self.training and [c for v, c in self.training.items() if v != version]
            revert = Revert(self.store, self.settings, Console(io.StringIO()), training)
            revert.complete(known, publish.DEFAULT)
        return known is None

    def begin(self):
        """Begin the training of what is checked out; return what `finish` publishes."""
        version, commit = (self.root / self.file).read_text() * 4, self.git("rev-parse", "HEAD")
        if self.training is not None:
            self.training[version] = commit
        return version, commit, time.time()

    def finish(self, begun, checkout=None, store=None):
        """Publish what was trained, by a driver that has its commit, or another one, checked out."""
        version, commit, began_at = begun
        model = self.root.parent / f"{version}.pt"
        model.write_text(version)
        facts = {"commit": commit, "fingerprint": version * 16, "began_at": began_at}
        manifest = manifest_for(model, version, time.time()).model_copy(update=facts)
        rules = publish.Rules(knows=lambda other: is_ancestor(self.root, other, checkout or commit))
        publish.publish(store or self.store, manifest, model, note=lambda _: None, rules=rules)
        if self.training is not None:
            self.training.pop(version, None)

    @property
    def stable(self):
        return alias.alias_of(self.store, "stable").version

    def yanked(self):
        return [e.version for e in publish.versions(self.store) if e.yanked]


@pytest.fixture
def project(tmp_path):
    (tmp_path / "repository").mkdir()
    return Project(tmp_path / "repository")


def grown(project, *states):
    for state in states:
        project.commit(state)
        project.train()


def test_a_history_that_adds_reverts_and_adds_again_ends_with_what_was_added_last(project):
    grown(project, "a", "b")
    assert project.stable == "bbbb"
    project.git("revert", "--no-edit", "HEAD")
    assert project.train() is False
    assert (project.stable, project.yanked()) == ("aaaa", ["bbbb"])
    assert project.train() is False  # harmless to repeat
    grown(project, "c")
    assert (project.stable, project.yanked()) == ("cccc", ["bbbb"])
    assert [e.semver for e in publish.versions(project.store)] == ["1.0.0", "1.1.0", "1.2.0"]
    moves = alias.alias_of(project.store, "stable").moves
    assert [(m.version, m.cause) for m in moves] == [
        ("aaaa", "publish"),
        ("bbbb", "publish"),
        ("aaaa", "rollback"),
        ("cccc", "publish"),
    ]


def test_several_commits_that_one_push_reverts_withdraw_each_of_their_versions(project):
    grown(project, "a", "b", "c")
    project.git("revert", "--no-edit", "HEAD")
    project.git("revert", "--no-edit", "HEAD~2")
    assert project.train() is False
    assert (project.stable, project.yanked()) == ("aaaa", ["bbbb", "cccc"])


def test_of_two_trainings_of_one_commit_none_is_reverted(project):
    commit = project.commit("a")
    project.train()
    model = project.root.parent / "other.pt"
    model.write_text("other settings")
    other = manifest_for(model, "dddd", time.time()).model_copy(update={"commit": commit})
    publish.publish(project.store, other, model, note=lambda _: None)
    assert project.train() is False
    assert (project.stable, project.yanked()) == ("aaaa", [])


def test_what_was_reverted_comes_back_with_its_data(project):
    grown(project, "a", "b")
    project.git("revert", "--no-edit", "HEAD")
    project.train()
    project.git("revert", "--no-edit", "HEAD")
    assert project.train() is False
    assert (project.stable, project.yanked()) == ("bbbb", [])


def test_what_was_yanked_by_hand_does_not_come_back_with_its_data(project):
    grown(project, "a", "b")
    promote.yank(project.store, "bbbb", why="sees keys everywhere")
    project.train()
    assert (project.stable, project.yanked()) == ("aaaa", ["bbbb"])


def test_a_job_of_an_older_commit_that_runs_again_moves_nothing(project):
    grown(project, "a", "b")
    project.git("checkout", "-q", "HEAD~1")
    project.train()
    assert (project.stable, project.yanked()) == ("bbbb", [])


def test_a_shallow_clone_moves_stable_and_yanks_nothing(project):
    grown(project, "a", "b")
    project.git("revert", "--no-edit", "HEAD")
    shallow = project.root.parent / "shallow"
    url = project.root.as_uri()
    subprocess.run(["git", "clone", "-q", "--depth", "1", url, str(shallow)], check=True, capture_output=True)
    project.root = shallow
    project.settings = project.settings.model_copy(update={"root": shallow})
    project.train()
    assert (project.stable, project.yanked()) == ("aaaa", [])


@pytest.mark.parametrize(("on_revert", "yanked", "files"), [("keep", [], 3), ("delete", ["bbbb"], 0)])
def test_the_configuration_says_what_becomes_of_a_reverted_version(tmp_path, on_revert, yanked, files):
    (tmp_path / "repository").mkdir()
    project = Project(tmp_path / "repository", on_revert)
    grown(project, "a", "b")
    project.git("revert", "--no-edit", "HEAD")
    project.train()
    assert (project.stable, project.yanked()) == ("aaaa", yanked)
    assert len(list(project.store.list("models/bbbb/"))) == files
    # deleted or not, its data brings it back, under the number that it had
    project.git("revert", "--no-edit", "HEAD")
    assert project.train() is (files == 0)
    assert project.stable == "bbbb"
    assert [(e.semver, e.deleted) for e in publish.versions(project.store)] == [
        ("1.0.0", False),
        ("1.1.0", False),
    ]


@pytest.fixture(
    params=[(True, "data"), (False, "data"), (False, "offload.toml"), (False, "yolov8n.yaml")],
    ids=["one store", "a store of each machine", "settings", "a model's definition"],
)
def spoilt(project, request):
    """Return a project whose bad data, or settings, train when they are reverted, and that training."""
    is_shared, project.file = request.param
    project.training = {} if is_shared else None
    grown(project, "a")
    project.commit("b")
    begun = project.begin()
    project.git("revert", "--no-edit", "HEAD")
    assert project.train() is False
    return project, begun


def why_not(project, version):
    return publish.why_candidate(project.store, version)


def test_a_training_whose_commit_was_reverted_meanwhile_publishes_a_candidate(spoilt):
    project, begun = spoilt
    project.train()  # the other workflow of the same push: nothing new
    project.finish(begun)
    assert project.stable == "aaaa"
    assert project.git("rev-parse", "HEAD")[:9] in why_not(project, "bbbb")
    moves = alias.alias_of(project.store, "stable").moves
    assert [(m.version, m.cause) for m in moves] == [("aaaa", "publish"), ("aaaa", "rollback")]
    project.train()
    project.git("checkout", "-q", "HEAD~1")
    project.train()  # the job of the reverted commit runs again
    assert project.stable == "aaaa"
    promote.promote(project.store, "bbbb", why="it was right")
    assert project.stable == "bbbb"


@pytest.mark.parametrize("joins", [True, False])
def test_the_revert_of_a_revert_wants_the_version_that_still_trains(spoilt, joins):
    project, begun = spoilt
    project.git("revert", "--no-edit", "HEAD")
    if joins:  # its job carries on with the open run
        project.finish(begun, checkout="HEAD")
    else:
        project.finish(begun)
        assert project.stable == "aaaa"
        assert project.train() is False
    assert (project.stable, project.yanked()) == ("bbbb", [])


def test_a_training_that_begins_while_a_rollback_is_recorded_and_contains_the_revert_is_stable(spoilt):
    project, (_, _, began_at) = spoilt
    project.commit("c")
    version, commit, _ = project.begin()
    project.finish((version, commit, began_at))
    assert project.stable == "cccc"


def test_a_version_that_came_out_before_its_revert_stays_yanked_when_its_job_runs_again(project):
    grown(project, "a", "b")
    project.git("revert", "--no-edit", "HEAD")
    project.train()
    project.git("checkout", "-q", "HEAD~1")
    project.train()
    assert (project.stable, project.yanked()) == ("aaaa", ["bbbb"])


def test_a_push_that_takes_nothing_back_adds_nothing_to_the_history(project):
    project.training = {}
    grown(project, "a")
    for data in "bcd":
        project.commit(data)
    project.commit("a")
    project.train()
    assert len(alias.alias_of(project.store, "stable").moves) == 1


@pytest.mark.parametrize("to", [None, "aaaa"])
def test_a_training_that_began_before_a_person_rolled_back_publishes_a_candidate(project, to):
    grown(project, "a", "b")
    project.commit("c")
    begun = project.begin()
    promote.rollback(project.store, to, why="worse at night")
    project.finish(begun)
    assert "worse at night" in why_not(project, "cccc")
    assert project.train() is False  # it is not asked for anew, as long as no person promotes it
    assert project.stable == "aaaa"
    grown(project, "d")
    assert project.stable == "dddd"


class Racing:
    """A store in which another acts just before the first change of `stable`."""

    def __init__(self, store, act):
        self.store, self.act = store, act

    def __getattr__(self, name):
        return getattr(self.store, name)

    def replace(self, key, body, etag):
        if key == "aliases/stable.json" and self.act is not None:
            act, self.act = self.act, None
            act()
        return self.store.replace(key, body, etag)


def test_of_a_revert_and_a_publication_at_once_either_may_come_first(project):
    project.training = {}
    grown(project, "a")
    project.commit("b")
    begun = project.begin()
    project.git("revert", "--no-edit", "HEAD")
    project.finish(begun, store=Racing(project.store, project.train))  # the revert comes first
    assert (project.stable, project.yanked()) == ("aaaa", [])
    assert why_not(project, "bbbb") is not None
    project.commit("c")
    begun, store = project.begin(), project.store
    project.git("revert", "--no-edit", "HEAD")
    project.store = Racing(store, lambda: project.finish(begun, store=store))  # the publication does
    project.train()
    assert (project.stable, project.yanked()) == ("aaaa", ["cccc"])
