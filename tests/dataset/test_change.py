"""Whether git sees a change in the dataset."""

import os
import shutil

import pytest
from clone_case import git

from gpu_offload.dataset.change import UndecidableError, UnknownRevisionError, changed_since
from gpu_offload.dataset.git import NotARepositoryError
from gpu_offload.orchestrator.registry.revert import is_ancestor


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    (root / "data").mkdir(parents=True)
    (root / "data/a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (root / "data/a.png").write_bytes(b"picture")
    (root / "code.py").write_text("pass\n")
    (root / ".gitignore").write_text("ignored*\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


CHANGES = {
    "edited": lambda data: (data / "a.txt").write_text("1 0.5 0.5 0.1 0.1\n"),
    "removed": lambda data: (data / "a.txt").unlink(),
    "added": lambda data: (data / "größe b.png").write_bytes(b"new"),
    "nested": lambda data: (data / "more").mkdir() or (data / "more/b.png").write_bytes(b"new"),
}
BYSTANDERS = {
    "nothing": lambda data: None,
    "cache": lambda data: (data / "labels.cache").write_bytes(b"x"),
    "hidden": lambda data: (data / ".DS_Store").write_bytes(b"x"),
    "hidden folder": lambda data: (data / ".idea").mkdir() or (data / ".idea/a.txt").write_bytes(b"x"),
    "ignored": lambda data: (data / "ignored.png").write_bytes(b"x"),
    "elsewhere": lambda data: (data.parent / "code.py").write_text("changed\n"),
}


@pytest.mark.parametrize("how", ["in the working tree", "staged", "committed"])
@pytest.mark.parametrize("change", [*CHANGES, *BYSTANDERS])
def test_changes_count_and_bystanders_do_not(repository, change, how):
    (CHANGES | BYSTANDERS)[change](repository / "data")
    revision = git(repository, "rev-parse", "HEAD")
    if how != "in the working tree":
        git(repository, "add", "-A")
    if how == "committed":
        git(repository, "commit", "-qm", "second", "--allow-empty")
    assert changed_since(repository / "data", revision) is (change in CHANGES)


def test_a_dataset_that_is_the_repository_itself_or_gone_is_compared(repository):
    assert changed_since(repository, "HEAD") is False
    (repository / "data/a.txt").unlink()
    (repository / "data/a.png").unlink()
    (repository / "data").rmdir()
    assert changed_since(repository / "data", "HEAD") is True


def test_a_dataset_behind_a_symlinked_checkout_is_compared(repository, tmp_path):
    (tmp_path / "link").symlink_to(repository)
    assert changed_since(tmp_path / "link/data", "HEAD") is False
    (repository / "data/.hidden").write_text("x")
    assert changed_since(tmp_path / "link/data", "HEAD") is False


@pytest.mark.process
def test_a_repository_below_a_hidden_folder_is_compared(tmp_path):
    root = tmp_path / ".work" / "data"
    root.mkdir(parents=True)
    (root / "a.txt").write_text("x")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    (root / "a.txt").write_text("y")
    assert changed_since(root, "HEAD") is True


def test_an_unknown_revision_says_what_to_do(repository):
    with pytest.raises(UnknownRevisionError, match="git fetch"):
        changed_since(repository / "data", "no-such-branch")
    with pytest.raises(UnknownRevisionError, match="nothing to compare"):
        changed_since(repository / "data", "0" * 40)


def test_a_shallow_clone_says_to_fetch_more(repository, tmp_path):
    first = git(repository, "rev-parse", "HEAD")
    git(repository, "commit", "-qm", "second", "--allow-empty")
    git(tmp_path, "clone", "-q", "--depth", "1", repository.as_uri(), "clone")
    with pytest.raises(UnknownRevisionError, match="fetch-depth: 0"):
        changed_since(tmp_path / "clone/data", first)


def test_a_revision_is_never_taken_for_an_option(repository):
    with pytest.raises(UnknownRevisionError):
        changed_since(repository / "data", "--output=/dev/null")


@pytest.mark.process
def test_outside_of_a_repository_is_an_error(tmp_path):
    with pytest.raises(NotARepositoryError, match="checkout"):
        changed_since(tmp_path, "HEAD")


def test_a_dataset_behind_links_is_compared_where_they_lead(repository):
    (repository / "store").mkdir()
    (repository / "data").rename(repository / "store/one")
    (repository / "sets").mkdir()
    (repository / "sets/now").symlink_to("../store")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "links")
    dataset = repository / "sets/now/one"
    assert changed_since(dataset, "HEAD") is False
    (repository / "store/one/a.txt").write_text("1 0.5 0.5 0.1 0.1\n")
    assert changed_since(dataset, "HEAD") is True
    git(repository, "commit", "-qam", "edited")
    (repository / "other/one").mkdir(parents=True)
    (repository / "sets/now").unlink()
    (repository / "sets/now").symlink_to("../other")
    assert changed_since(dataset, "HEAD") is True


def test_a_circle_of_links_is_an_error(repository):
    (repository / "a").symlink_to("b")
    (repository / "b").symlink_to("a")
    with pytest.raises(NotARepositoryError, match="circle"):
        changed_since(repository / "a", "HEAD")


@pytest.fixture
def superproject(repository, tmp_path):
    root = tmp_path / "super"
    root.mkdir()
    git(root, "init", "-q")
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(repository), "sub")
    git(root, "commit", "-qm", "submodule")
    return root


