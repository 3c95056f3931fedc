"""The training software of an instance: found in its image, or installed by uv from the lock."""

import hashlib
import os
import platform
import shlex
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from gpu_offload.errors import OffloadError
from gpu_offload.infra import instance
from gpu_offload.infra.instance import script
from gpu_offload.infra.instance.wheel import Wheel, pack_wheel
from gpu_offload.infra.origin import documentation
from gpu_offload.infra.ssh.client import SshHost
from gpu_offload.infra.ssh.errors import HostError

LOOK = r"""
root=${GPU_OFFLOAD_ROOT:-}; root=${root%/}
become=; [ "$(id -u)" = 0 ] || [ -n "${GPU_OFFLOAD_ROOT+set}" ] || become="sudo -n"
inbox=$root/var/lib/gpu-offload/inbox
$become mkdir -p "$inbox" && $become chown "$(id -u)" "$inbox" && $become chmod 700 "$inbox" || exit 1
printf 'root=%s\nprocessor=%s\nuv=%s\n' "$root" "$(uname -m)" "$(command -v uv)"
cat "$root/opt/gpu-offload/baked" "$root/opt/gpu-offload/installed" 2>/dev/null
exit 0
"""
"""Prints the root, the processor, uv and the markers; creates the inbox."""

INSTALL_S = 1_800.0
"""Seconds for the set-up; the CUDA build of PyTorch alone is 3 GB."""


class SetUpError(HostError):
    """The software could not be installed on the instance; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Software:
    """The software that an instance must have."""

    version: str
    """Version of this package, as an image's marker names it."""
    lock: bytes
    """A requirements file with hashes."""
    wheel: Wheel
    uv: Path | None = None
    """A uv to send where the image has none."""
    uv_options: tuple[str, ...] = ()
    """For `uv pip install`: an index, or a folder to find wheels in."""

    @property
    def lock_sha256(self) -> str:
        """The lock's digest in hexadecimal."""
        return hashlib.sha256(self.lock).hexdigest()


@dataclass(frozen=True, slots=True)
class HostSoftware:
    """Software and paths found on a host. `found` holds the `name=value` lines of the markers."""

    root: str
    """Prefix of every path; empty except on a simulated host."""
    processor: str
    has_uv: bool
    found: dict[str, str]

    @property
    def inbox(self) -> str:
        """Where files are sent to."""
        return f"{self.root}/var/lib/gpu-offload/inbox"

    def ready_python(self, software: Software) -> str | None:
        """Return the interpreter that has exactly this software, None where there is none.

        An image's marker is trusted for its version; software installed by gpu-offload must be the same wheel.
        """
        found = self.found
        # By version: an image is built from a release, whose wheel has other bytes than the code that runs here.
        if (found.get("version"), found.get("lock")) == (software.version, software.lock_sha256):
            return found.get("python")
        installed = (found.get("installed_lock"), found.get("installed_wheel"))
        if installed == (software.lock_sha256, software.wheel.sha256):
            return found.get("installed_python")
        return None


def read_instance(text: str) -> HostSoftware:
    """Parse the output of LOOK; the later of two equal names counts."""
    # A login shell may print a greeting before our lines.
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return HostSoftware(
        values.pop("root", ""), values.pop("processor", ""), bool(values.pop("uv", "")), values
    )


def look(host: SshHost, timeout: float = 60.0) -> HostSoftware:
    """Inspect a host, create its inbox and send the script that does everything else there."""
    instance = read_instance(host.run(LOOK, timeout=timeout).text)
    host.put(script("job.sh").encode(), f"{instance.inbox}/job.sh")
    return instance


def set_up(host: SshHost, instance: HostSoftware, software: Software) -> str:
    """Make sure that the software is on the instance and return its Python interpreter.

    Raises:
        SetUpError: neither the image nor this machine has a uv for it.
        CommandFailedError: uv failed; the text quotes it.
    """
    if python := instance.ready_python(software):
        return python
    if not instance.has_uv:
        _send_uv(host, instance, software.uv)
    host.put(software.lock, f"{instance.inbox}/requirements.txt")
    host.put(software.wheel.body, f"{instance.inbox}/{software.wheel.name}")
    words = ["sh", f"{instance.inbox}/job.sh", "install", software.lock_sha256, software.wheel.name]
    host.run(shlex.join([*words, *software.uv_options]), timeout=INSTALL_S)
    return f"{instance.root}/opt/gpu-offload/venv/bin/python"


def _send_uv(host: SshHost, instance: HostSoftware, uv: Path | None) -> None:
    if uv is None:
        raise SetUpError(
            f"{host.name}: no uv on this image, and none here to send. Install uv where the launcher runs, or use an "
            f"image that has the software baked in ({documentation('instance.md')})."
        )
    if instance.processor != platform.machine():
        raise SetUpError(
            f"{host.name}: the instance is {instance.processor}, our uv is for {platform.machine()}. Use an image "
            f"with uv, or one that has the software baked in ({documentation('instance.md')})."
        )
    host.put(uv, f"{instance.inbox}/uv", 0o755)


LOCK = Path(instance.__file__).parent / "requirements.txt"


@cache
def own_software() -> Software:
    """Return the running code as a wheel, its lock, and a uv to send.

    Raises:
        OffloadError: this installation has no lock.
    """
    ours = version("gpu-offload")
    if not LOCK.is_file():
        raise OffloadError(
            f"there is no {LOCK}: an instance is set up from locked dependencies only; reinstall gpu-offload"
        )
    # Beside this Python first: the PATH of a scheduled job may lack the environment that we are installed in.
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    return Software(version=ours, lock=LOCK.read_bytes(), wheel=pack_wheel(ours), uv=Path(uv) if uv else None)
