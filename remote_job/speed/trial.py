"""A short trial: which memory layout and which precision are faster for this model on this machine."""

import contextlib
import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from gpu_offload.remote_job.speed import mixed_precision
from gpu_offload.remote_job.speed.outputs import tensors

ROUNDS = 2
PIXELS = 4 * 320 * 320
"""Pixels in a trial's batch, about: enough for the large convolutions to count, a fraction of a usual step's."""

MARGIN = 1.05
"""How much slower channels last must be to be given up: no trial is exact."""

GAIN = 1.05
"""How much faster bfloat16 must be to be worth its rounding."""


@dataclass(frozen=True, slots=True)
class SpeedTrial:
    """Seconds of one forward and backward pass on one core, the best of a few; None is what was not tried."""

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
            f"a trial pass took one core {mixed}{self.channels_last:.3f} s channels last, {self.contiguous:.3f} s in "
            "the usual layout"
        )


def tried(model: torch.nn.Module, *, image_size: int, batch: int, mixed: bool) -> SpeedTrial:
    """Time passes of noise through copies of the model, in turns, also in `mixed` precision.

    One thread's own processor time counts: threads that wait for each other while another program has a core would
    make the trial a lottery. Neither the model, the number of threads nor any global random generator is changed.
    """
    channels = next(model.parameters()).shape[1]
    generator = torch.Generator().manual_seed(0)
    images = max(1, min(batch, PIXELS // image_size**2))
    noise = torch.rand(images, channels, image_size, image_size, generator=generator)
    ways: dict[str, tuple[torch.memory_format, Any]] = {
        "contiguous": (torch.contiguous_format, contextlib.nullcontext),
        "channels_last": (torch.channels_last, contextlib.nullcontext),
    }
    if mixed:
        ways["bfloat16"] = (torch.channels_last, mixed_precision.bfloat16)
    best = dict.fromkeys(ways, float("inf"))
    with torch.random.fork_rng(devices=[]), one_thread():
        for turn in range(ROUNDS + 1):
            # In turns, not one after the other: a processor that grows warm slows all ways alike.
            for name, (memory_format, precision) in ways.items():
                subject = copy.deepcopy(model).to(memory_format=memory_format).train()
                begun = time.thread_time()
                with precision():
                    outputs = tensors(subject(noise))
                total = sum(output.float().mean() for output in outputs if output.requires_grad)
                assert isinstance(total, torch.Tensor)  # noqa: S101 - a model without outputs has no business here
                total.backward()  # type: ignore[no-untyped-call, unused-ignore]
                if turn:  # the first warms up
                    best[name] = min(best[name], time.thread_time() - begun)
    return SpeedTrial(**best)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
