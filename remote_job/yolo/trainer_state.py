"""The snapshot of a trainer: what its state consists of, and how another trainer takes it over."""

from typing import Any

import torch
import ultralytics
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import ModelEMA, unwrap_model

from gpu_offload.remote_job.yolo import tensors as states
from gpu_offload.remote_job.yolo.protocol import Trainer


def capture(trainer: Trainer, epochs_completed: int, batches_completed: int) -> dict[str, Any]:
    """Return everything from which the training goes on to the same end, as `yolo.tensors` can store it.

    The trainer is between two batches, or at the end of an epoch.
    """
    model = unwrap_model(trainer.model)
    return {
        "format": states.FORMAT,
        "training_key": trainer.bench.spec.training_key,
        "versions": {"ultralytics": ultralytics.__version__, "torch": str(torch.__version__)},
        "epochs_completed": epochs_completed,
        "batches_completed": batches_completed,
        "batches": len(trainer.train_loader),
        "done": trainer.done and not batches_completed,
        "batch_size": trainer.batch_size,
        "model": model.state_dict(),
        "ema": trainer.ema.ema.state_dict(),
        "ema_updates": trainer.ema.updates,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "gradients": states.pending_gradients(model),
        "last_optimizer_step": trainer.last_optimizer_step,
        "best_fitness": trainer.best_fitness,
        "fitness": trainer.fitness,
        "stopper": {
            "best_fitness": trainer.stopper.best_fitness,
            "best_epoch": trainer.stopper.best_epoch,
            "possible_stop": trainer.stopper.possible_stop,
        },
        "loss_names": list(trainer.loss_names),
        "tloss": trainer.tloss,
        "loss_items": trainer.loss_items,
        "loss": trainer.loss,
        "metrics": dict(trainer.metrics),
        "csv": trainer.csv.read_text(encoding="utf-8") if trainer.csv.exists() else "",
        "history": trainer.history[:epochs_completed],
        "epoch_seconds": trainer.epoch_seconds() if batches_completed else 0.0,
        "speed": {name: switch.on for name, switch in trainer.speed.switches.items()},
        "random": (batches_completed and trainer.random_before_validation) or states.random_state(),
        "buffer": states.image_buffer(trainer.train_loader.dataset),
    }


def check_position(restored: dict[str, Any], position: tuple[int, int]) -> None:
    """Refuse a state that is at another position than its manifest: only epochs that are really done count.

    Raises:
        UnreadableStateError: The state, its table of results and the manifest do not agree.
    """
    found = (restored["epochs_completed"], restored["batches_completed"])
    rows = max(len(restored["csv"].splitlines()) - 1, 0)
    if found != position or rows != found[0] or len(restored["history"]) != found[0]:
        raise states.UnreadableStateError(
            f"the checkpoint holds {found[0]} epochs and {rows} rows of results, its manifest says {position[0]}"
        )


def load_weights(trainer: Trainer, restored: dict[str, Any]) -> None:
    """Load model, average, optimizer and scaler."""
    unwrap_model(trainer.model).load_state_dict(restored["model"])
    # A fresh average: after a validation its tensors are inference tensors, which cannot be written.
    trainer.ema = ModelEMA(trainer.model)
    trainer.ema.ema.load_state_dict(restored["ema"])
    trainer.ema.updates = restored["ema_updates"]
    for saved, group in zip(
        restored["optimizer"]["param_groups"], trainer.optimizer.param_groups, strict=True
    ):
        # This machine's device chooses the kernel.
        saved["fused"], saved["foreach"] = group.get("fused"), group.get("foreach")
    trainer.optimizer.load_state_dict(restored["optimizer"])
    if restored["scaler"]:
        trainer.scaler.load_state_dict(restored["scaler"])
    trainer.best_fitness = restored["best_fitness"]
    trainer.stopper.__dict__.update(restored["stopper"])


def load_course(trainer: Trainer, restored: dict[str, Any]) -> None:
    """Load how far the training is and what it measured on the way."""
    trainer.fitness = restored["fitness"]
    trainer.loss_names = tuple(restored["loss_names"])
    if RANK <= 0:
        trainer.metrics.update(restored["metrics"])
        trainer.csv.write_text(restored["csv"], encoding="utf-8")
    trainer.history = list(restored["history"])
    trainer.start_epoch = restored["epochs_completed"]
    trainer.done = restored["done"]
    trainer.last_optimizer_step = restored["last_optimizer_step"]
    model = unwrap_model(trainer.model)
    model.criterion = model.init_criterion()
    if hasattr(model.criterion, "update"):
        # Losses whose weights change with the epoch count the epochs themselves.
        for _ in range(trainer.start_epoch):
            model.criterion.update()
