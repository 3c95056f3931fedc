"""Downloads a published model and verifies it."""

import hashlib
from pathlib import Path

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.registry.manifest import Manifest, RegistryError, model_key
from gpu_offload.orchestrator.registry.publish import alias_of, manifest_of, versions
from gpu_offload.remote_job.result import Artifact


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


def pull(store: ObjectStore, wanted: str, destination: Path) -> tuple[Manifest, Path, bool]:
    """Download a version, verified, and rename it into place.

    `destination` is a file, or a folder that receives `model.pt`. Returns the manifest, the file and whether
    it was downloaded (False: the file there already is this version, whole).

    Raises:
        RegistryError: no such version. CorruptObjectError: what came is not what was published.
    """
    manifest = resolve(store, wanted)
    target = destination / "model.pt" if destination.is_dir() or not destination.suffix else destination
    if _matches(target, manifest.model):
        return manifest, target, False
    target.parent.mkdir(parents=True, exist_ok=True)
    store.download(
        model_key(manifest.version), target, size=manifest.model.size, sha256=manifest.model.sha256
    )
    return manifest, target, True


def _matches(path: Path, artifact: Artifact) -> bool:
    if not path.is_file() or path.stat().st_size != artifact.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256


def _is_name(text: str) -> bool:
    return bool(text) and all(c.isalnum() or c in "-_." for c in text) and not text.startswith(".")
