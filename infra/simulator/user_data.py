"""Executes user data as cloud-init does, with the modules that our instances use."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpu_offload.errors import OffloadError
from gpu_offload.infra.simulator.guest_paths import PathMap
from gpu_offload.infra.simulator.guest_root import add_user

HANDLED = {
    "bootcmd", "users", "ssh_keys", "ssh_authorized_keys", "runcmd",
    "ssh_deletekeys", "disable_root", "ssh_pwauth", "package_update", "package_upgrade",
}  # fmt: skip
"""Keys that are executed, and keys that change nothing on a simulated instance."""

Say = Callable[[str], None]


def read_user_data(data: bytes) -> dict[str, Any]:
    """Parse a `#cloud-config`, or nothing at all. Raises ValueError for another format."""
    text = data.decode()
    document = yaml.safe_load(text) or {}
    if not isinstance(document, dict) or (text and not text.startswith("#cloud-config")):
        raise ValueError(f"no #cloud-config: {text[:40]!r}")
    return document


@dataclass(frozen=True, slots=True)
class Boot:
    """Executes user data on one instance."""

    paths: PathMap
    ssh: Path
    """Folder of the SSH server's keys, outside the instance's own paths."""
    environment: dict[str, str]
    say: Say

    def early(self, config: dict[str, Any]) -> None:
        """Everything before the SSH server: bootcmd first, then users and keys."""
        for key in sorted(config.keys() - HANDLED):
            self.say(f"cloud-init: the simulation does not do `{key}`")
        self.early_commands(config)
        self._keys(config)

    def early_commands(self, config: dict[str, Any]) -> None:
        """Run the modules that cloud-init runs on every boot."""
        for number, command in enumerate(config.get("bootcmd") or []):
            if not self._run("bootcmd", command) and number == 0:
                # The first one arms the power-off: a machine that cannot, must not go on.
                raise OffloadError("the first bootcmd failed")

    def late(self, config: dict[str, Any]) -> None:
        """Everything after the SSH server is up."""
        for command in config.get("runcmd") or []:
            self._run("runcmd", command)

    def _run(self, stage: str, command: str | list[Any]) -> bool:
        """Run a command, a list of words or a text for the shell; return whether it succeeded."""
        if isinstance(command, list):
            words = [self.paths.text(str(word)) for word in command]
        else:
            words = ["/bin/sh", "-c", self.paths.text(command)]
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.environment.get("HOME", "/"),
                check=False,
            )
        except OSError as error:
            self.say(f"cloud-init: {stage} failed: {error}")
            return False
        for line in done.stdout.decode(errors="replace").splitlines():
            self.say(line)
        if done.returncode:
            self.say(f"cloud-init: {stage} failed with exit code {done.returncode}: {str(command)[:200]}")
        return done.returncode == 0

    def _keys(self, config: dict[str, Any]) -> None:
        """Install the host keys, and collect the keys that may log in."""
        for name, text in (config.get("ssh_keys") or {}).items():
            kind, _, half = str(name).partition("_")
            if half in {"private", "public"}:
                path = self.ssh / f"ssh_host_{kind}_key{'.pub' if half == 'public' else ''}"
                path.touch(mode=0o600)
                path.write_text(str(text).rstrip("\n") + "\n")
        keys = list(config.get("ssh_authorized_keys") or [])
        for user in config.get("users") or []:
            if isinstance(user, dict):
                if self.paths.root is None and "uid" in user:
                    add_user(str(user["name"]), int(user["uid"]))
                keys += user.get("ssh_authorized_keys") or []
                home = self.paths.path(str(user.get("homedir") or f"/home/{user.get('name', 'user')}"))
                home.mkdir(parents=True, exist_ok=True)
        authorized = self.ssh / "authorized_keys"
        authorized.touch(mode=0o600)
        authorized.write_text("".join(f"{str(key).strip()}\n" for key in keys))
        # sshd reads the keys as the user that logs in.
        if os.geteuid() == 0:
            self.ssh.chmod(0o755)
            authorized.chmod(0o644)
