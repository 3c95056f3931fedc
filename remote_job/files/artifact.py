"""Files that a document names with size and sha256."""

from pathlib import Path

from gpu_offload.infra.store.files import sha256_of
from gpu_offload.remote_job.result import Artifact


def describe(path: Path) -> Artifact:
    """Return a file's name, size and sha256."""
    return Artifact(name=path.name, size=path.stat().st_size, sha256=sha256_of(path))


def fault(folder: Path, artifact: Artifact) -> str | None:
    """Return what is wrong with a file that a document in the same folder names; None if nothing is."""
    if Path(artifact.name).name != artifact.name:
        return f"{artifact.name!r} is not a plain file name"
    path = folder / artifact.name
    if path.is_symlink() or not path.is_file():
        return f"{path} is missing"
    if (size := path.stat().st_size) != artifact.size:
        return f"{path} has {size} bytes, not {artifact.size}"
    if sha256_of(path) != artifact.sha256:
        return f"{path} has another sha256 than its document says"
    return None
