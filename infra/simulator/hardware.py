"""Hardware of a simulated machine, and the software in its image."""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]
"""The folder that our packages were imported from: what the image has baked in."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """A host as its launch describes it."""

    instance_id: str
    instance_type: str
    address: str
    user_data: bytes
    folder: Path
    endpoint: str
    """URL of the cloud's API, as seen from the instance."""
    ssh_port: int
    baked: Mapping[str, str]
    """Content of the image's marker `/opt/gpu-offload/baked`; empty for no marker."""
    environment: Mapping[str, str]
    """More variables for everything that runs on it."""
    grace: float


def baked_software() -> dict[str, str]:
    """Return the marker of an image built from this code: version, lock and interpreter."""
    try:
        release = version("gpu-offload")
    except PackageNotFoundError:  # a checkout on the path, which was never installed
        release = "0"
    lock = PACKAGE / "infra" / "instance" / "requirements.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else ""
    return {"version": release, "lock": digest, "python": sys.executable}
