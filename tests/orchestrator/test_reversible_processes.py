"""A toss-up with real processes: it begins on this CPU, and its checkpoint goes on on a simulated instance."""

import json

import pytest

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from commands import offload

from gpu_offload.dataset.synthetic import generate
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.simulator.namespace import why_not

pytestmark = [pytest.mark.process, pytest.mark.simulator]

EPOCHS = 3000

CONFIGURATION = f"""
[dataset]
path = "shapes"
classes = ["circle", "square", "triangle"]
[training]
entrypoint = "mine:main"
epochs = {EPOCHS}
license = "MIT"
[store]
url = "s3://gpu-offload/tossup"
[limits]
max-cost-usd = 5.0
[ec2]
regions = ["us-east-1"]
instance-types = ["g4dn.xlarge"]
"""

SLOW_HERE = """
import time
from gpu_offload.remote_job.entrypoint import Trained


def main(context):
    state = context.output / "state.txt"
    state.write_text("one epoch")
    first = context.resume()
    if first is None:
        time.sleep({seconds})  # all of these are more than the deadline
        context.epoch(1, metrics={"loss": 1.0})
        context.checkpoint(state, epochs_completed=1)
        while not context.interrupted():
            time.sleep(0.05)
        return None
    for epoch in range(context.epochs_completed + 1, context.spec.epochs + 1):
        context.epoch(epoch, metrics={"loss": 1 / epoch})
    model = context.output / "any.joblib"
    model.write_text(first.read_text())
    return Trained(model, {"loss": 0.1})
"""


def test_a_toss_up_begins_here_and_its_checkpoint_goes_on_on_an_instance(tmp_path, monkeypatch, hurried):
    generate(tmp_path / "shapes", images=12, size=64)
    (tmp_path / "offload.toml").write_text(CONFIGURATION)
    code = tmp_path / "mine.py"
    code.write_text(SLOW_HERE)
    with SimulatedCloud(Behaviour(lag_seconds=0.05), namespaces=why_not() is None) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        plan = json.loads(offload(tmp_path, "plan", "--json", "--set", "limits.deadline=200h"))
        times = {option["where"]: option["seconds"] for option in plan["options"] if option["where"] == "cpu"}
        # Just inside of the CPU's interval, whatever this machine is estimated at.
        deadline = f"{int(times['cpu']['high'] * 0.98)}s"
        code.write_text(SLOW_HERE.replace("{seconds}", str(times["cpu"]["high"] * 1.5 / EPOCHS)))
        plan = json.loads(offload(tmp_path, "plan", "--json", "--set", f"limits.deadline={deadline}"))
        assert plan["decision"]["reversible"], plan["decision"]["why"]
        done = json.loads(offload(tmp_path, "train", "--json", "--set", f"limits.deadline={deadline}"))
        report = json.loads(offload(tmp_path, "report", "--json"))
        cloud.settle()
        assert not cloud.leftovers()
    assert (done["status"], done["where"]) == ("trained", "g4dn.xlarge")
    first, second = report["attempts"]
    assert (first["offer"], first["reason"]) == ("this CPU", "overrun")
    assert "moves to g4dn.xlarge" in first["message"]
    assert second["offer"].startswith("g4dn.xlarge")
    assert second["epochs_completed"] == EPOCHS
