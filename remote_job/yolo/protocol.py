"""The attributes of a trainer that its collaborators use; Ultralytics has no types."""

from pathlib import Path
from typing import Any, Protocol

from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.speed.capacity import Capacity
from gpu_offload.remote_job.speed.plan import SpeedPlan


class Trainer(Protocol):
    """An Ultralytics trainer with the attributes that ours adds."""

    bench: Bench
    speed: SpeedPlan
    kept_bytes: int
    clock: Any
    capacity: Capacity
    model: Any
    ema: Any
    optimizer: Any
    scaler: Any
    stopper: Any
    train_loader: Any
    test_loader: Any
    validator: Any
    args: Any
    csv: Path
    device: Any
    lr: Any
    scheduler: Any
    stop: Any
    nan_recovery_attempts: int
    best_state: dict[str, Any] | None
    epochs: int
    epoch: int
    start_epoch: int
    batch_size: int
    world_size: int
    fitness: Any
    best_fitness: Any
    metrics: Any
    loss: Any
    loss_items: Any
    loss_names: Any
    tloss: Any
    done: bool
    history: list[dict[str, Any]]
    last_optimizer_step: int
    random_before_validation: dict[str, Any] | None

    def epoch_seconds(self) -> float:
        """Return the seconds that the epoch in progress has taken."""
        ...

    def compute_in(self, threads: int) -> None:
        """Compute in so many threads from now on."""
        ...

    def place_order(self) -> None:
        """Let the sampler begin at the epoch and batch in progress."""
        ...

    def _model_train(self) -> None:
        """Switch the model to training mode."""
        ...
