"""What the documentation quotes exists: commands, options, files and links."""

import re
import shlex
import tomllib
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


def test_the_walk_through_a_training_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    walk = text.partition("## From the command")[2].partition("\n## ")[0]
    named = re.findall(r"^\d+\. `([\w/]+\.py)`", walk, re.MULTILINE)
    assert 8 <= len(named) <= 12
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_room_is_in_the_table_of_rooms():
    table = (
        (ROOT / "CONTRIBUTING.md")
        .read_text()
        .partition("## Where does my change go?")[2]
        .partition("\n## ")[0]
    )
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = set()
    for row in rows:
        first, *others = re.findall(r"`([\w/]+)`", row)
        parent = first.rpartition("/")[0]
        named |= {first, *(f"{parent}/{other}" for other in others)}
    tops = ("errors", "dataset", "infra", "remote_job", "orchestrator", "client")
    packages = {
        str(path.parent.relative_to(ROOT)) for top in tops for path in (ROOT / top).rglob("__init__.py")
    }
    assert packages == named


def test_the_site_has_every_page_once_and_links_only_to_pages():
    """The site is `docs/` alone: a link out of it leads somewhere at GitHub and nowhere on the site."""
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    named = re.findall(r"'([\w-]+\.md)'", str(nav))
    pages = sorted((ROOT / "docs").glob("*.md"))
    assert sorted(named) == [page.name for page in pages]
    assert [page.name for page in pages if "](../" in page.read_text()] == []


COPIED = {"client/model_client.py"}
"""One file on purpose: applications copy it."""


def test_no_file_is_longer_than_contributing_allows():
    rooms = ("client", "dataset", "errors", "infra", "orchestrator", "remote_job")
    longest = int(re.search(r"stay below (\d+) lines", (ROOT / "CONTRIBUTING.md").read_text())[1])
    lines = {
        str(path.relative_to(ROOT)): path.read_text().count("\n")
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
    }
    assert {name: n for name, n in lines.items() if n > longest and name not in COPIED} == {}
