"""The order of images in an epoch, known from the seed and the epoch alone."""

import math
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class EpochSampler(Sampler):  # type: ignore[misc]  # torch is not followed
    """Shuffles again each epoch, and can begin in the middle of one.

    Ultralytics draws each order from a generator that runs through the whole training, and worker processes draw ahead
    of it: its state at a given epoch is not known when a training resumes.

    Args:
        size: Images in the dataset.
        seed: The training's seed.
        rank: Of this process among those that train together: together they draw the batches that one would draw alone.
        ranks: How many train together; the order is filled up from its beginning, so that all draw equally many.
    """

    def __init__(self, size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self._size = size
        self._seed = seed
        self._rank = rank
        self._ranks = ranks
        self._epoch = 0
        self._skip = 0

    def __len__(self) -> int:
        return math.ceil(self._size / self._ranks)

    def start_at(self, epoch: int, *, skip: int = 0) -> None:
        """Make `epoch` (from 0) the next one that is drawn, without the first `skip` images of this process."""
        self._epoch = epoch
        self._skip = skip

    def __iter__(self) -> Iterator[int]:
        # Odd multiplier: seeds and epochs next to each other must not share an order.
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + self._epoch) % 2**63)
        order = torch.randperm(self._size, generator=generator).tolist()
        places = range(self._rank, len(self) * self._ranks, self._ranks)
        order = [order[place % self._size] for place in places][self._skip :]
        self._epoch += 1
        self._skip = 0
        return iter(order)
