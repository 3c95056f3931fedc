"""The guard of the marks, and the option by which CI notices a test that skips."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from resources import deal

pytestmark = pytest.mark.process

SUITE = """
import socket, subprocess, sys
import pytest
from resources import deal

def test_starts_a_process():
    subprocess.run([sys.executable, "-c", ""])

@pytest.mark.process
def test_says_that_it_starts_a_process():
    subprocess.run([sys.executable, "-c", ""])

def test_opens_a_socket():
    with socket.create_server(("127.0.0.1", 0)):
        pass

@pytest.fixture
def cloud():
    with socket.create_server(("127.0.0.1", 0)):
        yield

def test_opens_a_socket_through_a_fixture(cloud):
    pass

def test_skips():
    pytest.skip("no sshd on this machine")

def test_skips_as_expected():
    pytest.skip("root reads everything")
"""


def run(folder, *words):
    (folder / "test_suite.py").write_text(SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "resources", "-p", "no:cacheprovider", "-q", "-rA", *words],
        cwd=folder, env={"PYTHONPATH": str(Path(__file__).parent)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_test_that_uses_a_resource_without_its_mark_fails(tmp_path):
    code, out = run(tmp_path)
    assert code == 1
    assert {line.split("::")[1].split()[0] for line in out.splitlines() if line.startswith("FAILED")} == {
        "test_starts_a_process",
        "test_opens_a_socket",
    }
    assert "mark it `process`" in out
    assert "mark it `simulator`" in out


def test_marks_follow_from_fixtures(tmp_path):
    code, out = run(tmp_path, "-m", "simulator")
    assert code == 0
    assert "1 passed" in out


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("test_skips", (), 0),
        ("test_skips", ("--no-skips",), 1),
        ("test_skips_as_expected", ("--no-skips",), 0),
    ],
)
def test_a_skip_fails_where_none_is_allowed_but_the_expected(tmp_path, name, words, code):
    assert run(tmp_path, f"test_suite.py::{name}", *words)[0] == code


def test_files_stay_together_the_quick_ones_come_last_and_every_other_worker_begins_with_those_that_wait():
    class Item(SimpleNamespace):
        def iter_markers(self):
            return (SimpleNamespace(name=name) for name in self.marks)

    items = [
        Item(path="a", marks=[]), Item(path="b", marks=[]), Item(path="b", marks=["root", "process"]),
        Item(path="c", marks=[]), Item(path="d", marks=["workflow"]), Item(path="e", marks=["process"]),
        Item(path="f", marks=["process"]),
    ]  # fmt: skip
    assert [item.path for item in deal(items, 1)] == ["d", "b", "b", "e", "f", "a", "c"]
    assert [item.path for item in deal(items, 2)] == ["d", "e", "a", "f", "b", "b", "c"]
