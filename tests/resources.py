"""Marks each test by the resources that it uses, and fails a test that uses one without its mark.

`make quick` runs the tests without marks. Most marks follow from fixtures; a test that starts processes through a
helper function carries `pytest.mark.process` itself.
"""

import re
import sys
from importlib.util import find_spec
from operator import itemgetter

import pytest

MARKS = {
    "simulator": "talks to a server on this machine: the simulated cloud, moto, a stand-in for GitHub",
    "process": "starts processes",
    "training": "uses torch; most run a real, small training (seconds to a minute)",
    "root": "needs root and namespaces",
    "workflow": "runs workflows under act",
}
SWEEP = "sweep"
"""The mark of tests that use no resource but play hundreds of runs in a model world: half a minute of CPU together."""

BUSY, WAITING = ("workflow", "training", "root", SWEEP), ("simulator", "process")
"""Kinds of files by their first mark, the slowest first; a file with marks of both is busy."""

OF_FIXTURE = {
    **dict.fromkeys(("cloud", "moto_server", "github", "server", "metadata", "token_endpoint"), "simulator"),
    **dict.fromkeys(("bench", "lab", "repository"), "process"),
}
"""Names of fixtures that use a resource, in whichever file they are defined."""

_START = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"})
_TALK = frozenset({"socket.bind", "socket.connect"})
_HEAVY = frozenset({"torch", "ultralytics"})

EXPECTED_SKIPS = re.compile(
    r"root reads everything|file system does not tell|dataset is not beside|capacity series are not here|no NVIDIA GPU"
)
"""Reasons of skips that say nothing about what is installed; see `--no-skips`."""


class Deferred:
    """A module that is imported when a test first uses it: every worker collects every file."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, name):
        if name.startswith("_"):  # pytest asks such names of whatever a test file defines
            raise AttributeError(name)
        __import__(self._name)
        return getattr(sys.modules[self._name], name)


def needs(package):
    """Skip where a package of an extra is not installed; it is not imported."""
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


class Guard:
    """Knows the running test's marks. One for the process, because audit hooks stay."""

    test = ""
    marks: frozenset[str] = frozenset()

    def check(self, event, arguments):
        """Fail the running test if it does what its marks do not say."""
        if not self.test:
            if event == "import" and arguments[0] in _HEAVY:
                pytest.fail(
                    f"a test file imports {arguments[0]} when it is collected: defer that to its tests"
                )
            return
        if event in _START and not self.marks and arguments[:1] != ("uname",):  # `platform` runs it
            pytest.fail(f"{self.test} starts {arguments[0] if arguments else 'a process'}: mark it `process`")
        if event in _TALK and not self.marks and _is_remote(arguments[1]):
            pytest.fail(f"{self.test} uses the socket {arguments[1]}: mark it `simulator`")
        if event == "import" and arguments[0] in _HEAVY and "training" not in self.marks:
            pytest.fail(f"{self.test} imports {arguments[0]}: mark it `training`")


def _is_remote(address):
    """Whether a socket's address is of IP, and not that of urllib3, which tries IPv6 when it is imported."""
    return isinstance(address, tuple) and address[:2] != ("::1", 0)


GUARD = Guard()


def pytest_addoption(parser):
    parser.addoption(
        "--no-skips", action="store_true",
        help="fail where a test skips for want of something that a complete machine has",
    )  # fmt: skip


def pytest_configure(config):
    for name, what in {**MARKS, SWEEP: "plays hundreds of runs in a model world"}.items():
        config.addinivalue_line("markers", f"{name}: {what}")
    sys.addaudithook(GUARD.check)


def pytest_collection_modifyitems(config, items):
    for item in items:
        for mark in {OF_FIXTURE[name] for name in item.fixturenames if name in OF_FIXTURE}:
            item.add_marker(mark)
        if hasattr(item, "callspec") and "namespaces" in item.callspec.params.values():
            item.add_marker("root")
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = deal(items, workers)


def deal(items, workers):
    """Order tests so that the share of each worker ends with quick ones, and every other one begins with those that wait.

    xdist gives each worker a run of consecutive tests, all of the same length; in the end a worker takes over the last
    tests of another. A slow file stays together: its tests share fixtures. While some workers compute, the others wait for
    hosts and processes, so that all processors have work all the time.
    """
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    kinds = BUSY + WAITING
    ranked = []
    for tests in files.values():
        marks = {mark.name for test in tests for mark in test.iter_markers()}
        ranked.append((next((i for i, kind in enumerate(kinds) if kind in marks), len(kinds)), tests))
    slow = sorted((file for file in ranked if file[0] < len(kinds)), key=itemgetter(0))
    quick = [test for rank, tests in ranked if rank == len(kinds) for test in tests]
    dealt = []
    for worker in range(workers):
        end = len(dealt) + (len(items) - len(dealt)) // (workers - worker)
        share = slow[worker::workers]
        if worker % 2:
            share.sort(key=lambda file: (file[0] - len(BUSY)) % len(kinds))
        dealt += [test for _, tests in share for test in tests]
        room = max(0, end - len(dealt))
        dealt += quick[:room]
        del quick[:room]
    return dealt + quick


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    GUARD.marks = frozenset(mark.name for mark in item.iter_markers()) & MARKS.keys()
    GUARD.test = item.nodeid
    try:
        return (yield)
    finally:
        GUARD.test = ""


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """With --no-skips, turn the session red for unexpected skips."""
    if not session.config.option.no_skips:
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker's session; its controller sees every report
        return
    found = {}
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not EXPECTED_SKIPS.search(reason):
            found.setdefault(reason, []).append(report.nodeid)
    if found:
        reporter.section("unexpected skips (--no-skips)", red=True)
        for reason, tests in found.items():
            reporter.line(f"{reason}: {', '.join(tests)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
