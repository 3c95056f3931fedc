"""Continues a training from what an earlier attempt left, to the bit on a CPU.

Bit-exact resumption rests on: state dictionaries in full precision, all random generators, the dataset's image
buffer, gradients waiting for the optimizer, the iteration of the last optimizer step, and an order of images that
depends on seed and epoch alone.
"""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed
from ultralytics.data.build import InfiniteDataLoader
from ultralytics.engine import trainer as engine
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import init_seeds, unwrap_model

from gpu_offload.errors import OffloadError
from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.yolo import tensors as states
from gpu_offload.remote_job.yolo import trainer_state
from gpu_offload.remote_job.yolo.protocol import Trainer

MAX_NAN_RECOVERIES = 3


class DivergedError(OffloadError):
    """The loss became NaN again and again."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """What an earlier attempt left: the state to continue from, and the best model so far."""

    state: dict[str, Any]
    best: dict[str, Any] | None


def resumption(bench: Bench) -> Resumption | None:
    """Read the newest whole checkpoint, None where there is none.

    Raises:
        UnreadableStateError: It is whole but not one of ours.
    """
    checkpoint = bench.checkpoints.load()
    if checkpoint is None:
        return None
    state = states.load(checkpoint.last)
    trainer_state.check_position(state, checkpoint.manifest.position)
    bench.seconds_before = checkpoint.manifest.seconds
    bench.progress.update(epochs_completed=checkpoint.manifest.epochs_completed)
    return Resumption(state, states.load(checkpoint.best) if checkpoint.best else None)


class Resume:
    """Puts a restored state into a trainer, in two steps: after set-up, and right before the first batch.

    Attributes:
        state: What is restored; None for a training that starts.
        accumulate_offset: Batches between the last optimizer step and where Ultralytics' loop believes it was:
            at iteration -1, whenever the loop starts.
        first_batch: The batch that the resumed epoch begins with.
    """

    def __init__(self, state: dict[str, Any] | None) -> None:
        self.state = state
        self.accumulate_offset = 0
        self.first_batch = 0
        self._pending = False

    @property
    def is_finished(self) -> bool:
        """Whether the earlier attempt completed its last epoch and only had to finish."""
        return self.state is not None and bool(self.state["done"])

    @property
    def epochs_completed(self) -> int:
        """Epochs that the earlier attempt completed."""
        return int(self.state["epochs_completed"]) if self.state is not None else 0

    def load(self, trainer: Trainer) -> float:
        """Restore weights and progress once model, optimizer and loaders are built.

        Returns:
            Seconds that the earlier attempt spent in the epoch in progress.
        """
        if self.state is None:
            return 0.0
        trainer_state.load_weights(trainer, self.state)
        trainer_state.load_course(trainer, self.state)
        self._pending = not trainer.done
        batches = self.state["batches_completed"]
        LOGGER.info(
            f"Resuming after {trainer.start_epoch} of {trainer.epochs} epochs"
            + (f" and {batches} batches" if batches else "")
        )
        return float(self.state["epoch_seconds"])

    def arrive(self, trainer: Trainer) -> bool:
        """Restore gradients, random generators and position, once; return whether this was the time."""
        if not self._pending or self.state is None:
            return False
        self._pending = False
        states.set_gradients(unwrap_model(trainer.model), self.state["gradients"])
        states.set_image_buffer(trainer.train_loader.dataset, self.state["buffer"])
        if RANK > 0:  # the state is rank 0's; other ranks augment other images, each in its own way
            init_seeds(
                trainer.args.seed + 1 + RANK + 1000 * trainer.epoch, deterministic=trainer.args.deterministic
            )
        else:
            states.set_random_state(self.state["random"])
        if self.state["batches"] == len(trainer.train_loader):
            self.accumulate_offset = trainer.last_optimizer_step + 1
            self.first_batch = self.state["batches_completed"]
        return True

    def take_first_batch(self) -> int:
        """Return the batch that the epoch begins with, once; 0 from then on."""
        first, self.first_batch = self.first_batch, 0
        return first

    def restore_running_loss(self, trainer: Trainer, *, batches_done: int) -> None:
        """Continue the epoch's mean loss; Ultralytics restarts it with each loop."""
        if self.state is not None and trainer.tloss is None and batches_done:
            trainer.tloss = self._on_device(trainer, "tloss")

    def restore_losses(self, trainer: Trainer) -> None:
        """Restore the epoch's losses where the training was resumed after its last batch."""
        if trainer.tloss is not None or self.state is None:
            return
        trainer.tloss = self._on_device(trainer, "tloss")
        trainer.loss_items = self._on_device(trainer, "loss_items")
        trainer.loss = torch.as_tensor(self.state["loss"], device=trainer.device)
        groups = self.state["optimizer"]["param_groups"]
        trainer.lr = {f"lr/pg{i}": group["lr"] for i, group in enumerate(groups)}

    def _on_device(self, trainer: Trainer, name: str) -> dict[str, Any]:
        assert self.state is not None  # noqa: S101 - the callers checked
        return {key: torch.as_tensor(value, device=trainer.device) for key, value in self.state[name].items()}