def test_a_dataset_in_a_submodule_is_compared_by_the_commit_recorded_around_it(superproject):
    assert changed_since(superproject / "sub/data", "HEAD") is False
    (superproject / "sub/code.py").write_text("changed")
    git(superproject / "sub", "commit", "-qam", "code")
    git(superproject, "commit", "-qam", "moved")
    assert changed_since(superproject / "sub/data", "HEAD~1") is False
    (superproject / "sub/data/a.txt").write_text("changed")
    assert changed_since(superproject / "sub/data", "HEAD~1") is True
    assert changed_since(superproject / "sub", "HEAD") is True


def test_a_dataset_that_holds_a_submodule_changes_with_it(superproject):
    assert changed_since(superproject, "HEAD") is False
    (superproject / "sub/data/a.txt").write_text("changed")
    assert changed_since(superproject, "HEAD") is True


def test_what_git_ignores_cannot_be_decided(repository):
    (repository / "pictures").mkdir()
    (repository / "pictures/a.png").write_bytes(b"1")
    (repository / "pictures.dvc").write_text("outs:\n- path: pictures\n")
    (repository / ".gitignore").write_text("/pictures\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "dvc")
    with pytest.raises(UndecidableError, match=r"a\.png"):
        changed_since(repository / "pictures", "HEAD")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_another_user_is_refused_in_the_words_of_git(repository, monkeypatch):
    for path in (repository, repository / ".git"):
        os.chown(path, 12345, 12345)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.delenv("SUDO_UID", raising=False)
    with pytest.raises(NotARepositoryError, match="dubious ownership"):
        changed_since(repository / "data", "HEAD")


@pytest.mark.parametrize("name", [":(attr:x)d", ":(glob)d", ":!data", "da[t]a", "*"])
def test_a_name_is_a_name_and_no_pattern_of_git(name, repository):
    (repository / "data").rename(repository / name)
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "renamed")
    assert changed_since(repository / name, "HEAD") is False
    (repository / name / "a.txt").write_text("changed")
    assert changed_since(repository / name, "HEAD") is True


def test_a_submodule_that_is_not_checked_out_cannot_be_compared(superproject):
    shutil.rmtree(superproject / "sub")
    (superproject / "sub").mkdir()
    for path in ("sub/data", "sub"):
        with pytest.raises(UndecidableError, match="submodule"):
            changed_since(superproject / path, "HEAD")
    git(superproject, "rm", "-q", "--cached", "sub")
    assert changed_since(superproject / "sub/data", "HEAD") is True


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_files_that_git_is_configured_to_skip_cannot_be_compared(flag, repository):
    git(repository, "update-index", flag, "code.py")
    assert changed_since(repository / "data", "HEAD") is False
    git(repository, "update-index", flag, "data/a.txt")
    (repository / "data/a.txt").write_text("changed")
    with pytest.raises(UndecidableError, match=r"a\.txt"):
        changed_since(repository / "data", "HEAD")


@pytest.mark.parametrize("how", ["replaced", "another parent by a replacement", "another parent by a graft"])
def test_a_hash_means_its_commit_whatever_a_repository_puts_in_its_place(how, repository):
    old = git(repository, "rev-parse", "HEAD")
    git(repository, "commit", "-qm", f"Revert\n\nThis reverts commit {old}.\n::error::x", "--allow-empty")
    (repository / "data/a.txt").write_text("changed")
    git(repository, "commit", "-qam", "second")
    new = git(repository, "rev-parse", "HEAD")
    git(repository, "checkout", "-q", "--orphan", "other")
    git(repository, "commit", "-qm", "other")
    other = git(repository, "rev-parse", "HEAD")
    if how == "replaced":
        git(repository, "replace", old, new)
    elif how == "another parent by a replacement":
        git(repository, "replace", "--graft", new, other)
    else:
        (repository / ".git/info/grafts").write_text(f"{new} {other}\n")
    assert changed_since(repository / "data", old) is True
    assert is_ancestor(repository, old, new)
    assert not is_ancestor(repository, other, new)
