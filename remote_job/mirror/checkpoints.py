"""Uploads the newest checkpoint and keeps the last two in the store."""

from pathlib import Path

from pydantic import ValidationError

from gpu_offload.remote_job.files import regular_file
from gpu_offload.remote_job.files.checkpoint import MANIFEST
from gpu_offload.remote_job.mirror.target import DOCUMENT_BYTES, RunFolder
from gpu_offload.remote_job.result import CheckpointManifest


class CheckpointUploads:
    """Uploads checkpoints to `target`, and knows which one the store has."""

    def __init__(self, target: RunFolder, known: CheckpointManifest | None) -> None:
        self._target = target
        self._uploaded = [known] if known else []

    def has(self, manifest: CheckpointManifest) -> None:
        """Note that the store has this checkpoint."""
        self._uploaded = [manifest]

    def pending(self) -> CheckpointManifest | None:
        """Return the newest local checkpoint if the store does not have it."""
        target = self._target
        try:
            body = regular_file.read(target.output, f"checkpoint/{MANIFEST}", limit=DOCUMENT_BYTES)
            manifest = CheckpointManifest.model_validate_json(body)
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            target.warn_once(f"checkpoint/{MANIFEST} is not one: {error}")
            return None
        # Compared as a whole: an epoch that is repeated after a damaged checkpoint has the same number and another file.
        if self._uploaded and self._uploaded[-1] == manifest:
            return None
        if not target.owns(manifest) or manifest.attempt > target.spec.attempt:
            target.warn_once(
                f"checkpoint/{MANIFEST} names another training, a later attempt or a file elsewhere: not sent"
            )
            return None
        return manifest

    def send(self, manifest: CheckpointManifest) -> None:
        """Upload files first, manifests last; then delete what is older than the previous checkpoint.

        Raises:
            StoreError: The store did not take it.
            FileNotFoundError: A newer checkpoint replaced it meanwhile.
        """
        target, prefix = self._target, f"{self._target.root}/checkpoint"
        known = {artifact.name for other in self._uploaded for artifact in other.artifacts}
        for artifact in manifest.artifacts:
            if artifact.name not in known:
                target.upload(prefix, "checkpoint", artifact)
        body = manifest.model_dump_json(indent=1).encode()
        if not target.put_manifest(f"{prefix}/{MANIFEST}", body):
            return
        # The copy under the checkpoint's own name is what a later attempt falls back to.
        target.store.put(f"{prefix}/{Path(manifest.last.name).stem}.json", body)
        self._uploaded = [*self._uploaded[-1:], manifest]
        kept = {MANIFEST}
        for other in self._uploaded:
            kept |= {
                f"{Path(other.last.name).stem}.json",
                *(artifact.name for artifact in other.artifacts),
            }
        for info in list(target.store.list(f"{prefix}/")):
            if info.key.rsplit("/", 1)[-1] not in kept:
                target.store.delete(info.key)
