"""The same training module on a rented instance: the same key, the same numbers, nothing left."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from commands import offload

from gpu_offload.dataset.synthetic import generate
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.simulator.namespace import why_not

pytestmark = pytest.mark.training

CONFIGURATION = """
[dataset]
path = "shapes"
[training]
model = "own/yolov8n-small.yaml"
epochs = 2
image-size = 64
batch = 8
seed = 7
hyperparameters = {plots = false}
# As many threads as the load allows would round the numbers differently.
speed = {threads = false}
[registry]
exports = []
[ec2]
regions = ["us-east-1"]
instance-types = ["g4dn.xlarge"]
"""


@pytest.fixture
def project(tmp_path):
    """A project with a model definition of its own."""
    generate(tmp_path / "shapes", images=16, size=64)
    definition = Path(find_spec("ultralytics").origin).parent / "cfg" / "models" / "v8" / "yolov8.yaml"
    (tmp_path / "own").mkdir()
    small = definition.read_text().replace("n: [0.33, 0.25, 1024]", "n: [0.33, 0.125, 1024]")
    (tmp_path / "own" / "yolov8n-small.yaml").write_text(small)
    (tmp_path / "offload.toml").write_text(CONFIGURATION)
    return tmp_path


def train(project, where, store):
    """Train, and return the result and the report as `--json` prints them."""
    options = ("--json", "--set", f"store.url={store}")
    done = json.loads(offload(project, "train", "--on", where, "--no-calibrate", *options))
    return done, json.loads(offload(project, "report", *options))


def test_an_instance_trains_to_the_very_numbers_of_the_cpu_and_leaves_nothing(project, monkeypatch, hurried):
    """Equal losses after every epoch: the weights are equal, too."""
    here, on_cpu = train(project, "cpu", "file:here")
    with SimulatedCloud(Behaviour(lag_seconds=0.05), namespaces=why_not() is None) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        there, on_ec2 = train(project, "ec2", "s3://gpu-offload/there")
        cloud.settle()
        assert not cloud.leftovers()
    assert there["where"] == "g4dn.xlarge"
    assert there["training_key"] == here["training_key"]
    losses = {name: values for name, values in on_cpu["curves"].items() if "loss" in name}
    assert losses
    assert all(len(values) == 2 and all(value > 0 for value in values) for values in losses.values())
    assert on_ec2["curves"] == on_cpu["curves"]
    assert there["metrics"] == here["metrics"]
