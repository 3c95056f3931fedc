"""A revert brings `stable` back and withdraws what it reverted, by the history of a real git repository."""

import io
import subprocess
import time

import pytest
from registry_case import manifest_for

from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import alias, publish
from gpu_offload.orchestrator.registry.revert import Revert
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import DatasetSettings, RegistrySettings

pytestmark = pytest.mark.process


class Project:
    """A repository whose commits change one data file; the version of a state is named by its content."""

    def __init__(self, root, on_revert="yank"):
        self.root = root
        self.git("init", "-q", "-b", "main")
        self.store = open_store(f"file:{root.parent / 'store'}")
        self.settings = Settings(
            root=root, dataset=DatasetSettings(path="data"), registry=RegistrySettings(on_revert=on_revert)
        )

    def git(self, *words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(self.root), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, data):
        (self.root / "data").write_text(data)
        self.git("add", "data")
        self.git("commit", "-qm", data)
        return self.git("rev-parse", "HEAD")

    def train(self):
        """Publish the version of what is checked out, as `offload train` does; return whether it was trained."""
        version = (self.root / "data").read_text() * 4
        known = publish.manifest_of(self.store, version)
        if known is not None:
            Revert(self.store, self.settings, Console(io.StringIO())).complete(known, publish.DEFAULT)
            return False
        model = self.root.parent / "model.pt"
        model.write_text(version)
        manifest = manifest_for(model, version, time.time()).model_copy(
            update={"commit": self.git("rev-parse", "HEAD"), "fingerprint": version * 16}
        )
        publish.publish(self.store, manifest, model, note=lambda _: None)
        return True

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


def test_a_history_that_adds_reverts_and_adds_again_ends_as_told(project):
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
    from gpu_offload.orchestrator.registry.promote import yank

    grown(project, "a", "b")
    yank(project.store, "bbbb", why="sees keys everywhere")
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
