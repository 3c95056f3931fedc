"""`offload init`: from a repository to a configuration, workflows and the next command."""

import json

import pytest
from click.testing import CliRunner
from clone_case import git
from local_http import LocalServer

from gpu_offload.infra.github.checkout import checkout_of, default_branch
from gpu_offload.infra.github.repository import from_remote
from gpu_offload.infra.origin import documentation, origin
from gpu_offload.orchestrator.cli.project_commands import init
from gpu_offload.orchestrator.github import pin
from gpu_offload.orchestrator.github.pin import Pin, own_pin

pytestmark = pytest.mark.process

PIN = Pin("acme/gpu-offload", "0123456789" * 4, "v0.1.0")
FORK = f"me/fork@{'9' * 40}#v9"


@pytest.fixture
def offline(monkeypatch):
    """Neither GitHub nor a remote answers."""
    monkeypatch.setenv("GITHUB_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    monkeypatch.setattr(pin, "_installed_from", lambda _: PIN)


@pytest.fixture
def repository(tmp_path, offline):
    root = tmp_path / "boards"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    git(root, "remote", "add", "origin", "git@github.com:acme/boards.git")
    (root / "README.md").write_text("# Boards\n\nText.\n")
    dataset(root)
    return root


def dataset(folder):
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"):
        (folder / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "pets" / name).write_bytes(b"x")


def run(*words):
    done = CliRunner().invoke(init, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done


def test_the_result_is_three_lines_what_was_found_what_was_written_and_what_comes_next(
    repository, monkeypatch
):
    monkeypatch.chdir(repository)
    done = run()
    lines = [line for line in done.output.splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in lines] == ["Found", "Wrote", "Next"]
    assert max(map(len, done.output.splitlines())) <= 80
    assert "pets" in done.output
    assert "offload check" in done.output
    assert (
        (repository / "README.md")
        .read_text()
        .startswith("# Boards\n\n[![train](https://github.com/acme/boards/")
    )
    assert PIN.commit in (repository / ".github/workflows/offload-train.yml").read_text()


def test_a_folder_in_no_git_repository_is_told_what_its_workflows_need(tmp_path, offline):
    dataset(tmp_path)
    done = run(tmp_path)
    assert (done.exit_code, "Missing  the workflows" in done.output) == (0, True)
    assert "git repository" in done.output
    assert "Missing" not in run(tmp_path, "--no-workflows").output


def test_another_folder_is_named_in_what_was_written_and_in_the_next_command(repository, monkeypatch):
    monkeypatch.chdir(repository.parent)
    done = run(repository.name)
    assert f"Wrote    {repository.name}/offload.toml" in done.output
    assert f"offload check -C {repository.name}" in done.output


def test_a_second_run_sends_to_the_datasets_path_only_where_nothing_is_there(repository):
    """A dataset was found, but the configuration names another one; or none was found, and it names one elsewhere."""
    (repository / "offload.toml").write_text('[dataset]\npath = "raw_dataset"\n')
    assert "Next     correct dataset.path in" in run(repository).output
    (repository / "raw_dataset").mkdir()
    assert "correct dataset.path" not in run(repository).output
    (repository / "pets").rename(repository.parent / "pets")
    (repository / "raw_dataset").rmdir()
    (repository / "offload.toml").write_text('[dataset]\npath = "../pets"\n')
    text = run(repository).output
    assert "no dataset" not in text
    assert "dataset.path" not in text


def test_a_second_run_keeps_what_the_user_changed(repository):
    """A changed configuration, an edited workflow and a removed badge are theirs: nothing is proposed against them."""
    run(repository)
    configuration, workflow = repository / "offload.toml", repository / ".github/workflows/offload-plan.yml"
    configuration.write_text(configuration.read_text().replace("epochs = 20", "epochs = 99"))
    workflow.write_text(workflow.read_text().replace("directory:", "runner: mine\n      directory:"))
    (repository / "README.md").write_text("# Boards\n")
    before = {p: p.read_bytes() for p in repository.rglob("*") if p.is_file()}
    done = run(repository)
    assert {p: p.read_bytes() for p in repository.rglob("*") if p.is_file()} == before
    assert "Wrote" not in done.output
    assert "epochs" not in done.output


def test_a_project_in_a_subfolder_gets_its_workflows_at_the_root_of_the_repository(repository):
    dataset(repository / "apps/a")
    run(repository / "apps/a")
    assert (repository / "apps/a/offload.toml").is_file()
    assert not (repository / "apps/a/.github").exists()
    text = (repository / ".github/workflows/offload-train-apps-a.yml").read_text()
    assert 'directory: "apps/a"' in text


def test_a_fork_pins_itself(repository):
    run(repository, "--action", FORK)
    assert (
        f"me/fork/.github/workflows/plan.yml@{'9' * 40} # v9"
        in (repository / ".github/workflows/offload-plan.yml").read_text()
    )


def test_without_a_known_release_the_configuration_is_written_and_the_workflows_are_missing(
    repository, monkeypatch, tmp_path
):
    monkeypatch.setattr(pin, "_installed_from", lambda _: None)
    monkeypatch.setattr(pin, "_clone_of", lambda _: None)
    done = run(repository)
    assert done.exit_code == 0
    assert "--action" in done.output
    assert (repository / "offload.toml").is_file()
    assert run(repository, "--workflows").exit_code == 2


def test_a_clone_is_pinned_to_its_commit_once_github_has_it(tmp_path):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    git(theirs, "init", "-q", "-b", "main")
    (theirs / "action.yml").write_text("name: x\n")
    git(theirs, "add", "action.yml")
    git(theirs, "commit", "-qm", "one")
    git(tmp_path, "clone", "-q", str(theirs), str(ours))
    git(ours, "remote", "set-url", "origin", "https://github.com/me/fork.git")
    found = pin._clone_of(ours)
    assert (found.repository, found.commit) == (
        "me/fork",
        (theirs / ".git/refs/heads/main").read_text().strip(),
    )
    git(ours, "commit", "-qm", "two", "--allow-empty")
    assert pin._clone_of(ours) is None, "it is not pushed"


def test_a_wheel_knows_the_commit_that_it_was_built_from(monkeypatch, tmp_path):
    monkeypatch.setattr(pin, "_installed_from", lambda _: None)
    file = tmp_path / "origin.json"
    assert documentation("gpu.md", file) == "docs/gpu.md"
    file.write_text(json.dumps({"repository": "me/fork", "commit": "9" * 40}))
    written = tmp_path / "wheel.json"
    written.write_bytes(file.read_bytes())
    monkeypatch.setattr(pin, "origin", lambda: origin(written))
    assert (own_pin().repository, own_pin().commit) == ("me/fork", "9" * 40)
    assert documentation("gpu.md", written) == f"https://github.com/me/fork/blob/{'9' * 40}/docs/gpu.md"


def test_printing_writes_nothing_and_prints_only_files(repository):
    done = run(repository, "--print")
    assert not (repository / "offload.toml").exists()
    parts = done.output.split("# ==> ")[1:]
    assert [part.splitlines()[0] for part in parts][:2] == [
        "offload.toml", ".github/workflows/offload-plan.yml"
    ]  # fmt: skip
    assert "Next" not in done.output
    assert len(parts) == 6


@pytest.mark.process
def test_a_folder_outside_git_gets_no_workflows(tmp_path, offline):
    done = run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["offload.toml"]
    assert done.exit_code == 0
    assert run(tmp_path, "--workflows").exit_code == 2


@pytest.mark.parametrize(("answer", "warned"), [((404, b"{}"), True), ((200, b'{"private": false}'), False)])
def test_a_private_repository_with_a_folder_store_is_warned(repository, monkeypatch, answer, warned):
    with LocalServer(lambda _: answer) as server:
        monkeypatch.setenv("GITHUB_API_URL", server.url)
        assert ("store.url" in run(repository).output) == warned


@pytest.mark.process
def test_the_default_branch_is_the_remotes_even_on_a_feature_branch(tmp_path, offline):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    git(theirs, "init", "-q", "-b", "release")
    git(theirs, "commit", "-q", "--allow-empty", "-m", "x")
    git(theirs, "branch", "feature")
    git(tmp_path, "clone", "-q", "-b", "feature", "--single-branch", f"file://{theirs}", str(ours))
    assert checkout_of(ours).branch == "release"


@pytest.mark.parametrize(
    ("known", "branch"),
    [
        ({"cached": "release", "remote": ("main",)}, "release"),
        ({"remote": ("feature", "master"), "local": ("feature",)}, "master"),
        ({"remote": ("feature",), "local": ("feature",)}, "main"),
        ({"local": ("trunk",)}, "trunk"),
        ({"local": ("mine",)}, "mine"),
        ({}, "main"),
    ],
)
def test_offline_the_default_branch_is_the_one_that_is_usual(known, branch):
    facts = {"cached": "", "asked": lambda: "", "remote": (), "local": ()}
    assert default_branch(**(facts | known)) == branch


def test_lfs_and_submodules_are_seen(repository):
    assert not checkout_of(repository).lfs
    (repository / "pets/.gitattributes").write_text("*.jpg filter=lfs diff=lfs\n")
    (repository / ".gitmodules").write_text("")
    found = checkout_of(repository / "pets")
    assert (found.lfs, found.submodules, found.root) == (True, True, repository)


@pytest.mark.parametrize(
    "url",
    [
        "https://x-access-token:secret@github.com/acme/boards.git",
        "https://www.github.com/acme/boards/",
        "ssh://git@ssh.github.com:443/acme/boards.git",
        "git@ssh.github.com:acme/boards.git",
        "org-1234@github.com:acme/boards.git",
        "github.com:acme/boards",
        "git://github.com/acme/boards.git",
        "HTTPS://GitHub.com/acme/boards",
        "git+https://github.com/acme/boards.git",
    ],
)
def test_every_form_of_a_remote_at_github_is_read(url):
    assert from_remote(url) == "acme/boards"


@pytest.mark.parametrize(
    "url",
    ["https://github.com@evil.example/a/b", "https://evil.example/github.com/a/b", "git@github.com.evil:a/b"],
)
def test_an_address_elsewhere_is_not_githubs(url):
    assert from_remote(url) is None


def test_another_remote_than_origin_counts_where_origin_is_elsewhere(repository):
    git(repository, "remote", "set-url", "origin", "https://gitlab.example/acme/boards.git")
    git(repository, "remote", "add", "upstream", "https://github.com/acme/up.git")
    assert checkout_of(repository).repository == "acme/up"
