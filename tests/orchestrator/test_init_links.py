"""`offload init` writes only into the repository and follows no committed link."""

import subprocess

import pytest
from click.testing import CliRunner
from dataset_case import flat, put

from gpu_offload.errors import UsageError
from gpu_offload.orchestrator.cli.project_commands import init
from gpu_offload.orchestrator.settings.file import ConfigurationFileError

pytestmark = pytest.mark.process
FORK = f"me/fork@{'9' * 40}#v9"


@pytest.mark.parametrize("target", ["/dev/zero", "nowhere"])
def test_a_configuration_that_is_no_file_is_refused_in_words(tmp_path, target):
    (flat(tmp_path) / "offload.toml").symlink_to(target)
    done = CliRunner().invoke(init, [str(tmp_path), "--no-workflows"])
    assert isinstance(done.exception, ConfigurationFileError)


@pytest.mark.parametrize(
    "link", ["README.md", ".github", ".github/workflows", ".github/workflows/offload.yml"]
)
def test_nothing_is_written_through_a_link(tmp_path, link):
    root, outside = tmp_path / "repository", tmp_path / "outside"
    mine = put(outside / "mine.txt", "# Mine\n\nText.\n")
    flat(root / "data")
    subprocess.run(["git", "init", "-q", root], check=True)
    subprocess.run(
        ["git", "-C", root, "remote", "add", "origin", "https://github.com/acme/boards.git"], check=True
    )
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(
        {"README.md": mine, ".github/workflows/offload.yml": outside / "new"}.get(link, outside)
    )
    done = CliRunner().invoke(init, [str(root), "--action", FORK])
    if link != "README.md":
        assert isinstance(done.exception, UsageError)
    assert mine.read_text() == "# Mine\n\nText.\n"
    assert list(outside.iterdir()) == [mine]
