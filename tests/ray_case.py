"""A cluster of real raylets on this machine, in a process of its own."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

NODES = Path(__file__).with_name("ray_nodes.py")


class Nodes:
    """Starts the cluster; `environment` is what a command needs to reach it."""

    def __init__(self, count, service=""):
        # Short: a path to a socket has 107 bytes at most.
        self.folder = Path(tempfile.mkdtemp(prefix="ry-", dir="/tmp"))
        self.environment = {
            "RAY_TMPDIR": str(self.folder),
            "TMPDIR": str(self.folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "3",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # where a job finds its Python
        }
        self._said = (self.folder / "said.txt").open("w")
        self.process = subprocess.Popen(
            [sys.executable, str(NODES), str(count), service],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True,
            env=os.environ | self.environment, start_new_session=True,
        )  # fmt: skip
        self.address = self.process.stdout.readline().strip()
        assert self.address, (self.folder / "said.txt").read_text()

    def cut_one_off(self):
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == "done"

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(timeout=60)
        self.process.stdout.close()
        self._said.close()


def processes_of(cluster):
    """Return the command lines of the processes that belong to a cluster."""
    found = [process.info["cmdline"] or () for process in psutil.process_iter(["cmdline"])]
    return [" ".join(line) for line in found if any(str(cluster.folder) in word for word in line)]
