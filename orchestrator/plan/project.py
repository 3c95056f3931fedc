"""The project's own code and model definition, packed for the process that trains."""

import difflib
import errno
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Collection, Mapping
from pathlib import Path

from gpu_offload.errors import OffloadError, UsageError
from gpu_offload.orchestrator.plan.candidate import Project


class PlanningError(OffloadError):
    """The inputs of a plan cannot be used; the text says what to do."""


class UnknownNameError(PlanningError, UsageError):
    """A setting names a model, a module or a file that is not there: a fault of the configuration, as others are."""


def suggestion(name: str, known: Collection[str]) -> str:
    """Return the known names that an unknown one may mean, as the end of a message; empty where none is close."""
    close = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.7)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def check_inside(root: Path, path: Path) -> None:
    """Refuse a file that leads out of the repository: it would be hashed and shipped. Raises PlanningError."""
    around = [folder for folder in (root, *root.absolute().parents) if (folder / ".git").exists()]
    # The outermost checkout: a submodule may use files of the repository around it.
    top = (around[-1] if around else root).resolve()
    if not path.resolve().is_relative_to(top):
        raise PlanningError(
            f"{path} leads out of {top}, to {path.resolve()}: copy the file into the repository"
        )


def read_source(path: Path, limit: int) -> bytes:
    """Return the content of a file of the project. Raises PlanningError where it is no file or too large, OSError."""
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    # Reading a pipe or a device could wait, or never end.
    if not path.is_file():
        raise PlanningError(f"{path} is no regular file; put the real file there")
    with path.open("rb") as file:
        body = file.read(limit + 1)
    if len(body) > limit:
        raise PlanningError(
            f"{path} is larger than {limit >> 10} KiB; shorten it, or put data into a file of its own"
        )
    return body


def own_model(path: Path) -> str:
    """Return where a model definition of the user's is in the packed project; its name means something."""
    return f"definition/{path.name}"


def pack_project(files: Mapping[str, Path | bytes]) -> bytes:
    """Return a tar of files, or of their content, by their path in it; equal files give equal bytes."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            source = files[name]
            body = source if isinstance(source, bytes) else source.read_bytes()
            # Its defaults have no time and no owner, so that equal files give equal bytes.
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(body), 0o644
            archive.addfile(entry, io.BytesIO(body))
    return memory.getvalue()


def unpack_project(body: bytes, folder: Path) -> None:
    """Unpack what `pack_project` packed into a fresh folder."""
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        # This filter refuses devices, and what leads out of the folder.
        archive.extractall(folder, filter="data")


def describe_project(body: bytes, model: str | None = None) -> Project:
    """Return what a run's journal says of its own code; `model` is the definition's path in it."""
    return Project(size=len(body), sha256=hashlib.sha256(body).hexdigest(), model=model)
