"""The work of a run's training, for its estimate."""

from gpu_offload.orchestrator.estimate.workload import Workload, workload
from gpu_offload.orchestrator.run.record import RunRecord


def workload_of(run: RunRecord) -> Workload | None:
    """Return the work of a run's training, None for the record of an older version, which does not count images."""
    if not run.images or not run.images.get("train"):
        return None
    spec = run.spec
    return workload(
        task=spec.task,
        model=spec.model,
        image_size=spec.image_size,
        batch=spec.batch,
        epochs=spec.epochs,
        train_images=run.images["train"],
        val_images=run.images.get("val", 0),
        hyperparameters=spec.hyperparameters,
        dataset_bytes=run.dataset_bytes,
        exports=len(spec.exports),
    )
