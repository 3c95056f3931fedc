"""Records how long a finished run took, and how well it was estimated."""

from collections.abc import Sequence

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.estimate.history import Timing, Work, family_of, timing_key
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.pace import workload_of
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.refusals import place_of
from gpu_offload.orchestrator.run.revision import first_revision
from gpu_offload.remote_job.result import ProgressEvent, Timings, TrainingResult

ENVIRONMENT = ("ultralytics", "torch", "python", "cpu", "cores", "threads", "gpu")
"""What of a result's environment is kept; nothing of it names a host."""


def record_timing(
    store: ObjectStore,
    run: RunRecord,
    result: TrainingResult,
    attempts: Sequence[ObservedAttempt],
    events: Sequence[ProgressEvent] = (),
    *,
    now: float = 0.0,
) -> None:
    """Keep a run's times, if it trained in one go and was predicted; it ended `now`. Raises StoreError."""
    trained = next((a for a in attempts if a.record.number == result.attempt), None)
    own = run.spec.entrypoint is not None
    whole = len(result.timings.epoch_train) == result.epochs and not result.stopped_early
    # An early stop is by chance, but in code of the user's own it is likely the way it always ends.
    if trained is None or not (whole or (own and result.stopped_early)) or run.resumes is not None:
        return
    offer = trained.record.offer
    predicted = next((c.predicted for c in run.candidates if place_of(c.offer) == place_of(offer)), None)
    actual = result.timings.total
    alone = not any(a.host for a in attempts if a is not trained)
    if offer.where == "ec2":
        actual = trained.end.at - trained.host.launched_at if trained.host and trained.end and alone else 0.0
    elif own and len(attempts) == 1:
        # Its process starts before anything of it is timed.
        actual = max(actual, now - run.created_at - result.timings.installation)
    if predicted is None or actual <= 0:
        return
    timing = Timing(
        run=run.id,
        machine=predicted.machine,
        ultralytics=predicted.ultralytics,
        dataset=run.dataset_name,
        family=run.spec.entrypoint or family_of(run.spec.model),
        predicted=predicted.seconds,
        actual=actual,
        at=now,
        stages=stages(result.timings),
        installed={} if offer.where != "cpu" else _installed(run, result.timings),
        work=_work(run),
        environment={name: result.environment[name] for name in ENVIRONMENT if name in result.environment},
    )
    if whole and len(attempts) == 1 and now > run.created_at:
        timing = timing.model_copy(update=_scored(run, events, now))
    store.put(timing_key(run.created_at, run.id), timing.model_dump_json(indent=1).encode())


def stages(timings: Timings) -> dict[str, float]:
    """Return the seconds of a training's process by stage; their sum is the whole of it."""
    parts = {
        "import": timings.import_,
        "build": timings.build,
        "scan": timings.scan,
        "training": sum(timings.epoch_train),
        "validation": sum(timings.epoch_validation),
        "saving": sum(timings.epoch_save),
        "final validation": timings.final_validation,
    }
    return {
        **{name: round(seconds, 3) for name, seconds in parts.items()},
        "rest": round(max(0.0, timings.total - sum(parts.values())), 3),
    }


def _installed(run: RunRecord, timings: Timings) -> dict[str, float]:
    parts = {"job": run.installed_s, "requirements": timings.installation}
    return {part: round(seconds, 3) for part, seconds in parts.items() if seconds}


def _work(run: RunRecord) -> Work | None:
    work = workload_of(run)
    if work is None:
        return None
    return Work(
        task=str(work.task),
        model=work.model if "/" not in work.model else "own",
        image_size=work.image_size,
        batch=work.batch,
        epochs=work.epochs,
        train_images=work.train_images,
        val_images=work.val_images,
    )


def _scored(run: RunRecord, events: Sequence[ProgressEvent], now: float) -> dict[str, object]:
    update: dict[str, object] = {"planned": run.estimate, "whole": round(now - run.began_at, 3)}
    if (found := first_revision(run, events)) is not None:
        first, event = found
        update |= {
            "forecast": first.interval,
            "left": (round(first.point - first.before, 3), round(max(1e-3, now - event.time), 3)),
            "share": event.pace.share if event.pace else 1.0,
        }
    return update
