"""What `offload init` writes into a repository."""

import subprocess

import pytest
import yaml

from gpu_offload.orchestrator.github.pin import Pin, PinError
from gpu_offload.orchestrator.github.workflows import (
    FOLDER,
    badge,
    with_badge,
    workflow_texts,
    write_workflows,
)

PIN = Pin("acme/gpu-offload", "0123456789" * 4, "v0.1.0")
NEWER = Pin("acme/gpu-offload", "abcdef0123" * 4, "v0.2.0")


@pytest.fixture
def repository(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    git("init", "-q", "-b", "trunk")
    git("remote", "add", "origin", "git@github.com:acme/boards.git")
    (tmp_path / "README.md").write_text("# Boards\n\nText.\n")
    return tmp_path


def test_a_repository_gets_its_workflows_and_a_badge(repository):
    done = write_workflows(repository, PIN)
    assert {w.state for w in done} == {"written", "updated"}
    train = (repository / ".github/workflows/offload-train.yml").read_text()
    assert f"acme/gpu-offload/.github/workflows/train.yml@{PIN.commit} # v0.1.0" in train
    assert yaml.safe_load(train)[True]["push"]["branches"] == ["trunk"]
    readme = (repository / "README.md").read_text()
    assert readme.startswith("# Boards\n\n[![train](https://github.com/acme/boards/actions/")
    assert readme.endswith("Text.\n")


def test_running_it_again_changes_nothing(repository):
    write_workflows(repository, PIN)
    assert {w.state for w in write_workflows(repository, PIN)} == {"unchanged"}


def test_running_a_newer_one_updates_the_pins_and_shows_the_difference(repository):
    write_workflows(repository, PIN)
    done = {w.path.name: w for w in write_workflows(repository, NEWER)}
    train = done["offload-train.yml"]
    assert train.state == "updated"
    assert f"-    uses: acme/gpu-offload/.github/workflows/train.yml@{PIN.commit}" in train.difference
    assert f"+    uses: acme/gpu-offload/.github/workflows/train.yml@{NEWER.commit}" in str(train)
    assert NEWER.commit in (repository / ".github/workflows/offload-train.yml").read_text()
    assert done["README.md"].state == "unchanged"


def test_a_workflow_that_somebody_made_their_own_stays(repository):
    write_workflows(repository, PIN)
    file = repository / ".github/workflows/offload.yml"
    file.write_text("# Mine now\n" + file.read_text())
    done = {w.path.name: w for w in write_workflows(repository, NEWER)}
    assert done["offload.yml"].state == "kept"
    assert "stays" in str(done["offload.yml"])
    assert file.read_text().startswith("# Mine now\n")
    assert PIN.commit in file.read_text()


def test_showing_writes_nothing(repository):
    write_workflows(repository, PIN, only_show=True)
    assert not (repository / ".github").exists()
    assert "train" not in (repository / "README.md").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "acme/x@main",
        "acme@" + "0" * 40,
        "acme/x",
        "acme/x@" + "0" * 40 + "#v1\nrun: evil",
        "a b/c@" + "0" * 40,
    ],
)
def test_what_is_no_commit_is_no_pin(text):
    with pytest.raises(PinError):
        Pin.of(text)


def test_an_older_badge_is_replaced():
    old = with_badge("# A\n", badge("acme/old"))
    assert with_badge(old, badge("acme/new")).count("[![train]") == 1
    assert with_badge("no title\n", badge("a/b")).startswith("[![train]")


def jobs_of(document):
    return document["jobs"].values()


def test_a_pull_request_reaches_a_workflow_that_may_only_read():
    for path, text in workflow_texts(PIN).items():
        document = yaml.safe_load(text)
        events = set(document[True])
        assert document["permissions"] == {}, path
        if events & {"pull_request", "pull_request_target", "issue_comment", "workflow_run"}:
            assert events == {"pull_request"}, path
            assert [job["permissions"] for job in jobs_of(document)] == [{"contents": "read"}], path
            assert all("secrets" not in job and "role" not in str(job) for job in jobs_of(document)), path


def test_a_folder_store_gets_a_job_that_keeps_whatever_became_of_the_training():
    texts = {path.name: yaml.safe_load(text) for path, text in workflow_texts(PIN, keep=True).items()}
    keep = texts["offload-train.yml"]["jobs"]["keep"]
    assert keep["if"].startswith("always()")
    assert keep["needs"] == "train"
    assert keep["permissions"] == {"contents": "write"}
    assert "keep" not in yaml.safe_load(workflow_texts(PIN)[FOLDER / "offload-train.yml"])["jobs"]


def test_a_branch_name_stays_a_value():
    text = workflow_texts(PIN, branch='x"]\n  pull_request_target:\n#')
    document = yaml.safe_load(next(t for p, t in text.items() if p.name == "offload-train.yml"))
    assert set(document[True]) == {"push", "workflow_dispatch"}
