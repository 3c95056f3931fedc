"""Downloads what earlier attempts of a run left in the store."""

from collections.abc import Iterator
from operator import attrgetter

from pydantic import ValidationError

from gpu_offload.infra.store.errors import CorruptObjectError, StoreError
from gpu_offload.remote_job.files.checkpoint import CheckpointMismatchError, Checkpoints
from gpu_offload.remote_job.mirror.target import RunFolder, SupersededError
from gpu_offload.remote_job.result import CheckpointManifest, TrainingResult
from gpu_offload.remote_job.wire import faults_text


def fetch_result(target: RunFolder) -> bool:
    """Download this training's result if the store has it; return whether it does.

    Raises:
        CheckpointMismatchError: The run's result belongs to another training.
        StoreError: The store failed, or a file is damaged.
    """
    key = f"{target.root}/result/result.json"
    if target.store.stat(key) is None:
        return False
    body, _ = target.store.read(key)
    try:
        result = TrainingResult.model_validate_json(body)
    except ValidationError as error:
        raise CorruptObjectError(
            f"{key}: is no result that this version reads ({faults_text(error)})"
        ) from error
    if result.training_key != target.spec.training_key:
        raise CheckpointMismatchError(
            f"{key}: the run's result is another training's ({result.training_key})"
        )
    folder = target.output / "result"
    for artifact in result.artifacts:
        target.download(f"{target.root}/result", artifact, folder)
    (folder / "result.json").write_bytes(body)
    return True


def fetch_checkpoint(target: RunFolder, checkpoints: Checkpoints) -> CheckpointManifest | None:
    """Download the store's newest whole checkpoint if it is ahead of the local one; return its manifest.

    Raises:
        SupersededError: A later attempt wrote it.
        CheckpointMismatchError: It belongs to another training.
    """
    local = checkpoints.load()
    prefix = f"{target.root}/checkpoint"
    for manifest in sorted(_manifests(target), key=attrgetter("position"), reverse=True):
        if manifest.attempt > target.spec.attempt:
            raise SupersededError(target.later(manifest.attempt))
        if manifest.training_key != target.spec.training_key:
            raise CheckpointMismatchError(
                f"{prefix}: the run's checkpoint is another training's ({manifest.training_key})"
            )
        if local is not None and manifest.position <= local.manifest.position:
            return None
        try:
            # The manifest is adopted last: a process killed in between leaves files that nothing names.
            for artifact in manifest.artifacts:
                target.download(prefix, artifact, checkpoints.folder)
        except (StoreError, OSError) as error:
            target.warn(
                f"checkpoint after epoch {manifest.epochs_completed} in the store was skipped: {error}"
            )
            continue
        checkpoints.adopt(manifest)
        return manifest
    return None


def _manifests(target: RunFolder) -> Iterator[CheckpointManifest]:
    for info in target.store.list(f"{target.root}/checkpoint/"):
        if not info.key.endswith(".json"):
            continue
        body, _ = target.store.read(info.key)
        try:
            yield CheckpointManifest.model_validate_json(body)
        except ValidationError:
            target.warn(f"{info.key}: is not a checkpoint manifest, skipped")
