"""Finds the images that annotation files name."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

from gpu_offload.dataset.finding import some
from gpu_offload.dataset.layout import is_image


class ImageFinder:
    """Finds the image that an annotation names, which may be written relative to many a folder."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {name for name in names if is_image(name)}
        self._by_base: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for name in self._names:
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
            name = str(PurePosixPath(folder) / written)
            if name in self._names:
                return name
        return self._only(self._by_base.get(written.rpartition("/")[2], []), rank)

    def find_stem(self, stem: str, rank: Callable[[str], int]) -> str | None:
        """Return the image of this name without its extension. Raises AmbiguousImageError."""
        return self._only(self._by_stem.get(stem, []), rank)

    @staticmethod
    def _only(names: Sequence[str], rank: Callable[[str], int]) -> str | None:
        if len(names) > 1:
            best = min(map(rank, names))
            names = [name for name in names if rank(name) == best]
        if len(names) > 1:
            raise AmbiguousImageError(sorted(names))
        return names[0] if names else None


class AmbiguousImageError(Exception):
    """Several images have the name that an annotation gives."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"could be any of {some(names)}; write the path of the image")
