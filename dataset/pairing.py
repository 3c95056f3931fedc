"""Joins each image to its label, and keeps of a listing only the files that are trained on."""

from array import array
from dataclasses import dataclass, replace

from gpu_offload.dataset.census import Reason
from gpu_offload.dataset.finding import Findings, warning
from gpu_offload.dataset.inventory import FileTable
from gpu_offload.dataset.layout import DatasetFiles, is_image, label_name
from gpu_offload.dataset.paths import Names
from gpu_offload.dataset.samples import Samples
from gpu_offload.dataset.split import SPLITS, Split, SplitRule, assign


@dataclass(frozen=True, slots=True)
class Pairs:
    """The images that belong to a split, each with its label, by position in `names`."""

    names: Names
    images: "array[int]"  # quoted: no subscript at run time before Python 3.12
    labels: "array[int]"
    """-1 where an image has none."""
    splits: bytearray
    orphans: tuple[str, ...]
    """Labels without an image."""

    def samples(self, inventory: FileTable, listing: DatasetFiles, classes: tuple[str, ...]) -> Samples:
        """Return the samples, once their files were read."""
        samples = Samples(inventory)
        indices = {name: index for index, name in enumerate(classes)}
        class_of = listing.class_of
        for image, label, split in zip(self.images, self.labels, self.splits, strict=True):
            class_index = -1 if class_of is None else indices.get(class_of(self.names[image]), -1)
            samples.add(image, label, SPLITS[split], class_index)
        return samples


def pair(listing: DatasetFiles, rule: SplitRule, findings: Findings) -> Pairs:
    """Join images and labels by their names, and settle the splits. A label that two images share is a warning."""
    names = listing.names
    if listing.makes_val:
        message = "nothing is given for validation; a part of train is held back for it, by the hash of the file names"
        findings.append(warning("", "split-made", message))
    used = bytearray(len(names))
    images, labels, splits = array("I"), array("i"), bytearray()
    finder = _Labels(names)
    for position, name in enumerate(names):
        if not is_image(name):
            continue
        chosen = _splits(name, listing, rule)
        if not chosen:
            listing.census.count(Reason.UNNAMED, name)
            continue
        label = -1 if listing.class_of is not None else finder.find(label_name(name))
        if label >= 0:
            if used[label]:
                message = f"shares {names[label]} with another image; rename one of the images"
                findings.append(warning(name, "shared-label", message))
            used[label] = 1
        used[position] = 1
        for split in sorted(chosen, key=SPLITS.index):
            images.append(position)
            labels.append(label)
            splits.append(SPLITS.index(split))
    return _without_unused(Pairs(names, images, labels, splits, ()), used)


def _splits(name: str, listing: DatasetFiles, rule: SplitRule) -> set[Split]:
    chosen = set(listing.splits_of(name))
    if listing.makes_val and "train" in chosen:
        return chosen - {"train"} | {assign(name, replace(rule, test=0.0))}
    return chosen


def _without_unused(pairs: Pairs, used: bytearray) -> Pairs:
    """Drop the names that are no image of a split and no label of one; texts among them are orphans."""
    if all(used):
        return pairs
    names = pairs.names
    moved = array("i", [-1]) * len(names)
    count = 0
    for position, keep in enumerate(used):
        if keep:
            moved[position] = count
            count += 1
    return Pairs(
        Names(name for position, name in enumerate(names) if used[position]),
        array("I", (moved[image] for image in pairs.images)),
        array("i", (moved[label] if label >= 0 else -1 for label in pairs.labels)),
        pairs.splits,
        tuple(name for position, name in enumerate(names) if not used[position] and not is_image(name)),
    )


class _Labels:
    """Finds labels by name, quickest when asked in order: images and labels are sorted alike, as a rule."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._ahead = ((at, name) for at, name in enumerate(names) if name.endswith(".txt"))
        self._at: int
        self._name: str | None
        self._at, self._name = next(self._ahead, (-1, None))
        self._last = ""

    def find(self, wanted: str) -> int:
        """Return the position of a label, -1 where it is not."""
        if wanted < self._last:  # `images/` and `labels/` sort alike, pictures in other folders may not
            return self._names.find(wanted)
        self._last = wanted
        while self._name is not None and self._name < wanted:
            self._at, self._name = next(self._ahead, (-1, None))
        return self._at if self._name == wanted else -1
