"""Records how long a finished run took."""

from collections.abc import Sequence

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.estimate.history import Timing, family_of
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.remote_job.result import TrainingResult


def record_timing(
    store: ObjectStore, run: RunRecord, result: TrainingResult, attempts: Sequence[ObservedAttempt]
) -> None:
    """Keep what a run took, if it was trained in one go from its first epoch and its time was predicted.

    Raises:
        StoreError: It could not be kept.
    """
    trained = next((a for a in attempts if a.record.number == result.attempt), None)
    whole = len(result.timings.epoch_train) == result.epochs and not result.stopped_early
    if trained is None or not whole or run.resumes is not None:
        return
    offer = trained.record.offer
    predicted = next((c.predicted for c in run.candidates if c.offer == offer), None)
    actual = result.timings.total
    if offer.where == "ec2":
        alone = not any(a.host for a in attempts if a is not trained)
        actual = trained.end.at - trained.host.launched_at if trained.host and trained.end and alone else 0.0
    if predicted is None or actual <= 0:
        return
    timing = Timing(
        run=run.id,
        machine=predicted.machine,
        ultralytics=predicted.ultralytics,
        dataset=run.dataset_name,
        family=family_of(run.spec.model),
        predicted=predicted.seconds,
        actual=actual,
    )
    store.put(f"timings/{run.id}.json", timing.model_dump_json(indent=1).encode())
