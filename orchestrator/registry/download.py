"""Downloads a published model and verifies it."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_offload.infra.store.errors import CorruptObjectError, ObjectMissingError, StoreUnreachableError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.infra.store.web import WebStore
from gpu_offload.orchestrator.registry.manifest import Manifest, RegistryError, model_key
from gpu_offload.orchestrator.registry.publish import alias_of, manifest_of, versions
from gpu_offload.remote_job.result import Artifact

if TYPE_CHECKING:
    from gpu_offload.client.model_client import Progress


def resolve(store: ObjectStore, wanted: str) -> Manifest:
    """Return the manifest of an alias or of a version, given whole or by an unambiguous beginning.

    Raises:
        RegistryError: nothing, or more than one version, is meant.
    """
    alias = alias_of(store, wanted) if _is_name(wanted) else None
    if alias is not None:
        found = manifest_of(store, alias.version)
        if found is None:
            raise RegistryError(f"the alias {wanted} points at {alias.version}, which is not published")
        return found
    matches = [e.version for e in versions(store) if e.version.startswith(wanted)]
    if len(matches) > 1:
        raise RegistryError(f"{wanted} is ambiguous: {', '.join(matches)}")
    found = manifest_of(store, matches[0] if matches else wanted) if _is_name(wanted) else None
    if found is None:
        known = ", ".join(e.version for e in versions(store)[-5:]) or "none yet; run `offload train`"
        raise RegistryError(f"no version or alias {wanted!r} in {store.url} (the newest versions: {known})")
    return found


def pull(
    store: ObjectStore, wanted: str, destination: Path, *, progress: "Progress | None" = None
) -> tuple[Manifest, Path, bool]:
    """Download a version, verified, and rename it into place.

    From a web address a download resumes where it broke off, also where an earlier command left it.

    Args:
        store: Where the version is published.
        wanted: An alias, or a version.
        destination: A file, or a folder that receives the model under its own name.
        progress: Called with the bytes that are there and the bytes of the whole, from a web address.

    Returns:
        The manifest, the file, and whether it was downloaded: False if the file already was this version, whole.

    Raises:
        RegistryError: no such version. CorruptObjectError: what came is not what was published.
    """
    manifest = resolve(store, wanted)
    target = (
        destination / manifest.model.name if destination.is_dir() or not destination.suffix else destination
    )
    if _matches(target, manifest.model):
        return manifest, target, False
    target.parent.mkdir(parents=True, exist_ok=True)
    key, model = model_key(manifest.version, manifest.model.name), manifest.model
    if isinstance(store, WebStore):
        _transfer(store, key, target, model, progress)
    else:
        store.download(key, target, size=model.size, sha256=model.sha256)
    return manifest, target, True


def _transfer(store: WebStore, key: str, target: Path, model: Artifact, progress: "Progress | None") -> None:
    """Download by the application's own client, which resumes; one command at a time for a folder."""
    from gpu_offload.client.model_client import DamagedError, TransferError, Web

    address = store.public_url(key)
    try:
        with _locked(target.parent):
            if not _matches(target, model):
                Web().download(address, target, size=model.size, sha256=model.sha256, progress=progress)
    except DamagedError as error:
        raise CorruptObjectError(str(error)) from error
    except TransferError as error:
        kind = ObjectMissingError if error.status in {404, 410} else StoreUnreachableError
        raise kind(f"{error}; run the command again to carry on") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _matches(path: Path, artifact: Artifact) -> bool:
    if not path.is_file() or path.stat().st_size != artifact.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256


def _is_name(text: str) -> bool:
    return bool(text) and all(c.isalnum() or c in "-_." for c in text) and not text.startswith(".")
