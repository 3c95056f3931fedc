"""Asking git about a stranger's checkout runs nothing that is in it."""

import subprocess

import pytest
from clone_case import git as run_git

from gpu_offload.infra.git import git, tracked_below

pytestmark = pytest.mark.process


@pytest.fixture
def trap(tmp_path):
    """Return a folder that looks like a bare repository, as one can commit it, and whose configuration leaves a mark."""
    outer = tmp_path / "outer"
    outer.mkdir()
    run_git(outer, "init", "--quiet")
    bare = outer / "data"
    run_git(outer, "init", "--quiet", "--bare", str(bare))
    with (bare / "config").open("a") as config:
        config.write(
            f'[core]\n\tbare = false\n\tworktree = ..\n\tfsmonitor = "touch {tmp_path / "ran"}; false"\n'
        )
    return bare


def test_a_committed_bare_repository_brings_no_command(trap, tmp_path):
    assert git(trap, "status").returncode != 0
    assert not (tmp_path / "ran").exists()
    subprocess.run(["git", "-C", str(trap), "status"], capture_output=True, check=False)
    assert (tmp_path / "ran").exists(), "without our care the trap works"


def test_variables_that_lead_to_another_repository_do_not_count(tmp_path, monkeypatch):
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
        run_git(tmp_path / name, "init", "--quiet")
    (tmp_path / "mine" / "kept").mkdir()
    (tmp_path / "mine" / "kept" / "x").touch()
    run_git(tmp_path / "mine", "add", "--all")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert tracked_below(tmp_path / "mine" / "kept") == ["kept/x"]
    assert tracked_below(tmp_path / "mine" / "KEPT") == ["kept/x"], (
        "a file system may not tell the cases apart"
    )


def test_a_repository_that_git_cannot_read_is_an_error_and_not_none(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "kept").mkdir()
    with pytest.raises(OSError, match="git cannot read"):
        tracked_below(tmp_path / "kept")
