"""Finds the images that annotation files name."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from posixpath import normpath
from typing import Final

from gpu_offload.dataset.finding import some
from gpu_offload.dataset.layout import is_image

MAX_COMPARED: Final = 1_000_000
"""Comparisons of images with equal names for one dataset; without a limit they grow with the square of the images."""


class ImageFinder:
    """Finds the image that an annotation names, which may be written relative to many a folder."""

    def __init__(self, names: Iterable[str]) -> None:
        self._compared = 0
        self._names = {name for name in names if is_image(name)}
        self._by_base: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for name in sorted(self._names):
            base = name.rpartition("/")[2]
            self._by_base[base].append(name)
            self._by_stem[base.rpartition(".")[0]].append(name)

    def find(self, written: str, folders: Sequence[str], rank: Callable[[str], int]) -> str | None:
        """Return the image, tried below each of `folders`, then anywhere by its name if only one fits.

        Raises:
            AmbiguousImageError: If several images of this name are there, and not one of them ranks before the others.
        """
        written = written.replace("\\", "/").lstrip("/")
        for folder in folders:
            name = normpath(f"{folder}/{written}" if folder else written)
            if name in self._names:
                return name
        return self._only(self._by_base.get(written.rpartition("/")[2], []), rank)

    def find_stem(self, stem: str, rank: Callable[[str], int]) -> str | None:
        """Return the image of this name without its extension. Raises AmbiguousImageError."""
        return self._only(self._by_stem.get(stem, []), rank)

    def _only(self, names: Sequence[str], rank: Callable[[str], int]) -> str | None:
        self._compared += len(names)
        # A hostile file can name the one image that is in ten thousand folders ten thousand times.
        if len(names) > 1 and self._compared > MAX_COMPARED:
            raise AmbiguousImageError(names)
        if len(names) > 1:
            best = min(map(rank, names))
            names = [name for name in names if rank(name) == best]
        if len(names) > 1:
            raise AmbiguousImageError(names)
        return names[0] if names else None


class AmbiguousImageError(Exception):
    """Several images have the name that an annotation gives."""

    def __init__(self, names: Sequence[str]) -> None:
        shown = some(sorted(names[:100]))
        super().__init__(f"could be any of {len(names)} images ({shown}); write the path of the image")