def recover_from_nan(trainer: Trainer, epoch: int) -> bool:
    """Return to the last checkpoint when the loss is NaN; other images come next, so it may not return.

    Raises:
        DivergedError: It returned more than MAX_NAN_RECOVERIES times.
    """
    finite_loss = trainer.loss is None or bool(trainer.loss.isfinite())
    sound = [finite_loss and (trainer.fitness is None or trainer.fitness - trainer.fitness == 0)]
    if trainer.world_size > 1:
        distributed.broadcast_object_list(sound, 0)  # rank 0 alone knows the fitness
    if sound[0]:
        return False
    checkpoint = trainer.bench.checkpoints.load()
    if checkpoint is None:
        LOGGER.warning("The loss is NaN in the first epoch; there is no checkpoint to go back to.")
        return False
    trainer.nan_recovery_attempts += 1
    if trainer.nan_recovery_attempts > MAX_NAN_RECOVERIES:
        raise DivergedError(
            f"the loss was NaN in epoch {epoch + 1} {trainer.nan_recovery_attempts} times, each time from the "
            "same checkpoint; lower the learning rate (lr0) or look for broken labels"
        )
    LOGGER.warning(f"The loss is NaN; going back to the checkpoint ({trainer.nan_recovery_attempts}).")
    trainer._model_train()  # noqa: SLF001 - Ultralytics' name
    restored = states.load(checkpoint.last)
    trainer_state.load_weights(trainer, restored)
    trainer.best_fitness = restored["best_fitness"]
    trainer.stopper.__dict__.update(restored["stopper"])
    trainer.scheduler.last_epoch = epoch - 1
    return True


@contextlib.contextmanager
def positioned_bars(resume: Resume) -> Iterator[None]:
    """Let the loop begin at the batch that a resumed epoch begins with: rank 0 by its progress bar, others without one."""
    plain, loops = engine.TQDM, vars(engine)

    def bar(iterable: Any, *args: Any, **kwargs: Any) -> Any:
        first = resume.take_first_batch()
        if not first:
            return plain(iterable, *args, **kwargs)
        rest = itertools.islice(iterable, kwargs["total"] - first)
        return plain(((first + i, batch) for i, batch in rest), *args, initial=first, **kwargs)

    def counted(iterable: Any, start: int = 0) -> Any:
        if not isinstance(iterable, InfiniteDataLoader):
            return enumerate(iterable, start)
        first = resume.take_first_batch()
        return enumerate(itertools.islice(iterable, len(iterable) - first), first)

    engine.TQDM = bar
    if RANK > 0:
        # The loop's `enumerate` is looked up in its module before the built-ins.
        loops["enumerate"] = counted
    try:
        yield
    finally:
        engine.TQDM = plain
        loops.pop("enumerate", None)
