"""Isolation that this machine offers to simulated instances."""

import getpass
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gpu_offload.infra.simulator.guest_boot import find_sshd

SSH_USER = "offload"
"""The login user where instances have users of their own; elsewhere it is the user that runs the simulation."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """Isolation that this user and kernel allow: PID namespace, users, sshd."""

    wrapper: tuple[str, ...]
    """The command that gives a process its own PID namespace; empty where that is not allowed."""
    users: bool
    """Whether it can have its own /etc/passwd, so that one logs in as `offload`."""
    sshd: str | None
    """Real sshd, if there is one that would work."""

    @property
    def user(self) -> str:
        """The login user: our own server ignores the name, sshd knows only real users."""
        return SSH_USER if self.users or self.sshd is None else getpass.getuser()


_PROBE = (
    "import ctypes,pwd,sys;"
    "assert ctypes.CDLL(None).mount(sys.argv[1].encode(), b'/etc/passwd', None, 4096, None) == 0;"
    "pwd.getpwnam('offload')"
)


@cache
def isolation() -> Isolation:
    """Find out, once, by trying."""
    sshd = find_sshd()
    try:
        me = pwd.getpwuid(os.geteuid())
    except KeyError:  # a container's user of no name: sshd does not log such users in
        return Isolation((), users=False, sshd=None)
    if Path(me.pw_shell).name in {"nologin", "false"}:
        sshd = None  # it runs commands by the user's login shell
    unshare = shutil.which("unshare")
    if unshare is None:
        return Isolation((), users=False, sshd=sshd)
    common = ("--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "--")
    wrapper = (
        unshare,
        # Without root only a user namespace of its own lets a process have the others.
        *(() if os.geteuid() == 0 else ("--user", "--map-current-user", "--keep-caps")),
        *common,
    )
    if not _works((*wrapper, sys.executable, "-I", "-c", "")):
        return Isolation((), users=False, sshd=sshd)
    with tempfile.NamedTemporaryFile("w", prefix="gpu-offload-") as file:
        file.write(passwd("/"))
        file.flush()
        users = _works((*wrapper, sys.executable, "-I", "-c", _PROBE, file.name))
    return Isolation(wrapper, users=users, sshd=sshd)


def _works(command: tuple[str, ...]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def passwd(home: str) -> str:
    """This machine's users and `offload`, who is the user that runs the simulation under another name."""
    ours = f"{SSH_USER}:x:{os.geteuid()}:{os.getegid()}::{home}:/bin/sh\n"
    return Path("/etc/passwd").read_text().rstrip("\n") + "\n" + ours
