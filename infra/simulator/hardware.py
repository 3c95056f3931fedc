"""What a simulated machine is made of, and the software that its image has."""

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
    """What a host is made of: everything that the launch decides."""

    instance_id: str
    instance_type: str
    address: str
    user_data: bytes
    folder: Path
    endpoint: str
    """URL of the cloud's API, as seen from the instance."""
    ssh_port: int
    baked: Mapping[str, str]
    """What the image's marker `/opt/gpu-offload/baked` says; empty for no marker."""
    environment: Mapping[str, str]
    """More variables for everything that runs on it."""
    grace: float


def baked_software() -> dict[str, str]:
    """What an image made from this very code says of itself: version, lock and interpreter."""
    try:
        release = version("gpu-offload")
    except PackageNotFoundError:
        release = "0"
    lock = PACKAGE / "infra" / "instance" / "requirements.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else ""
    return {"version": release, "lock": digest, "python": sys.executable}
