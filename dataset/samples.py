"""The images of a dataset as columns, so that a million of them fit into memory."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from gpu_offload.dataset.inventory import FileTable
from gpu_offload.dataset.split import SPLITS, Split


@dataclass(frozen=True, slots=True)
class Sample:
    """One image. Paths are relative to the dataset's root; `size` is in bytes, image and label together.

    `width` and `height` are pixels as stored, 0 where the content was not checked. `label` is None for a background
    image and for classification, where `class_index` counts in the order of `Snapshot.classes`.
    """

    image: str
    label: str | None
    split: Split
    image_sha256: str
    label_sha256: str | None
    size: int
    width: int
    height: int
    class_index: int | None = None


class Samples(Sequence[Sample]):
    """Samples in order of their paths, as columns; each `Sample` is made when it is asked for."""

    __slots__ = ("_classes", "_images", "_inventory", "_labels", "_splits")

    def __init__(self, inventory: FileTable) -> None:
        self._inventory = inventory
        self._images = array("I")
        self._labels = array("i")  # signed: -1 for an image without a label
        self._splits = bytearray()
        self._classes = array("i")

    def add(self, image: int, label: int, split: Split, class_index: int) -> None:
        """Append a sample by positions in the inventory; -1 for no label and no class."""
        self._images.append(image)
        self._labels.append(label)
        self._splits.append(SPLITS.index(split))
        self._classes.append(class_index)

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Sample, ...]: ...
    def __getitem__(self, index: int | slice) -> Sample | tuple[Sample, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        image, label, class_index = self._images[index], self._labels[index], self._classes[index]
        of = self._inventory
        return Sample(
            image=of.names[image],
            label=of.names[label] if label >= 0 else None,
            split=SPLITS[self._splits[index]],
            image_sha256=of.sha_hex(image),
            label_sha256=of.sha_hex(label) if label >= 0 else None,
            size=of.sizes[image] + (of.sizes[label] if label >= 0 else 0),
            width=of.facts[3 * image] if of.checked[image] else 0,
            height=of.facts[3 * image + 1] if of.checked[image] else 0,
            class_index=class_index if class_index >= 0 else None,
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def columns(self) -> Iterator[tuple[int, int, Split]]:
        """Yield image, label and split of each sample by position in the inventory."""
        rows = zip(self._images, self._labels, self._splits, strict=True)
        return ((image, label, SPLITS[split]) for image, label, split in rows)

    def images(self) -> Iterator[tuple[int, int]]:
        """Yield image and label, each image once: one that is in several splits has a sample in each, side by side."""
        last = -1
        for image, label in zip(self._images, self._labels, strict=True):
            if image != last:
                yield image, label
            last = image

    @property
    def inventory(self) -> FileTable:
        """The files behind the samples."""
        return self._inventory
