"""On an instance the process that trains has no network, no credentials and nothing to say about those who do."""

import json
import os
from urllib.parse import urlsplit

import pytest

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from commands import offload
from leak_case import STORE, train_project

from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.simulator.namespace import why_not
from gpu_offload.infra.store.factory import open_store

HOSTILE = '''
import ctypes, os, signal, socket, stat, time
from pathlib import Path

from gpu_offload.remote_job.entrypoint import Trained


def succeeds(deed):
    try:
        deed()
    except Exception:
        return 0.0
    return 1.0


FOLDERS = ("/run", "/var/run/", "/tmp", "/var/tmp", "/dev/shm")
libc = ctypes.CDLL(None, use_errno=True)


def main(context):
    """Train two epochs, the second until it is told to stop, and try everything meanwhile that must not be possible."""
    output = Path(context.spec.output)
    job = output.parent
    # Whoever reads either of these runs it.
    (output / "infra.py").write_text(f"open({str(job / 'input/planted')!r}, 'w')")
    (Path.home() / ".aws").mkdir()
    (Path.home() / ".aws/config").write_text("[default]\\ncredential_process = touch " + str(job / "input/planted"))
    status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
    uploaders = [p for p in Path("/proc").glob("[0-9]*") if p.stat().st_uid == 64002]
    tried = {
        "metadata": succeeds(lambda: socket.create_connection(("169.254.169.254", 80), 1)),
        "cloud": succeeds(lambda: socket.create_connection(("GATEWAY", PORT), 1)),
        "loopback": succeeds(lambda: socket.create_server(("127.0.0.1", 0))),
        "uploaders": float(len(uploaders)),
        "environment": sum(succeeds((p / "environ").read_bytes) for p in uploaders),
        "keys": succeeds(lambda: next(Path("/run/gpu-offload").glob("*.environment")).read_bytes()),
        "own_keys": float(any(name.startswith("AWS_") for name in os.environ)),
        "spec": succeeds(lambda: (job / "spec.json").write_text("{}")),
        "inputs": succeeds(lambda: (job / "input/spec.json").write_text("{}")),
        "dataset": succeeds(lambda: (context.tree / "more").write_text("")),
        "stop": succeeds(lambda: (job / "input/stop").write_text("")),
        "signal": sum(succeeds(lambda p=p: os.kill(int(p.name), signal.SIGTERM)) for p in uploaders),
        "root": succeeds(lambda: os.setuid(0)),
        "sockets": float(sum(stat.S_ISSOCK(p.lstat().st_mode) for f in FOLDERS for p in Path(f).rglob("*"))),
        "run": float(len(os.listdir("/run"))),
        "tmp": float(len([p for f in ("/tmp", "/dev/shm") for p in Path(f).iterdir() if p.stat().st_uid == 0])),
        "shared_memory": succeeds(lambda: Path("/dev/shm/theirs").read_bytes()),
        "capabilities": float(sum(int(v, 16) for k, v in status.items() if k.startswith("Cap"))),
        "new_privileges": float(status["NoNewPrivs"] != "1"),
        "unmount": float(libc.umount2(b"/run", 2) == 0),
        "mount": float(libc.mount(b"none", str(Path.home()).encode(), b"tmpfs", 0, None) == 0),
        "namespace": float(libc.setns(os.open("/proc/self/ns/net", os.O_RDONLY), 0) == 0),
        "raw": succeeds(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
        "device": succeeds(lambda: os.mknod(str(output / "disk"), 0o60600, os.makedev(259, 0))),
        "chroot": succeeds(lambda: os.chroot(str(output))),
    }
    model = context.output / "model.bin"
    model.write_text("model")
    resumed = context.epochs_completed
    for epoch in range(resumed + 1, 3):
        context.epoch(epoch, metrics={}, losses={})
        context.checkpoint(model, epochs_completed=epoch)
        while epoch == 1 and not context.interrupted():
            time.sleep(0.02)
        if context.interrupted():
            return None
    tried |= {"planted": float((job / "input/planted").exists()), "resumed": float(resumed)}
    (output / "log.txt").unlink()
    (output / "log.txt").symlink_to(job / "input/spec.json")
    return Trained(model, tried)
'''


@pytest.mark.root
def test_a_training_that_was_led_astray_reaches_nothing_and_its_run_is_published_all_the_same(
    tmp_path, monkeypatch
):
    """And a notice of reclaim reaches it across the users' border, and it goes on elsewhere from the store."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    fault = "instance:reclaim:notice=30s:after=epoch=1"
    with SimulatedCloud(Behaviour(lag_seconds=0.05), [fault], namespaces=True) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        address = urlsplit(cloud._endpoint)
        train_project(tmp_path, epochs=2)
        hostile = HOSTILE.replace("GATEWAY", str(address.hostname)).replace("PORT", str(address.port))
        (tmp_path / "mine.py").write_text(hostile)
        report = json.loads(offload(tmp_path, "train", "--on", "ec2", "--json"))
        store = open_store(STORE)
        logs = {i.key: store.read(i.key)[0] for i in store.list("runs/") if i.key.endswith("log.txt")}
        beats = [
            json.loads(store.read(i.key)[0]) for i in store.list("runs/") if i.key.endswith("heartbeat.json")
        ]
        cloud.settle()
        assert not cloud.leftovers().costs_money
    tried = report["metrics"]
    assert tried.pop("loopback") == 1, "several GPUs talk over it"
    assert tried.pop("uploaders") >= 1, "the mirror runs beside it"
    assert tried.pop("resumed") == 1, "the second attempt went on from the store's checkpoint"
    assert {name for name, value in tried.items() if value} == set()
    assert [beat["state"] for beat in beats] == ["interrupted", "finished"]
    assert "spot interruption notice" in beats[0]["message"]
    assert not [key for key, body in logs.items() if b"training_key" in body]


def test_inputs_that_were_fetched_say_what_was_said_before(tmp_path):
    """Whoever follows a training sees one progress, though two users wrote it."""
    from gpu_offload.remote_job.mirror.inputs import InputFolder

    inputs, output = InputFolder(tmp_path / "input"), tmp_path / "output"
    inputs.folder.mkdir()
    (inputs.folder / "progress.jsonl").write_text("start\n")
    assert inputs.go_on_telling(output)
    (output / "progress.jsonl").write_text("start\nmore\n")
    assert not inputs.go_on_telling(output)
    assert (output / "progress.jsonl").read_text() == "start\nmore\n"
    reasons = []
    inputs.ask_to_stop("the first reason")
    inputs.ask_to_stop("another")
    end = inputs.watch(reasons.append)
    while not reasons:
        os.sched_yield()
    end()
    assert reasons == ["the first reason"]
