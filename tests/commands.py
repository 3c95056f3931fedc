"""`offload` commands in tests: in this process where no process is the point, else as one."""

import contextlib
import io
import os
import subprocess
import sys
import time

import pytest

from gpu_offload.orchestrator.cli import main

OFFLOAD = (sys.executable, "-P", "-m", "gpu_offload.orchestrator.cli")


def run(folder, *arguments):
    """Run a command in this process and a folder; return its exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main(list(arguments))
    return ended.value.code or 0, out.getvalue(), err.getvalue()


def offload(folder, *arguments, code=0):
    """Run a command in this process and a folder; return its standard output."""
    found, out, err = run(folder, *arguments)
    assert found == code, err
    return out


def start(folder, *arguments, environment=None):
    """Start a command as a process of its own, in a session of its own."""
    return subprocess.Popen(
        [*OFFLOAD, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | (environment or {}),
    )


def wait_until(condition, *, seconds=60.0, process=None):
    """Poll until something holds; return what it returned last."""
    end = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if found := condition():
            return found
        if process is not None and process.poll() is not None:
            pytest.fail(f"the command ended: {process.communicate()}")
        now = time.monotonic()
        if now > end:
            pytest.fail(f"it did not happen in {seconds:.0f} s")
        # Looks that send requests would take a processor from what they wait for.
        time.sleep(min(max(0.02, 3 * (now - began)), 0.5))
