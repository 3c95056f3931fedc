"""Decoded pictures kept in memory, so that an epoch does not decode again what the one before did.

Ultralytics' own `cache=ram` draws random numbers when it sizes itself, hands out its only copy of a picture to
augmentations that paint on it, and empties the buffer that mosaics are drawn from: with it a training sees other
pictures. This cache hands out copies and leaves all that as it is.
"""

import resource
from typing import Any

import numpy as np

SHARE_OF_MEMORY = 0.25
"""Of the memory this process may fill."""

SHARE_OF_PEAK = 0.3
"""Of the most memory the process has used so far, so that the peak grows by no more than that."""


class ImageCache:
    """Pictures of a training's datasets, up to a common limit in bytes."""

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self.bytes = 0

    @property
    def limit(self) -> int:
        """How many bytes may be kept at this moment."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
        # What is kept here is part of the peak and must not justify itself.
        return int(min(SHARE_OF_MEMORY * self.memory_bytes, SHARE_OF_PEAK * max(0, peak - self.bytes)))

    def admits(self, size: int) -> bool:
        """Account for another picture of `size` bytes, if there is room."""
        if self.bytes + size > self.limit:
            return False
        self.bytes += size
        return True

    def attach(self, dataset: Any) -> bool:
        """Serve a dataset's pictures from here. Returns whether it is of a kind we know."""
        if hasattr(dataset, "load_image") and hasattr(dataset, "ims"):
            if getattr(dataset, "cache", None):
                return False
            dataset.load_image = ScaledImages(self, dataset)
        elif hasattr(dataset, "imread") and hasattr(dataset, "torch_transforms"):
            if dataset.cache_ram or dataset.cache_disk:
                return False
            dataset.imread = WholeImages(self, dataset.imread)
        else:
            return False
        return True


class ScaledImages:
    """In place of `BaseDataset.load_image` (detection, segmentation, poses)."""

    def __init__(self, cache: ImageCache, dataset: Any) -> None:
        self.cache = cache
        self.dataset = dataset
        self.load = dataset.load_image
        self.kept: dict[tuple[Any, ...], tuple[np.ndarray, tuple[int, int], tuple[int, int]]] = {}

    def __call__(
        self, i: int, rect_mode: bool = True, resize_short: bool = False
    ) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
        """Return picture `i`, its height and width in the file, and as it is returned."""
        dataset = self.dataset
        if dataset.ims[i] is not None:  # in the buffer that mosaics draw from
            return self.load(i, rect_mode, resize_short)  # type: ignore[no-any-return]
        size = tuple(dataset.imgsz) if isinstance(dataset.imgsz, list | tuple) else dataset.imgsz
        key = (i, rect_mode, resize_short, size)
        if key in self.kept:
            image, original, scaled = self.kept[key]
            fresh = image.copy(), original, scaled
            if dataset.augment:
                self._remember(i, fresh)
            return fresh
        loaded: tuple[np.ndarray, tuple[int, int], tuple[int, int]] = self.load(i, rect_mode, resize_short)
        # A copy: augmentations paint on what they get.
        if self.cache.admits(loaded[0].nbytes):
            self.kept[key] = loaded[0].copy(), loaded[1], loaded[2]
        return loaded

    def _remember(self, i: int, loaded: tuple[np.ndarray, tuple[int, int], tuple[int, int]]) -> None:
        """Put a picture into the buffer that mosaics draw from, as Ultralytics 8.4 does after decoding one."""
        dataset = self.dataset
        dataset.ims[i], dataset.im_hw0[i], dataset.im_hw[i] = loaded
        dataset.buffer.append(i)
        if 1 < len(dataset.buffer) >= dataset.max_buffer_length:
            oldest = dataset.buffer.pop(0)
            dataset.ims[oldest], dataset.im_hw0[oldest], dataset.im_hw[oldest] = None, None, None


class WholeImages:
    """In place of `ClassificationDataset.imread`."""

    def __init__(self, cache: ImageCache, read: Any) -> None:
        self.cache = cache
        self.read = read
        self.kept: dict[str, np.ndarray] = {}

    def __call__(self, file: Any) -> np.ndarray:
        """Return the picture in a file."""
        # No copy here: `ClassificationDataset` converts what it gets into a picture of its own.
        kept = self.kept.get(str(file))
        if kept is not None:
            return kept
        image: np.ndarray = self.read(file)
        if image is not None and self.cache.admits(image.nbytes):
            self.kept[str(file)] = image
        return image
