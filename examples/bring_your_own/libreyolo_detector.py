"""LibreYOLO (MIT) in Ultralytics' place: a YOLOv9 from random weights, resumed after the last complete epoch.

[training]
entrypoint = "libreyolo_detector:train"
requirements = "requirements-libreyolo.txt"    # libreyolo
model = "t.yaml"                               # YOLOv9's size: t, s, m or c
license = "MIT"
"""

from pathlib import Path

from libreyolo import LibreYOLO9

from gpu_offload.remote_job.entrypoint import Trained, TrainingContext


class Interrupted(Exception):  # noqa: N818 - no error
    """Leaves LibreYOLO's loop after an epoch."""


class Reporter:
    """LibreYOLO's callbacks, passed on: progress, metrics, checkpoint."""

    def __init__(self, context: TrainingContext) -> None:
        """Report to this context."""
        self.context = context

    def on_train_epoch_end(self, event: object) -> None:
        """Report an epoch and keep its checkpoint; stop when told to."""
        metrics = {name: float(value) for name, value in event.val_metrics.items()}
        self.context.epoch(event.epoch, metrics=metrics, losses={"loss": event.train_loss})
        last = Path(event.save_dir) / "weights" / "last.pt"
        if last.is_file():
            self.context.checkpoint(last, epochs_completed=event.epoch)
        if self.context.interrupted():
            raise Interrupted


def train(context: TrainingContext) -> Trained | None:
    """Train, and return the best weights with the metrics that LibreYOLO measured."""
    spec, checkpoint = context.spec, context.resume()
    device = "" if spec.device == "auto" else spec.device
    detector = LibreYOLO9(str(checkpoint) if checkpoint else None, size=spec.model.removesuffix(".yaml"))
    try:
        results = detector.train(
            str(context.data), epochs=spec.epochs, batch=spec.batch, imgsz=spec.image_size, seed=spec.seed,
            device=device, workers=0, project=str(context.output), name="run", exist_ok=True,
            resume=checkpoint or False, callbacks=Reporter(context), **spec.hyperparameters,
        )  # fmt: skip
    except Interrupted:
        return None
    metrics = {n: v for n, v in results.items() if isinstance(v, float)}
    weights = context.output / "run" / "weights"
    best = weights / "best.pt"
    return Trained(best if best.is_file() else weights / "last.pt", metrics)
