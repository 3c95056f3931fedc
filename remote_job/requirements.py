"""Installs what a project's locked requirements name, into a folder of the training's own."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.errors import OffloadError
from gpu_offload.remote_job.uv import find_uv, uv_environment

REQUIREMENTS = ".gpu-offload/requirements.txt"
"""The lock's path in a project."""
COMPLETE = ".complete"
"""A file with the lock's sha256, written into the folder once everything is installed."""
SECONDS = 1800
"""Time limit; a CUDA build of PyTorch alone is 3 GB."""


class RequirementsError(OffloadError):
    """The requirements cannot be installed; the text quotes uv."""


@dataclass(frozen=True, slots=True)
class Packages:
    """A project's requirements, installed."""

    folder: Path
    seconds: float = 0.0
    """What installing them took now; 0.0 where they were there."""


def install(project: Path, root: Path) -> Packages | None:
    """Install a project's requirements below `root`, each lock in a folder of its own; None where it has none.

    Only wheels with the hashes of the lock are installed: no code of theirs runs meanwhile.

    Raises:
        RequirementsError: uv is missing or refuses.
    """
    lock = project / REQUIREMENTS
    if not lock.is_file():
        return None
    body = lock.read_bytes()
    packages = _folder(body, root)
    if are_installed(body, root):
        return Packages(packages)
    began = time.perf_counter()
    shutil.rmtree(packages, ignore_errors=True)
    packages.mkdir(parents=True)
    # --no-deps: the lock names everything. --no-config: a project's own settings could add an index.
    command = [
        _uv(), "pip", "install", "--quiet", "--no-config", "--python", sys.executable, "--target",
        str(packages.absolute()), "--no-deps",
        "--require-hashes", "--only-binary", ":all:", "--requirements", str(lock.absolute()),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            cwd=packages,
            env=uv_environment(os.environ),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RequirementsError(f"training.requirements were not installed within {SECONDS} s") from None
    if done.returncode != 0:
        raise RequirementsError(f"training.requirements cannot be installed: {done.stderr.strip()}")
    (packages / COMPLETE).write_text(_digest(body))
    return Packages(packages, time.perf_counter() - began)


def in_spec(packages: Packages | None) -> dict[str, str | float | None]:
    """Return the fields of a training's spec about its packages."""
    return {
        "packages": str(packages.folder) if packages else None,
        "installed_s": packages.seconds if packages else 0.0,
    }


def are_installed(lock: bytes, root: Path) -> bool:
    """Whether everything that a lock names is installed below `root`."""
    try:
        return (_folder(lock, root) / COMPLETE).read_text() == _digest(lock)
    except OSError:
        return False


def _folder(lock: bytes, root: Path) -> Path:
    return root / _digest(lock)[:16]


def _digest(lock: bytes) -> str:
    return hashlib.sha256(lock).hexdigest()


def _uv() -> str:
    found = find_uv()
    if found is None:
        raise RequirementsError("training.requirements needs uv, which is not installed here: pip install uv")
    return found
