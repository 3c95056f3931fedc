"""Every thread in docs/leaks.md has the tests that it names."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROWS = [
    line
    for line in (TESTS.parent / "docs" / "leaks.md")
    .read_text()
    .partition("## What happened to others")[2]
    .splitlines()
    if line.startswith("| ") and not line.startswith(("| where", "| ---"))
]


def test_there_is_a_row_for_each():
    assert len(ROWS) == 11


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: row.split("|")[1].strip().split(" ")[0].replace("/", "-")
)
def test_a_lesson_names_tests_that_there_are(row):
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
    assert named, "a lesson without a test is none"
    for file, name in named:
        functions = {
            n.name for n in ast.walk(ast.parse((TESTS / file).read_text())) if isinstance(n, ast.FunctionDef)
        }
        assert name in functions, f"{file} has no {name}"
