"""What came out of a trainer: metrics by Ultralytics' names and by plain ones, per class, and over the epochs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_offload.remote_job import machine
from gpu_offload.remote_job.progress import finite
from gpu_offload.remote_job.result import Artifact, Timings, TrainingResult
from gpu_offload.remote_job.yolo import diagnosis

if TYPE_CHECKING:
    from gpu_offload.remote_job.yolo.trainer import SteadyTrainer

ALIASES = {
    "metrics/precision(B)": "precision",
    "metrics/recall(B)": "recall",
    "metrics/mAP50(B)": "map50",
    "metrics/mAP50-95(B)": "map50_95",
    "metrics/mAP50(M)": "mask_map50",
    "metrics/mAP50-95(M)": "mask_map50_95",
    "metrics/mAP50(P)": "pose_map50",
    "metrics/mAP50-95(P)": "pose_map50_95",
    "metrics/accuracy_top1": "accuracy",
    "metrics/accuracy_top5": "accuracy_top5",
}
PARTS = {"box": "", "seg": "mask_", "pose": "pose_"}
EXTRAS = {".png", ".jpg", ".csv", ".yaml"}


def metrics(trainer: "SteadyTrainer") -> dict[str, float]:
    """Return the final validation's metrics, each also under its plain name where it has one."""
    values = finite(trainer.metrics)
    return values | {plain: values[name] for name, plain in ALIASES.items() if name in values}


def per_class(trainer: "SteadyTrainer") -> dict[str, dict[str, float]]:
    """Return metrics by class name, for the classes that the validation split shows."""
    measured = trainer.validator.metrics
    names = trainer.data["names"]
    result: dict[str, dict[str, float]] = {}
    for part, prefix in PARTS.items():
        values = getattr(measured, part, None)
        if values is None:
            continue
        for position, index in enumerate(values.ap_class_index):
            precision, recall, map50, map50_95 = values.class_result(position)
            result.setdefault(str(names[int(index)]), {}).update(
                finite(
                    {
                        f"{prefix}precision": precision,
                        f"{prefix}recall": recall,
                        f"{prefix}map50": map50,
                        f"{prefix}map50_95": map50_95,
                    }
                )
            )
    matrix = getattr(trainer.validator, "confusion_matrix", None)
    if not result and matrix is not None:  # a classifier
        # Rows are predictions, columns are truths.
        table = matrix.matrix
        for index, name in names.items():
            if total := table[:, index].sum():
                result[str(name)] = finite({"accuracy": table[index, index] / total, "images": total})
    return result


def curves(history: list[dict[str, Any]]) -> dict[str, tuple[float, ...]]:
    """Return losses and metrics by name, one value an epoch; only those that every epoch has."""
    rows = [
        {
            **{f"train/{k}": v for k, v in entry.get("losses", {}).items()},
            **entry.get("metrics", {}),
            **entry.get("lr", {}),
        }
        for entry in history
    ]
    names = [name for name in (rows[0] if rows else {}) if all(name in row for row in rows)]
    return {name: tuple(row[name] for row in rows) for name in names}


def timings(trainer: "SteadyTrainer", *, imported: float, total: float) -> Timings:
    """Return wall seconds by stage; the epochs' are those of all attempts."""
    return Timings.model_validate(
        {
            "import": imported,
            "build": trainer.clock.build,
            "scan": trainer.clock.scan,
            "epoch_train": tuple(entry["train"] for entry in trainer.history),
            "epoch_validation": tuple(entry["validation"] for entry in trainer.history),
            "epoch_save": tuple(entry["save"] for entry in trainer.history),
            "final_validation": trainer.clock.final_validation,
            "total": total,
        }
    )


def extras(folder: Path) -> list[Path]:
    """Return Ultralytics' plots and tables worth keeping."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in EXTRAS)


def result(trainer: "SteadyTrainer", model: Artifact, *, imported: float, total: float) -> TrainingResult:
    """Sum a training up after its last epoch and its final validation.

    `imported` are the seconds that importing torch and Ultralytics took, `total` all wall seconds, over all attempts.
    """
    spec = trainer.bench.spec
    completed = len(trainer.history)
    return TrainingResult(
        run=spec.run,
        attempt=spec.attempt,
        training_key=spec.training_key,
        fingerprint=spec.dataset.fingerprint,
        task=spec.task,
        epochs=spec.epochs,
        epochs_completed=completed,
        stopped_early=completed < spec.epochs,
        model=model,
        metrics=metrics(trainer),
        per_class=per_class(trainer),
        curves=curves(trainer.history),
        causes=diagnosis.causes(trainer),
        timings=timings(trainer, imported=imported, total=total),
        environment=machine.facts(),
        speed=trainer.speed.document(),
    )
