"""The documentation: no link leads nowhere, and every command is one that exists."""

import re
import runpy
from pathlib import Path

import pytest

from gpu_offload.orchestrator import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def anchors(text):
    titles = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_link_leads_to_a_file_and_a_heading_that_are_there(document):
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text()), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_command_that_is_named_exists(document):
    named = re.findall(r"(?:^ {4}|`)offload ([a-z]+)", document.read_text(), flags=re.MULTILINE)
    assert set(named) <= set(cli.offload.commands)


def test_a_release_has_the_version_of_the_code_and_its_section_of_the_changelog(tmp_path, capsys):
    changes = runpy.run_path(str(ROOT / ".ci/changes"))["main"]
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    log = tmp_path / "CHANGELOG.md"
    log.write_text(
        "# Changelog\n\n## [Unreleased]\n\n- later\n\n## [1.2.3] - 2026-11-26\n\n- now\n\n## [1.2.2]\n\n- old\n"
    )
    assert changes("1.2.3", tmp_path) == 0
    assert capsys.readouterr().out == "- now\n"
    assert changes("1.2.2", tmp_path) == 1
    log.write_text("# Changelog\n\n## [Unreleased]\n")
    assert changes("1.2.3", tmp_path) == 1
