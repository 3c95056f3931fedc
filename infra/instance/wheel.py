"""Packs the code that this process runs as a wheel, which an instance then installs."""

import base64
import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGES = ("client", "errors", "dataset", "infra", "remote_job")
"""What the training module imports; the orchestrator stays on the launching machine."""
EVERYTHING = (*PACKAGES, "orchestrator")
"""What the action runs; its script reads this name."""
METADATA = "Metadata-Version: 2.1\nName: gpu-offload\nVersion: {release}\n"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can store, so that equal code gives equal bytes."""


@dataclass(frozen=True)
class Wheel:
    """A wheel in memory."""

    name: str
    """The file's name; installers read name and version from it."""
    body: bytes

    @cached_property
    def sha256(self) -> str:
        """Its digest in hexadecimal."""
        return hashlib.sha256(self.body).hexdigest()


def pack_wheel(release: str, root: Path | None = None, packages: Sequence[str] = PACKAGES) -> Wheel:
    """Pack the packages from their import location, however they were installed; by default what an instance needs.

    Format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    root = root or Path(__file__).parents[2]
    info = f"gpu_offload-{release}.dist-info"
    # Sorted, because a folder lists its files in any order, and equal code has to give equal bytes.
    files = {
        f"gpu_offload/{path.relative_to(root).as_posix()}": path.read_bytes()
        for package in packages
        for path in sorted((root / package).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    files[f"{info}/METADATA"] = METADATA.format(release=release).encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: gpu-offload\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    lines = [f"{name},sha256={_digest(body)},{len(body)}" for name, body in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, body in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16  # Unix permissions are the upper 16 bits
            archive.writestr(entry, body)
    return Wheel(f"gpu_offload-{release}-py3-none-any.whl", memory.getvalue())


def _digest(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
