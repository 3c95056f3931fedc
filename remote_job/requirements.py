"""Installs what a project's locked requirements name, into a folder of the training's own."""

import hashlib
import shutil
import sys
import time
from pathlib import Path

from gpu_offload.errors import OffloadError
from gpu_offload.remote_job.spec import TrainingSpec
from gpu_offload.remote_job.uv import run_uv

REQUIREMENTS = ".gpu-offload/requirements.txt"
"""The lock's path in a project."""
COMPLETE = ".complete"
"""A file with the lock's sha256, written into the folder once everything is installed."""
SECONDS = 1800
"""Time limit; a CUDA build of PyTorch alone is 3 GB."""


class RequirementsError(OffloadError):
    """The requirements cannot be installed; the text quotes uv."""


def with_packages(spec: TrainingSpec, root: Path) -> TrainingSpec:
    """Install the requirements of a spec's project below `root`, each lock in a folder of its own.

    Only wheels with the hashes of the lock are installed: no code of theirs runs meanwhile.

    Returns:
        The spec with their folder and the seconds that it took; None and 0 where the project has no lock.

    Raises:
        RequirementsError: uv is missing or refuses.
    """
    lock = Path(spec.project) / REQUIREMENTS if spec.project is not None else None
    if lock is None or not lock.is_file():
        return spec.model_copy(update={"packages": None, "installed_s": 0.0})
    body = lock.read_bytes()
    packages, seconds = _folder(body, root), 0.0
    if not are_installed(body, root):
        began = time.perf_counter()
        _install(lock, packages)
        (packages / COMPLETE).write_text(_digest(body))
        seconds = time.perf_counter() - began
    return spec.model_copy(update={"packages": str(packages), "installed_s": seconds})


def _install(lock: Path, packages: Path) -> None:
    shutil.rmtree(packages, ignore_errors=True)  # what an installation that was killed left
    packages.mkdir(parents=True)
    # --no-deps: the lock names everything. --no-config: a project's own settings could add an index.
    words = [
        "pip", "install", "--quiet", "--no-config", "--python", sys.executable, "--target",
        str(packages.absolute()), "--no-deps",
        "--require-hashes", "--only-binary", ":all:", "--requirements", str(lock.absolute()),
    ]  # fmt: skip
    if why := run_uv(words, packages, SECONDS):
        raise RequirementsError(f"training.requirements cannot be installed: {why}")


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
