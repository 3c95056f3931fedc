"""State of projects that were renamed or deleted: it is found, taken over and deleted, and nothing is guessed."""

import json
import shutil
from pathlib import Path

import pytest
from commands import offload, run

from gpu_offload.orchestrator.project_states import project_states, renamed_note, size_of
from gpu_offload.orchestrator.state import prepare_state, state_folder
from gpu_offload.remote_job.files.removal import remove_tree


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return tmp_path


def project(folder, *, models=True):
    folder.mkdir()
    (folder / "offload.toml").write_text("[dataset]\npath = 'raw'\n")
    state = prepare_state(folder)
    if models:
        (state / "store" / "models").mkdir(parents=True)
        (state / "store" / "index.json").write_text("{}")
    return folder


def test_a_renamed_project_finds_its_models_and_takes_them_over(base):
    old, new = project(base / "old"), base / "new"
    old.rename(new)
    _, out, err = run(new, "models")
    assert f"--adopt {old}" in err
    assert "--adopt" not in out
    run(new, "status")
    assert renamed_note(new), "after a command that only looked, too"
    offload(new, "state", "--adopt", str(old))
    assert (state_folder(new) / "store" / "index.json").is_file()
    assert not state_folder(old).exists()
    assert renamed_note(new) == ""
    assert [state.owner.path for state in project_states()] == [new]


def test_another_project_is_not_taken_for_a_renamed_one(base):
    """A copy has an inode of its own; so has a project whose folder was there before the other one was deleted."""
    old = project(base / "old")
    copy = shutil.copytree(old, base / "copy")
    shutil.rmtree(old)
    assert renamed_note(copy) == ""


def test_state_is_not_taken_from_a_project_that_is_there_nor_over_models(base):
    here, other = project(base / "here"), project(base / "other")
    _, _, err = run(here, "state", "--adopt", str(other))
    assert "still there" in err
    shutil.rmtree(other)
    _, _, err = run(here, "state", "--adopt", str(other))
    assert "of its own" in err
    _, _, err = run(here, "state", "--adopt", str(base / "never"))
    assert "no state" in err
    assert len(project_states()) == 2


def test_state_of_deleted_projects_is_listed_and_only_that_is_deleted(base):
    here, gone = project(base / "here", models=False), project(base / "gone")
    unknown = state_folder(base / "before")
    unknown.mkdir()
    shutil.rmtree(gone)
    listed = json.loads(offload(here, "state", "--json"))["states"]
    by = {one["project"]: one for one in listed}
    assert (by[str(gone)]["gone"], by[str(gone)]["models"], by[str(gone)]["bytes"] > 0) == (True, True, True)
    assert (by[str(here)]["gone"], by[str(here)]["models"]) == (False, False)
    assert by[None]["gone"] is False, "whose it is is not known"
    assert "--delete-gone" in offload(here, "state")
    deleted = json.loads(offload(here, "state", "--delete-gone", "--json"))
    assert [one["project"] for one in deleted["states"]] == [str(gone)]
    assert not state_folder(gone).exists()
    assert unknown.is_dir()
    assert {state.owner and state.owner.path for state in project_states()} == {here, None}


def test_the_state_of_a_project_that_cannot_be_looked_at_is_kept(base):
    """As behind a link into a circle, or in a folder of another user: it may be there."""
    here = project(base / "here")
    here.rename(base / "away")
    here.symlink_to(here)
    (state,) = project_states()
    assert (state.owner.path, state.is_gone) == (here, False)
    assert "no state of a deleted project" in offload(base / "away", "state", "--delete-gone")
    assert state.folder.is_dir()


def test_the_size_of_folders_deeper_than_python_recurses_is_measured(tmp_path):
    """A training may leave them."""
    (tmp_path / "top").mkdir()
    deepest = tmp_path / "top"
    for _ in range(1_200):
        deepest = Path(f"{deepest}/d")
        deepest.mkdir()
    (deepest / "file").write_bytes(bytes(100))
    (tmp_path / "top/link").symlink_to(tmp_path)
    assert size_of(tmp_path / "top") == 100 + len(str(tmp_path))
    remove_tree(tmp_path / "top")
