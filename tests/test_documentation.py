"""What the documentation quotes exists: commands, options, files and links."""

import re
import shlex
from pathlib import Path

import click
import pytest

from gpu_offload.orchestrator.cli import offload

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMAND = re.compile(r"^(?: {4}|\t)(?:\$ )?(offload [^#\n]*)|`(offload [^`\n]*)`", re.MULTILINE)


def commands():
    """Yield each command line that a page quotes, with its page."""
    for page in PAGES:
        for block, inline in COMMAND.findall(page.read_text()):
            yield page.name, (block or inline).strip()


COMMANDS = sorted(set(commands()))


def test_the_pages_quote_commands():
    assert len(COMMANDS) > 50


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_quoted_command_exists_with_its_options(page, line):
    found, words = offload, shlex.split(re.split(r" -- |[>|&]|\.\.\.", line)[0])[1:]
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in found.commands, f"{page}: there is no `offload {name}`"
        found = found.commands[name]
    known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"-h", "--help", "--version"}
    options = {word.strip("[]").partition("=")[0] for word in words if re.match(r"\[?--?[a-z]", word)}
    assert options <= known, f"{page}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_between_pages_leads_somewhere(page):
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
