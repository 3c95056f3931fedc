"""A real OpenSSH server on a loopback or a namespace address, for the tests of everything that goes over SSH."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gpu_offload.infra.ssh.connection import Address
from gpu_offload.infra.ssh.key import ClientKey, HostKey

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port(address="127.0.0.1"):
    with socket.create_server((address, 0)) as server:
        return server.getsockname()[1]


def processes_with(mark):
    """Processes that were started with this `NAME=value` in their environment, by pid."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def end_processes(mark):
    """Kill what tests left running on purpose, until nothing is left."""
    while left := list(processes_with(mark)):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        time.sleep(0.02)


class Sshd:
    """A server process, its identity and the client key that it accepts."""

    def __init__(self, folder, *, address="127.0.0.1", port=None, host_key=None, environment=None, prefix=()):
        if SSHD is None:
            pytest.skip("no sshd on this machine")
        self.folder = folder
        self.client_key = ClientKey.generate()
        self.host_key = host_key or HostKey.generate()
        self.port = port or free_port()
        self.address = Address(address, self.port, getpass.getuser())
        self.prefix = prefix
        self.process = None
        folder.mkdir(parents=True, exist_ok=True)
        key = folder / "host_key"
        key.touch(0o600)
        key.write_text(self.host_key.private)
        (folder / "authorized_keys").write_text(f"{self.client_key.public} run\n")
        # Whatever a session leaves behind is known by this variable.
        self.mark = f"SSHD_OF={folder}"
        variables = f'"{self.mark}" ' + " ".join(
            f'"{name}={value}"' for name, value in (environment or {}).items()
        )
        (folder / "config").write_text(
            f"ListenAddress {address}:{self.port}\nHostKey {key}\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"AuthorizedKeysFile {folder / 'authorized_keys'}\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nUseDNS no\n"
            f"SetEnv {variables}\n"
        )

    def start(self):
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd as root locks itself in
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [*self.prefix, SSHD, "-D", "-e", "-f", str(self.folder / "config")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        if not self.prefix:
            self._await_port()
        return self

    def _await_port(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            try:
                socket.create_connection((self.address.host, self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError("sshd does not listen: " + (self.folder / "log").read_text())

    def connections(self):
        """Processes that serve a connection, by pid."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def drop_connections(self):
        """End the processes that serve connections, as a reclaimed or crashed host does."""
        for pid in self.connections():
            for inner in [*_children(pid), pid]:
                with suppress(ProcessLookupError):
                    os.kill(inner, 9)

    def stop(self):
        if self.process is not None:
            self.drop_connections()
            self.process.kill()
            self.process.wait()
            self.process = None
        end_processes(self.mark)


def _children(pid):
    """The unprivileged half of a connection (a sshd too), not the commands below it."""
    found = subprocess.run(["pgrep", "-P", str(pid), "sshd"], capture_output=True, text=True, check=False)
    return [int(child) for child in found.stdout.split()]


@contextmanager
def sshd(folder, **options):
    server = Sshd(folder, **options)
    try:
        yield server.start()
    finally:
        server.stop()
