"""The second process of a simulated instance: user data, SSH server, user data again, in cloud-init's order."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_offload.infra.simulator.guest_paths import PathMap
from gpu_offload.infra.simulator.user_data import Boot, read_user_data
from gpu_offload.infra.ssh.key import HostKey

SSHD_CONFIG = """
Port {port}
ListenAddress {address}
AuthorizedKeysFile {ssh}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PermitEmptyPasswords no
AllowTcpForwarding no
X11Forwarding no
PermitTTY {tty}
PrintMotd no
UseDNS no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
ForceCommand {session}
{host_keys}
"""
HOST_KEY_KINDS = ("ed25519", "ecdsa", "rsa")


def boot(folder: Path, config: dict[str, Any], say: Callable[[str], None]) -> None:
    """Boot an instance; returns when the user data is done, with the SSH server left running."""
    root = Path(config["root"]) if config["root"] else None
    paths = PathMap(root, keep=(str(folder),))
    ssh = folder / "ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    environment: dict[str, str] = config["environment"]
    Path(environment["HOME"]).mkdir(parents=True, exist_ok=True)
    if config["baked"]:
        marker = paths.path("/opt/gpu-offload/baked")
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text("".join(f"{name}={value}\n" for name, value in config["baked"].items()))
    data: dict[str, Any] = {}
    try:
        data = read_user_data((folder / "user-data").read_bytes())
    except ValueError as error:
        say(f"cloud-init: the user data is not understood: {error}")
    again = (folder / "booted").exists()
    plan = Boot(paths, ssh, environment, say)
    if again:
        # cloud-init's once-per-instance modules are done; `bootcmd` runs on every boot.
        plan.early_commands(data)
        data = {}
    else:
        plan.early(data)
        (folder / "booted").touch()
    start_ssh_server(folder, config, paths, say)
    plan.late(data)
    say("cloud-init: finished")


def start_ssh_server(
    folder: Path, config: dict[str, Any], paths: PathMap, say: Callable[[str], None]
) -> None:
    """Start sshd, or our own server where there is none, and leave it running."""
    ssh = folder / "ssh"
    keys = [ssh / f"ssh_host_{kind}_key" for kind in HOST_KEY_KINDS]
    if not any(key.exists() for key in keys):  # the user data plants none
        keys[0].touch(mode=0o600)
        keys[0].write_text(HostKey.generate().private)
    session = {
        "environment": config["environment"],
        "root": config["root"],
        "pattern": paths.pattern,
        "disk_marker": str(folder / "full-disk"),
    }
    (folder / "session.json").write_text(json.dumps(session))
    address, port = config["ssh"]
    if config["sshd"]:
        script = Path(__file__).with_name("session.py")
        wrapper = folder / "session"
        wrapper.write_text(f"#!/bin/sh\nexec '{sys.executable}' -I -S '{script}' '{folder}'\n")
        wrapper.chmod(0o755)
        (ssh / "sshd_config").write_text(
            SSHD_CONFIG.format(
                address=address,
                port=port,
                ssh=ssh,
                session=wrapper,
                tty="yes" if os.geteuid() == 0 else "no",
                host_keys="\n".join(f"HostKey {key}" for key in keys if key.exists()),
            )
        )
        command = [config["sshd"], "-D", "-e", "-f", str(ssh / "sshd_config")]
    else:
        command = [sys.executable, "-P", "-m", "gpu_offload.infra.simulator.ssh_server", str(folder)]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (folder / "ssh.log").open("ab") as log:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=config["environment"],
            start_new_session=True,
        )
    fingerprints = sorted(key.name for key in keys if key.exists())
    say(f"ssh: {Path(command[0]).name} on port {port}, host keys {', '.join(fingerprints)}")


def find_sshd() -> str | None:
    """Where OpenSSH's server is, if this user's login shell lets it run commands."""
    path = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
    return path if path and re.match("/", path) else None
