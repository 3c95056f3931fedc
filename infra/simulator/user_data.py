"""Executes user data as cloud-init does, with the modules that our instances use."""

import base64
import contextlib
import email
import gzip
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gpu_offload.errors import OffloadError
from gpu_offload.infra.simulator.guest_paths import PathMap
from gpu_offload.infra.simulator.guest_root import add_user

HANDLED = {
    "bootcmd", "write_files", "users", "ssh_keys", "ssh_authorized_keys", "runcmd", "ssh_deletekeys", "ssh_genkeytypes",
    "disable_root", "ssh_pwauth", "package_update", "package_upgrade", "package_reboot_if_required", "output",
    "final_message", "preserve_hostname", "hostname", "timezone", "locale", "chpasswd", "allow_public_ssh_keys",
    "no_ssh_fingerprints", "ssh",
}  # fmt: skip
"""Keys that are executed, and keys that change nothing on a simulated instance."""

Say = Callable[[str], None]


class BootError(OffloadError):
    """The boot ends here."""


@dataclass(slots=True)
class UserData:
    """The parts of user data, merged.

    Formats: `#cloud-config`, a `#!` script, or a MIME archive of both. Modules, in cloud-init's order: `bootcmd`,
    `write_files`, `users`, `ssh_keys` and `ssh_authorized_keys` before the SSH server starts; `runcmd` and scripts
    after. Unknown modules are named in the console output.
    """

    config: dict[str, Any] = field(default_factory=dict)
    scripts: list[str] = field(default_factory=list)


def read_user_data(data: bytes) -> UserData:
    """Parse user data. Raises ValueError for an unknown format."""
    if data[:2] == b"\x1f\x8b":  # gzip, which cloud-init unpacks, too
        data = gzip.decompress(data)
    text = data.decode()
    result = UserData()
    for part in _parts(text):
        if part.lstrip().startswith("#!"):
            result.scripts.append(part)
        elif part.startswith("#cloud-config"):
            document = yaml.safe_load(part) or {}
            if not isinstance(document, dict):
                raise ValueError("the cloud-config is not a mapping")
            for key, value in document.items():
                # cloud-init appends lists of several parts, and takes other values from the last one.
                known = result.config.get(key)
                result.config[key] = (
                    [*known, *value] if isinstance(known, list) and isinstance(value, list) else value
                )
        elif part.strip():
            raise ValueError(f"neither #cloud-config nor a script: {part[:40]!r}")
    return result


def _parts(text: str) -> Iterator[str]:
    if not text.startswith(("Content-Type:", "MIME-Version:", "From ")):
        yield text
        return
    for part in email.message_from_string(text).walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            yield payload.decode() if isinstance(payload, bytes) else str(payload)


@dataclass(frozen=True, slots=True)
class Boot:
    """Executes user data on one instance."""

    paths: PathMap
    ssh: Path
    """Folder of the SSH server's keys, outside the instance's own paths."""
    environment: dict[str, str]
    say: Say

    def early(self, data: UserData) -> None:
        """Everything before the SSH server: bootcmd first, then files, users and keys."""
        for key in sorted(data.config.keys() - HANDLED):
            self.say(f"cloud-init: the simulation does not do `{key}`")
        self.early_commands(data)
        for entry in data.config.get("write_files") or []:
            self._write(entry)
        self._keys(data.config)

    def early_commands(self, data: UserData) -> None:
        """Run the modules that cloud-init runs on every boot."""
        for number, command in enumerate(data.config.get("bootcmd") or []):
            if not self._run("bootcmd", command) and number == 0:
                # The first one arms the power-off: a machine that cannot, must not go on.
                raise BootError("the first bootcmd failed")

    def late(self, data: UserData) -> None:
        """Everything after the SSH server is up: runcmd, then scripts."""
        for command in data.config.get("runcmd") or []:
            self._run("runcmd", command)
        for number, script in enumerate(data.scripts, start=1):
            path = self.paths.path(f"/var/lib/cloud/instance/scripts/part-{number:03}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.paths.text(script))
            path.chmod(0o700)
            self._run("script", [str(path)])

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

    def _write(self, entry: dict[str, Any]) -> None:
        raw = entry.get("content", "")
        content: bytes = raw if isinstance(raw, bytes) else str(raw).encode()
        encoding = str(entry.get("encoding", "")).replace("base64", "b64").replace("gzip", "gz")
        if "b64" in encoding:
            content = base64.b64decode(content)
        if "gz" in encoding:
            content = gzip.decompress(content)
        with contextlib.suppress(UnicodeDecodeError):  # not a text: no path of ours is in it
            content = self.paths.text(content.decode()).encode()
        path = self.paths.path(str(entry["path"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if entry.get("append") else "wb") as file:
            file.write(content)
        path.chmod(int(str(entry.get("permissions", "0644")), 8))

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
