"""Small trainings as a process of their own: signals, a parent that is gone, no network, exit codes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from remote_job_case import (
    PATIENCE_S,
    ROOT,
    heartbeat,
    make_spec,
    make_tree,
    manifest,
    module,
    run_module,
    stderr,
    wait_for,
)

from gpu_offload.errors import EXIT_RESUMABLE

pytestmark = [
    pytest.mark.training,
    pytest.mark.usefixtures("same_environment"),
    # Ultralytics and torch warn as they like; what is ours is held to by the other tests.
    pytest.mark.filterwarnings("default"),
]


def command(*arguments):
    """Run `python -m gpu_offload.remote_job` without a training."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "gpu_offload.remote_job", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("detect"))


def test_a_signal_leaves_a_resumable_state_in_the_middle_of_an_epoch(tree, tmp_path):
    """SIGTERM here; a driver's SIGINT is tried with the whole command, and both alone with the interruption."""
    output = tmp_path / "output"
    spec = make_spec(tree, output, epochs=100)
    with module(spec, tmp_path) as process:
        wait_for(process, lambda event: event["event"] == "batch" and event["epoch"] == 2)
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(PATIENCE_S) == EXIT_RESUMABLE
    beat = heartbeat(output)
    assert (beat.state, beat.message) == ("interrupted", "received SIGTERM")
    assert manifest(output).epochs_completed >= 1
    assert "start it again to resume" in stderr(tmp_path)


def test_a_parent_that_is_killed_leaves_no_training_behind(tree, tmp_path):
    output = tmp_path / "output"
    with module(make_spec(tree, output, epochs=100), tmp_path, "--parent-stdin") as process:
        wait_for(process, lambda event: event["event"] == "batch")
        process.stdin.close()
        process.stdout.read()
        assert process.wait(PATIENCE_S) == EXIT_RESUMABLE
    assert heartbeat(output).message == "the process that started the training is gone"


def test_a_training_needs_no_network(tmp_path):
    """Plots with names that no bundled font of Ultralytics has, in a process whose sockets are forbidden.

    Libraries that connect without Python leave a trace where they keep what they want to send.
    """
    tree = make_tree(tmp_path, images=12, classes=("круг", "四角", "triángulo"))
    tried = tmp_path / "tried.txt"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        textwrap.dedent(f"""
            import sys

            def forbid(event, details):
                if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
                    with open({str(tried)!r}, "a") as file:
                        print(event, details, file=file)
                    raise PermissionError("there is no network")

            sys.addaudithook(forbid)
        """)
    )
    output = tmp_path / "output"
    spec = make_spec(tree, output, epochs=1, hyperparameters={"plots": True}, exports=("onnx",))
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    # What compiles and lists fonts once for a machine does it elsewhere.
    caches = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    own = {
        "PYTHONPATH": str(tmp_path / "site"),
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "XDG_CACHE_HOME": caches,
    }
    code, _ = run_module(spec, tmp_path, env={**os.environ, **own})
    assert code == 0, stderr(tmp_path)
    assert list(temporary.iterdir()) == []
    assert not (home / ".config" / "Ultralytics").exists()
    assert not tried.exists(), tried.read_text()
    plots = {"train_batch0.jpg", "labels.jpg", "results.png", "BoxPR_curve.png", "confusion_matrix.png"}
    assert plots <= {path.name for path in (output / "result").iterdir()}


def test_a_faulty_document_ends_with_2_and_names_every_field(tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps({"run": "x", "epochs": 0}))
    done = command(tmp_path / "spec.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "epochs: " in done.stderr
    assert "model: Field required" in done.stderr


def test_the_device_check_runs_an_operation():
    facts = json.loads(command("--device-check").stdout)
    assert facts["ok"] is True
    assert facts["device"] in {"cpu", "cuda"}
