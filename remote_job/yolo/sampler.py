"""The order of images in an epoch, known from the seed and the epoch alone."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class EpochSampler(Sampler):  # type: ignore[misc]  # torch is not followed
    """Shuffles again each epoch, and can begin in the middle of one.

    Ultralytics draws each order from a generator that runs through the whole training, prefetched by worker
    processes: where such a generator stands at a given epoch cannot be told when a training resumes.

    Args:
        size: Images in the dataset.
        seed: The training's seed.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._seed = seed
        self._epoch = 0
        self._skip = 0

    def __len__(self) -> int:
        return self._size

    def start_at(self, epoch: int, *, skip: int = 0) -> None:
        """Make `epoch` (from 0) the next one that is drawn, without its first `skip` images."""
        self._epoch = epoch
        self._skip = skip

    def __iter__(self) -> Iterator[int]:
        # Odd multiplier: seeds and epochs next to each other must not share an order.
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + self._epoch) % 2**63)
        order = torch.randperm(self._size, generator=generator).tolist()[self._skip :]
        self._epoch += 1
        self._skip = 0
        return iter(order)
