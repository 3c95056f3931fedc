"""A short trial: which memory layout and which precision are faster for this model on this machine."""

import contextlib
import copy
import time
from dataclasses import dataclass
from typing import Any

import torch

from remote_job import mixed_precision

ROUNDS = 2
IMAGES = 4
"""Pictures in a trial's batch: enough to fill the cores, a quarter of a usual step's time and memory."""

MARGIN = 1.05
"""How much slower channels last must be to be given up: a trial on a busy machine is not exact."""

GAIN = 1.05
"""How much faster bfloat16 must be to be worth its rounding."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Seconds of one forward and backward pass, the best of a few; None is what was not tried."""

    contiguous: float
    channels_last: float
    bfloat16: float | None = None
    """Channels last, in mixed precision."""

    @property
    def keeps_channels_last(self) -> bool:
        """Whether channels last, in the precision that is kept, was not clearly slower."""
        return self.keeps_bfloat16 or self.channels_last <= self.contiguous * MARGIN

    @property
    def keeps_bfloat16(self) -> bool:
        """Whether mixed precision was clearly faster than either layout without it."""
        return self.bfloat16 is not None and self.bfloat16 * GAIN <= min(self.channels_last, self.contiguous)

    def __str__(self) -> str:
        mixed = "" if self.bfloat16 is None else f"{self.bfloat16:.3f} s in bfloat16, "
        return (
            f"a trial took {mixed}{self.channels_last:.3f} s a step channels last, {self.contiguous:.3f} s in the "
            "usual layout"
        )


def tried(model: torch.nn.Module, *, image_size: int, batch: int, mixed: bool) -> Trial:
    """Time passes of noise through copies of the model, in turns.

    Neither the model nor any global random generator is changed.

    Args:
        model: What is to be trained.
        image_size: Pixels a side.
        batch: Pictures a step.
        mixed: Whether to try mixed precision, too.
    """
    channels = next(model.parameters()).shape[1]
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(min(batch, IMAGES), channels, image_size, image_size, generator=generator)
    ways: dict[str, tuple[torch.memory_format, Any]] = {
        "contiguous": (torch.contiguous_format, contextlib.nullcontext),
        "channels_last": (torch.channels_last, contextlib.nullcontext),
    }
    if mixed:
        ways["bfloat16"] = (torch.channels_last, mixed_precision.bfloat16)
    best = dict.fromkeys(ways, float("inf"))
    with torch.random.fork_rng(devices=[]):
        for turn in range(ROUNDS + 1):
            for name, (memory_format, precision) in ways.items():
                subject = copy.deepcopy(model).to(memory_format=memory_format).train()
                begun = time.perf_counter()
                with precision():
                    total = sum(tensor.float().mean() for tensor in tensors(subject(noise)))
                assert isinstance(total, torch.Tensor)  # noqa: S101 - a model without outputs has no business here
                total.backward()  # type: ignore[no-untyped-call, unused-ignore]
                if turn:  # the first warms up
                    best[name] = min(best[name], time.perf_counter() - begun)
    return Trial(**best)


def tensors(value: Any) -> list[torch.Tensor]:
    """Return the tensors in a model's output that have a gradient, however it is nested."""
    if isinstance(value, torch.Tensor):
        return [value] if value.requires_grad else []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors(part)]
    return []
