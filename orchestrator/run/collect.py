"""Verifies a staged result."""

from pathlib import Path

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.registry.manifest import RegistryError
from gpu_offload.orchestrator.run.record import RunRecord, run_key
from gpu_offload.remote_job.result import TrainingResult


def verify_staged(store: ObjectStore, run: RunRecord, result: TrainingResult, scratch: Path) -> Path:
    """Read a staged model back whole and return where it lies in `scratch`.

    Raises:
        RegistryError: the result is not of this training, or did not complete its epochs.
        CorruptObjectError: size or sha256 differ.
        ObjectMissingError: the model is not there.
    """
    faults = []
    if result.training_key != run.training_key:
        faults.append(f"it is of the training {result.training_key[:16]}, not {run.training_key[:16]}")
    if result.epochs_completed < run.spec.epochs and not result.stopped_early:
        faults.append(f"it completed {result.epochs_completed} of {run.spec.epochs} epochs")
    if faults:
        raise RegistryError(f"the staged result of run {run.id} does not count: " + "; ".join(faults))
    target = scratch / "model.pt"
    store.download(
        run_key(run.id, f"result/{result.model.name}"),
        target,
        size=result.model.size,
        sha256=result.model.sha256,
    )
    return target
