"""A short trial: which memory layout is faster for this model on this machine."""

import copy
import time
from dataclasses import dataclass
from typing import Any

import torch

ROUNDS = 2
IMAGES = 4
"""Pictures in a trial's batch: enough to fill the cores, a quarter of a usual step's time and memory."""

MARGIN = 1.05
"""How much slower channels last must be to be given up: a trial on a busy machine is not exact."""


@dataclass(frozen=True, slots=True)
class LayoutTrial:
    """Seconds of one forward and backward pass, the best of a few."""

    contiguous: float
    channels_last: float

    @property
    def keeps_channels_last(self) -> bool:
        """Whether channels last was not clearly slower."""
        return self.channels_last <= self.contiguous * MARGIN

    def __str__(self) -> str:
        return f"a trial took {self.channels_last:.3f} s a step channels last, {self.contiguous:.3f} s in the usual layout"


def try_layouts(model: torch.nn.Module, *, image_size: int, batch: int) -> LayoutTrial:
    """Time passes of noise through copies of the model in both layouts, in turns.

    Neither the model nor any global random generator is changed.
    """
    channels = next(model.parameters()).shape[1]
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(min(batch, IMAGES), channels, image_size, image_size, generator=generator)
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    best = dict.fromkeys(formats, float("inf"))
    with torch.random.fork_rng(devices=[]):
        for turn in range(ROUNDS + 1):
            for name, memory_format in formats.items():
                subject = copy.deepcopy(model).to(memory_format=memory_format).train()
                begun = time.perf_counter()
                total = sum(tensor.float().mean() for tensor in tensors(subject(noise)))
                assert isinstance(total, torch.Tensor)  # noqa: S101 - a model without outputs has no business here
                total.backward()  # type: ignore[no-untyped-call, unused-ignore]
                if turn:  # the first warms up
                    best[name] = min(best[name], time.perf_counter() - begun)
    return LayoutTrial(**best)


def tensors(value: Any) -> list[torch.Tensor]:
    """Return the tensors in a model's output that have a gradient, however it is nested."""
    if isinstance(value, torch.Tensor):
        return [value] if value.requires_grad else []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors(part)]
    return []
