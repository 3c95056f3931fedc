"""A process on standby is there for one training on this machine, and leaves nothing behind where there is none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import wait_until

from gpu_offload.dataset.synthetic import generate
from gpu_offload.orchestrator import api
from gpu_offload.orchestrator.backends import standby
from gpu_offload.orchestrator.plan import planner
from gpu_offload.orchestrator.settings.load import load_settings

ORPHANED = """
import os, signal, sys
from pathlib import Path
from gpu_offload.orchestrator.backends import standby
from gpu_offload.orchestrator.settings.load import load_settings

standby.is_known = lambda: True
with standby.standing_by(load_settings(Path(sys.argv[1]), environment={}), on="cpu", calibrate=None) as started:
    print(started.process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    (tmp_path / "offload.toml").write_text('[dataset]\npath = "shapes"\n')
    monkeypatch.setattr(standby, "is_known", lambda: True)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return load_settings(tmp_path, environment={})


@pytest.mark.process
def test_a_process_that_no_training_takes_is_ended(settings, monkeypatch):
    with standby.standing_by(
        settings, on="auto", calibrate=None
    ) as unused:  # no instance could use the store
        process = unused.process
        assert process.poll() is None
    assert process.returncode == -signal.SIGKILL
    with standby.standing_by(settings, on="cpu", calibrate=None) as other:
        process = other.process
        assert other.take(settings.root, {**other.environment, "AWS_PROFILE": "another"}) is None
        assert process.returncode == -signal.SIGKILL, "it has not what the training is to have"
    monkeypatch.setattr(standby, "PATIENCE_S", 0.0)
    with standby.standing_by(settings, on="cpu", calibrate=None) as late:
        wait_until(lambda: late.process is None)


@pytest.mark.process
def test_a_process_on_standby_ends_with_a_command_that_is_killed(tmp_path, settings):
    command = [sys.executable, "-c", ORPHANED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    wait_until(lambda: not is_running(pid))


@pytest.mark.process
def test_a_process_on_standby_is_ended_before_this_machine_is_measured(tmp_path, settings, monkeypatch):
    seen = []
    monkeypatch.setattr(planner, "calibration", lambda *given: seen.append((given[4](), process.poll())))
    generate(tmp_path / "shapes", images=8, size=64)
    changed = load_settings(tmp_path, overrides=["limits.value-of-time-usd-per-hour=1"], environment={})
    with standby.standing_by(changed, on="auto", calibrate=None) as started:
        process = started.process
        with pytest.raises(ZeroDivisionError):
            api.train(changed, standby=started, show_plan=lambda _: 1 / 0)
    assert [status for _, status in seen] == [-signal.SIGKILL]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("on", "calibrate", "changes", "environment"),
    [
        ("auto", None, ("store.url=s3://boards-offload", "ec2.instance-profile=offload"), {}),
        ("ec2", None, (), {}),
        ("cpu", True, (), {}),
        ("auto", True, (), {}),
        ("cpu", None, ("training.entrypoint=mine:train",), {}),
        ("cpu", None, (), {"GITHUB_ACTIONS": "true", "RUNNER_TEMP": "/tmp"}),
    ],
)
def test_none_is_started_where_the_training_may_run_otherwise(
    tmp_path, settings, monkeypatch, on, calibrate, changes, environment
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    changed = load_settings(tmp_path, overrides=changes, environment={})
    with standby.standing_by(changed, on=on, calibrate=calibrate) as none:
        assert none.process is None
        assert none.take(tmp_path, dict(os.environ)) is None
