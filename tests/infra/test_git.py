"""Asking git about a stranger's checkout runs nothing that is in it."""

import os
import shutil
import subprocess

import pytest
from clone_case import git as run_git
from local_http import LocalServer

from gpu_offload.dataset.git import NotARepositoryError
from gpu_offload.dataset.git import git as dataset_git
from gpu_offload.infra.git import git, tracked_below
from gpu_offload.infra.github.checkout import checkout_of

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


def test_a_configuration_that_is_never_read_to_its_end_is_an_error(tmp_path, monkeypatch):
    run_git(tmp_path, "init", "--quiet")
    os.mkfifo(tmp_path / ".git" / "pipe")
    with (tmp_path / ".git" / "config").open("a") as config:
        config.write("[include]\n\tpath = pipe\n")
    monkeypatch.setattr("gpu_offload.errors.git.TIMEOUT_S", 0.2)
    asked = git(tmp_path, "status")
    assert (asked.returncode, "does not answer" in asked.stderr) == (127, True)
    with pytest.raises(NotARepositoryError, match="does not answer"):
        dataset_git(tmp_path, "status")


def test_attributes_that_are_a_pipe_are_not_read(tmp_path):
    run_git(tmp_path, "init", "--quiet")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".gitattributes").symlink_to("pipe")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".gitattributes").write_text("*.jpg filter=lfs -text\n")
    assert checkout_of(tmp_path).lfs


def test_an_archive_with_its_own_configuration_brings_no_command(tmp_path, monkeypatch):
    """Neither for itself nor for a submodule; a filter that the user has configured for himself works on."""
    outer, ran = tmp_path / "outer", tmp_path / "ran"
    for folder in (outer, outer / "inner"):
        folder.mkdir()
        run_git(folder, "init", "--quiet")
        (folder / ".gitattributes").write_text(
            "*.png filter=evil diff=evil\n*.txt filter=mine\n*.jpg filter=a=b\n"
        )
        (folder / "a.png").write_text("one")
        (folder / "a.jpg").write_text("one")
        (folder / "a.txt").write_text("kept")
    for folder in (outer / "inner", outer):
        run_git(folder, "add", "--all")
        run_git(folder, "commit", "--quiet", "--message", "x")
    touch = f"touch {ran}; cat"
    for folder in (outer, outer / "inner"):
        for name in ("filter.evil.clean", "filter.evil.process", "filter.a=b.clean", "filter.a=b.process", "diff.evil.textconv", "diff.evil.command",
                     "diff.external", "core.sshCommand", "core.fsmonitor", "core.alternateRefsCommand",
                     "credential.helper", "filter.mine.clean"):  # fmt: skip
            run_git(folder, "config", name, touch)
        run_git(folder, "config", "filter.evil.required", "true")
        run_git(folder, "config", "core.hooksPath", str(folder / "hooks"))
        run_git(folder, "config", "protocol.ext.allow", "always")
        run_git(folder, "config", "remote.origin.url", f"ext::sh -c touch% {ran}")
        (folder / "hooks").mkdir()
        (folder / "hooks/post-index-change").write_text(f"#!/bin/sh\ntouch {ran}\n")
        (folder / "hooks/post-index-change").chmod(0o755)
        (folder / "a.png").write_text("two")
        (folder / "a.jpg").write_text("two")
        (folder / "a.txt").write_text("KEPT")
    (tmp_path / ".gitconfig").write_text('[filter "mine"]\n\tclean = tr A-Z a-z\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    for ask in (git, dataset_git):
        names = ask(outer, "diff", "--name-only", "HEAD").stdout.split()
        assert names == ["a.jpg", "a.png", "inner"]
        assert ask(outer, "diff", "--ignore-submodules=none", "HEAD").returncode == 0
        ask(outer, "status")
        assert ask(outer, "ls-remote", "origin").returncode != 0
    assert not ran.exists()
    subprocess.run(["git", "-C", str(outer), "diff", "HEAD"], capture_output=True, check=False)
    assert ran.exists(), "without our care the trap works"


def test_a_submodule_that_is_not_checked_out_or_is_the_repository_itself_is_no_endless_one(tmp_path):
    outer = tmp_path / "outer"
    inner = outer / "inner"
    for folder in (outer, inner):
        folder.mkdir()
        run_git(folder, "init", "--quiet")
        run_git(folder, "commit", "--quiet", "--allow-empty", "--message", "x")
    run_git(outer, "add", "inner")
    run_git(outer, "commit", "--quiet", "--message", "y")
    shutil.rmtree(inner / ".git")
    assert git(outer, "diff", "--name-only", "HEAD").returncode == 0
    (inner / ".git").write_text("gitdir: ../.git\n")
    git(outer, "diff", "--name-only", "HEAD")


def test_an_object_that_is_missing_is_fetched_from_nowhere(tmp_path):
    """A partial clone names its promisor in the configuration that came with it."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    run_git(origin, "init", "--quiet")
    (origin / "a").write_text("one")
    run_git(origin, "add", "--all")
    run_git(origin, "commit", "--quiet", "--message", "x")
    run_git(origin, "config", "uploadpack.allowFilter", "true")
    run_git(tmp_path, "clone", "--quiet", "--no-checkout", "--filter=blob:none", origin.as_uri(), str(clone))
    for ask in (git, dataset_git):
        assert ask(clone, "cat-file", "-p", "HEAD:a").returncode != 0
        assert ask(clone, "ls-remote", "origin").returncode == 0


def test_the_default_branch_is_asked_for_without_the_repository_s_own_configuration(tmp_path):
    """Cookies are written to the file that it names, and a proxy that it names sees what the user's helper knows."""
    top, seen = tmp_path / "top", []
    top.mkdir()
    cookies = tmp_path / "of the user"
    cookies.write_text("kept")

    def reply(request):
        seen.append(dict(request.headers))
        request.write(404, Set_Cookie="a=b; Max-Age=9999")

    with LocalServer(reply) as server:
        run_git(top, "init", "--quiet")
        run_git(top, "remote", "add", "origin", f"{server.url}/x")
        for name, value in {
            "cookieFile": str(cookies),
            "saveCookies": "true",
            "extraHeader": "X-Mine: 1",
        }.items():
            run_git(top, "config", f"http.{name}", value)
        checkout_of(top)
    assert seen, "the remote is asked"
    assert "X-Mine" not in seen[0]
    assert cookies.read_text() == "kept"
