"""The same training module on a rented instance: the same key, the same numbers, nothing left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from gpu_offload.dataset.synthetic import generate

pytestmark = pytest.mark.training
KEYBOARDS = Path(__file__).parents[3] / "shared" / "datasets" / "keyboards"

CONFIGURATION = """
[dataset]
path = "{path}"
[training]
model = "own/yolov8n-small.yaml"
epochs = 2
image-size = {size}
batch = 16
seed = 7
hyperparameters = {{plots = false}}
[ec2]
regions = ["us-east-1"]
instance-types = ["g4dn.xlarge"]
"""


def namespaces():
    """Whether this machine can give every instance a network of its own."""
    if os.geteuid() != 0:
        return False
    probe = [sys.executable, "-P", "-m", "gpu_offload.infra.simulator", "--namespaces", "--", "true"]
    return subprocess.run(probe, capture_output=True, timeout=120, check=False).returncode == 0


@pytest.fixture
def project(tmp_path):
    """A project with a model definition of its own: the keyboards where they are, else generated shapes."""
    import ultralytics

    if KEYBOARDS.is_dir():
        path, size = KEYBOARDS, 160
    else:
        generate(tmp_path / "shapes", images=48, size=64)
        path, size = "shapes", 64
    definition = Path(ultralytics.__file__).parent / "cfg" / "models" / "v8" / "yolov8.yaml"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "yolov8n-small.yaml").write_text(definition.read_text())
    (tmp_path / "offload.toml").write_text(CONFIGURATION.format(path=path, size=size))
    return tmp_path


def run(project, *command):
    done = subprocess.run(
        [sys.executable, "-P", "-m", *command],
        cwd=project, capture_output=True, text=True, timeout=900, check=False,
        env={k: v for k, v in os.environ.items() if k != "AWS_ENDPOINT_URL"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_an_instance_trains_to_the_very_numbers_of_the_cpu_and_leaves_nothing(project):
    here, _ = run(
        project, "gpu_offload.orchestrator.cli", "train", "--on", "cpu", "--json", "--no-calibrate",
        "--set", "store.url=file:here",
    )  # fmt: skip
    flags = ["--namespaces"] if namespaces() else []
    there, said = run(
        project, "gpu_offload.infra.simulator", *flags, "--", sys.executable, "-P", "-m", "gpu_offload.orchestrator.cli", "train", "--on", "ec2",
        "--json", "--set", "store.url=s3://gpu-offload/there",
    )  # fmt: skip
    assert there["where"] == "g4dn.xlarge"
    assert there["training_key"] == here["training_key"]
    assert there["metrics"] == here["metrics"]
    assert "left: 0 instances, 0 volumes, 0 security groups, 0 schedules" in said
