"""The project's own code and model definition, packed for an instance."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from gpu_offload.errors import OffloadError
from gpu_offload.orchestrator.plan.candidate import Project


class PlanningError(OffloadError):
    """There is nothing to plan with; the text says what to do."""


def own_model(path: Path) -> str:
    """Return where a model definition of the user's is in the packed project; its name means something."""
    return f"definition/{path.name}"


def file_sha256(path: Path) -> str:
    """Return a file's digest in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def code_files(root: Path, entrypoint: str) -> list[Path]:
    """Return a user's training code: its module, or every module of its package. Raises PlanningError."""
    first = entrypoint.partition(":")[0].split(".")[0]
    package = root / first
    files = sorted(package.rglob("*.py")) if package.is_dir() else [root / f"{first}.py"]
    missing = [f for f in files if not f.is_file()]
    if missing or not files:
        raise PlanningError(f"training.entrypoint: there is no {first} in {root}")
    return files


def code_sha256(root: Path, entrypoint: str) -> str:
    """Return one digest of a user's training code."""
    digest = hashlib.sha256()
    for file in code_files(root, entrypoint):
        digest.update(f"{file.relative_to(root).as_posix()}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()


def pack_project(files: Mapping[str, Path]) -> bytes:
    """Return a tar of files by their path in it; equal files give equal bytes."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            body = files[name].read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(body), 0o644
            archive.addfile(entry, io.BytesIO(body))
    return memory.getvalue()


def describe_project(body: bytes, model: str | None = None) -> Project:
    """Return what a run's journal says of its own code; `model` is the definition's path in it."""
    return Project(size=len(body), sha256=hashlib.sha256(body).hexdigest(), model=model)
