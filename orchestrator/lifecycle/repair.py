"""`offload train --repair`: replaces damaged files of a published version by the staged result of its runs."""

import tempfile
from pathlib import Path

from gpu_offload.infra.store.errors import CorruptObjectError, ObjectMissingError, StoreDeniedError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry.index import manifest_of
from gpu_offload.orchestrator.registry.manifest import RegistryError, model_key
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import run_key
from gpu_offload.remote_job.result import Artifact


def repair_version(store: ObjectStore, version: str, training_key: str, console: Console) -> None:
    """Read a published version back whole, and put back what is damaged, from the staged result of one of its runs.

    A manifest that cannot be read is removed, so that the training can be published again from its checkpoint. Raises
    RegistryError: no run has a whole copy, or the store lets this role replace nothing; StoreError.
    """
    try:
        manifest = manifest_of(store, version)
    except RegistryError as error:
        key = model_key(version, "manifest.json")
        console.warning(f"{error}. Removing it: the training is published again")
        try:
            store.delete(key)
        except StoreDeniedError as denied:
            raise RegistryError(
                f"{key} is damaged, and this role may not remove it: delete it as the store's owner, then run the "
                f"command again ({denied})"
            ) from denied
        return
    if manifest is None:
        console.note(f"version {version} is not published: there is nothing to repair")
        return
    for file in manifest.files:
        _repair_file(store, version, file, training_key, console)


def _repair_file(
    store: ObjectStore, version: str, file: Artifact, training_key: str, console: Console
) -> None:
    key = model_key(version, file.name)
    with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
        path = Path(scratch) / "file"
        try:
            store.download(key, path, size=file.size, sha256=file.sha256)
        except (CorruptObjectError, ObjectMissingError) as error:
            console.note(str(error))
        else:
            console.note(f"{key} is whole: {file.size:,} bytes, sha256 {file.sha256[:16]}")
            return
        source = _staged(store, file, training_key, path)
        if source is None:
            raise RegistryError(
                f"{key} is damaged, and no run of its training has a whole copy left: a training is needed. A version "
                f"never changes, so its owner has to delete everything below models/{version}/ first; then "
                "`offload train` trains it again, from its checkpoint where that is left"
            )
        try:
            store.upload(key, path)
        except StoreDeniedError as error:
            raise RegistryError(
                f"{key} is damaged, and a whole copy is in {source}, but the store refuses to replace a published file: "
                f"delete {key} as the store's owner, then run the command again ({error})"
            ) from error
    console.note(f"{key} is published again, from {source}")


def _staged(store: ObjectStore, file: Artifact, training_key: str, path: Path) -> str | None:
    """Download a file's very bytes from the result of one of its runs to `path`; return its key, None for none."""
    for run in reversed(Journal(store).runs_of(training_key)):
        key = run_key(run.id, f"result/{file.name}")
        try:
            store.download(key, path, size=file.size, sha256=file.sha256)
        except (CorruptObjectError, ObjectMissingError):
            continue
        return key
    return None
