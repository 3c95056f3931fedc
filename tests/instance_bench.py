"""A simulated host behind a real SSH server, for tests of what is installed and run there."""

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

from commands import wait_until
from real_sshd import sshd

from gpu_offload.infra.instance.job import InstanceJob, JobState
from gpu_offload.infra.instance.software import look
from gpu_offload.infra.ssh.client import SshHost

TRAINING = """
import json, os, pathlib, signal, socket, sys, time
words = sys.argv[1:]
here = pathlib.Path.cwd()
if "--fetch" in words:
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    (here / "listens").touch()
    while os.environ.get("UNTIL_TOLD") and not told:
        time.sleep(0.02)
    (here / "spec.json").write_text("{}")
    (here / "key").write_text(os.environ.get("STORE_ACCESS_KEY_ID", ""))
    (here / "words").write_text(json.dumps(words))
    sys.exit()
if "--mirror" in words:
    (here / "trouble").write_text("denied\\nand so on")
    while not os.path.exists(words[words.index("--until") + 1]):
        time.sleep(0.02)
    sys.exit(int(os.environ.get("MIRROR_CODE", "0")))
def say(text):
    with open("progress.jsonl", "a") as progress:
        progress.write(json.dumps({"event": text, "uid": os.getuid(), "words": words, "key": os.environ.get("STORE_ACCESS_KEY_ID")}) + "\\n")
    with open("log.txt", "a") as log:
        log.write(f"log of {text}\\n")
def ask_to_stop(*_):
    say("interrupted")
    sys.exit(75)
signal.signal(signal.SIGTERM, ask_to_stop)
say("start")
print("printed", flush=True)
while not os.path.exists(os.environ["LET_GO"]):
    time.sleep(0.02)
say("finished")
sys.exit(int(os.environ.get("CODE", "0")))
"""
"""Stands for the training module: the real one takes half a minute to import what it needs."""


class Bench:
    """A simulated host behind a real SSH server, and a stand-in for the training that ends when it is let go."""

    def __init__(self, server, root, tmp_path):
        self.server, self.root, self.tmp_path = server, root, tmp_path
        self.host = SshHost(server.address, server.client_key, server.host_key.public)
        self.instance = look(self.host)
        self.job = InstanceJob(self.host, self.instance, "run-1", 1)

    def start(self, job=None, mirror=(), *, spot_notice="", power_off_after=600, **environment):
        library = {"PYTHONPATH": str(self.tmp_path / "lib")}
        trainer = {**library, "LET_GO": str(self.tmp_path / "go"), **environment}
        (job or self.job).start(
            b"{}", sys.executable, trainer=trainer, uploader={**library, **dict(mirror)},
            spot_notice=spot_notice, power_off_after=power_off_after,
        )  # fmt: skip

    def shut_down(self):
        """Send what a machine's shutdown sends to the job, and wait for its end."""
        os.kill(int(Path(self.job.folder, "supervisor").read_text()), signal.SIGTERM)
        wait_until(lambda: self.job.look().state is JobState.ENDED)

    def start_command(self):
        """Return how `start` is asked for on the host, with the variables of the uploader as its input."""
        script = f"{self.instance.inbox}/job.sh"
        return ["sh", script, "start", self.job.unit, sys.executable, "600", ""]

    def let_go(self):
        (self.tmp_path / "go").touch()

    def powered_off(self):
        return (self.tmp_path / "shutdown-called").exists()


@contextmanager
def simulated_host(tmp_path, **more):
    root = tmp_path / "a root"
    root.mkdir()
    stand_in = tmp_path / "lib/gpu_offload/remote_job"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").touch()
    (stand_in / "__main__.py").write_text(TRAINING)
    shutdown = tmp_path / "shutdown"
    shutdown.write_text(f"#!/bin/sh\necho >>{tmp_path}/shutdown-called\n")
    shutdown.chmod(0o755)
    environment = {
        "GPU_OFFLOAD_ROOT": str(root), "GPU_OFFLOAD_SHUTDOWN": str(shutdown),
        "GPU_OFFLOAD_SAME_USER": "1", "GPU_OFFLOAD_POLL": "0.1",
    }  # fmt: skip
    with sshd(tmp_path / "sshd", environment=environment | more) as server:
        bench = Bench(server, root, tmp_path)
        yield bench
        bench.host.close()
