"""Installs what a project's locked requirements name, into a folder of the training's own."""

import hashlib
import os
import shutil
import subprocess
import sys
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


def install(project: Path, root: Path) -> Path | None:
    """Install a project's requirements below `root`; return their folder there, None where it has none.

    Only wheels with the hashes of the lock are installed: no code of theirs runs meanwhile.

    Raises:
        RequirementsError: uv is missing or refuses.
    """
    lock = project / REQUIREMENTS
    if not lock.is_file():
        return None
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    packages = root / digest[:16]
    if _is_complete(packages, digest):
        return packages
    shutil.rmtree(packages, ignore_errors=True)
    packages.mkdir(parents=True)
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
    (packages / COMPLETE).write_text(digest)
    return packages


def _is_complete(packages: Path, digest: str) -> bool:
    try:
        return (packages / COMPLETE).read_text() == digest
    except OSError:
        return False


def _uv() -> str:
    found = find_uv()
    if found is None:
        raise RequirementsError("training.requirements needs uv, which is not installed here: pip install uv")
    return found
