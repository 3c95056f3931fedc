"""What runs on an instance: the very code that runs here, and its locked dependencies."""

import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from gpu_offload.infra import instance
from gpu_offload.infra.instance.software import Software
from gpu_offload.infra.instance.wheel import pack_wheel

LOCK = Path(instance.__file__).parent / "requirements.txt"


class LockMissingError(Exception):
    """There are no locked dependencies to set an instance up with."""


def own_software() -> Software:
    """Return our code, packed from where it was imported, the lock beside it and a uv to send.

    Raises:
        LockMissingError: this copy of ours came without its lock.
    """
    ours = version("gpu-offload")
    if not LOCK.is_file():
        raise LockMissingError(
            f"there is no {LOCK}: an instance is set up from locked dependencies only; install gpu-offload anew"
        )
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    return Software(version=ours, lock=LOCK.read_bytes(), wheel=pack_wheel(ours), uv=Path(uv) if uv else None)
