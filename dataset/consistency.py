"""Checks that look at the dataset as a whole: task, classes, splits, labels and images that do not match."""

from array import array
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from gpu_offload.dataset.census import Reason
from gpu_offload.dataset.finding import Findings, error, some, warning
from gpu_offload.dataset.label_places import where_labels_are
from gpu_offload.dataset.layout import DatasetFiles
from gpu_offload.dataset.samples import Samples
from gpu_offload.dataset.split import Split, SplitRule


@dataclass(frozen=True, slots=True)
class ConsistencyCheck:
    """Goes over the samples of one dataset and appends what it finds to `findings`."""

    listing: DatasetFiles
    samples: Samples
    shape: tuple[int, int] | None
    findings: Findings

    def names_and_splits(self, rule: SplitRule, orphans: tuple[str, ...], *, complete: bool) -> None:
        """See that there are images, in train and in val, and that labels and images match; `orphans` have no image.

        `complete` says whether everything that the dataset names was found; else what is missing follows from that.
        """
        samples, findings = self.samples, self.findings
        if not len(samples):
            if complete:
                expected = "class folders" if self._by_folders else "images and labels"
                packed = self.listing.census.examples.get(Reason.PACKED)
                message = f"no image was found in {self.listing.root}" + (
                    f", and {some(sorted(packed))} {'are' if len(packed) > 1 else 'is'} not opened; unpack or export the images"
                    if packed
                    else f"; put {expected} there, or correct dataset.path"
                )
                findings.append(error("", "no-images", message))
            return
        count = Counter(split for _, _, split in samples.columns())
        if complete:
            self._check_splits(count, rule)
        if not self._by_folders:
            self._check_labels(orphans)

    def _check_splits(self, count: Counter[Split], rule: SplitRule) -> None:
        findings, given = self.findings, self.listing.given_split
        if not count["train"]:
            remedy = (
                "add images to it"
                if given
                else "add images or lower dataset.split.val and dataset.split.test"
            )
            findings.append(error("", "empty-split", f"no image is left to train on; {remedy}"))
        if not count["val"] and given and not self.listing.makes_val:
            message = "the validation split is empty; add images to it, or remove it to have a part of train held back"
            findings.append(error("", "empty-split", message))
        elif not count["val"]:
            part = (
                f"dataset.split.val = {rule.val:g}"
                if rule.fold is None
                else f"fold {rule.fold[0]}/{rule.fold[1]}"
            )
            wider = "raise it" if rule.fold is None else "take fewer folds"
            message = (
                f"the validation split is empty: none of {len(self.samples)} images fell into it with "
                f"{part}; add images, {wider} or try another dataset.split.seed than {rule.seed}"
            )
            findings.append(error("", "empty-split", message))
        if rule.test and not count["test"] and not given:
            findings.append(
                warning("", "empty-split", "the test split is empty; add images or raise dataset.split.test")
            )

    def _check_labels(self, orphans: tuple[str, ...]) -> None:
        """Compare images without a label to labels without an image."""
        names = self.samples.inventory.names
        bare = array("I", (image for image, label in self.samples.images() if label < 0))
        count = sum(1 for _ in self.samples.images())
        seen = (
            where_labels_are((names[image] for image in bare), orphans, self.listing.odd_texts)
            if bare
            else None
        )
        if len(bare) == count:
            message = "not one image has a label; " + (
                seen
                or "put image.txt beside image.jpg, or in labels/ beside images/; to classify images, put each "
                "into the folder of its class"
            )
            self.findings.append(error("", "no-labels", message))
            return
        if seen is not None:
            message = f"{len(bare)} of {count} images have no label, but {seen}"
            self.findings.append(error("", "label-elsewhere", message))
            return
        unread = any(finding.code == "unread-format" for finding in self.findings)
        for name in orphans:
            self.listing.census.count(Reason.ORPHAN, name)
            if not unread:  # else it may be the label of a picture that was just reported
                message = "is a label without an image; remove it or restore the image"
                self.findings.append(warning(name, "no-image", message))
        if bare:
            message = (
                f"{len(bare)} of {count} images have no label and count as background "
                f"({some(names[image] for image in bare)}); an empty label file says so on purpose"
            )
            self.findings.append(warning("", "no-label", message))

    @property
    def _by_folders(self) -> bool:
        return self.listing.class_of is not None

    def sizes(self) -> None:
        """Compare the size that annotations give for an image to its own: else all its boxes are displaced."""
        sizes, inventory = self.listing.sizes, self.samples.inventory
        if not sizes:
            return
        for image, _ in self.samples.images():
            own = inventory.facts[3 * image], inventory.facts[3 * image + 1]
            given = sizes.get(inventory.names[image])
            # Sorted: EXIF may turn the image, and tools note its sides before or after that.
            if given is None or sorted(given) == sorted(own):
                continue
            if inventory.checked[image] and any(own):
                message = (
                    f"is {own[0]} x {own[1]} pixels, and its annotations are for {given[0]} x {given[1]}; "
                    "restore the image that was annotated"
                )
                self.findings.append(error(inventory.names[image], "size-mismatch", message))

    def duplicates(self) -> None:
        """Warn of images with the same content: wasteful within a split, a leak from one split to another."""
        samples, inventory = self.samples, self.samples.inventory
        # Eight bytes of each sha256 are sorted first: whole ones, as Python objects, would not fit for a million images.
        begins = ((32 * image, 32 * image + 8) for image, _, _ in samples.columns())
        heads = array("Q", (int.from_bytes(inventory.sha256[a:b], "little") for a, b in begins))
        ordered = array("Q", sorted(heads))
        twice = {a for a, b in pairwise(ordered) if a == b}
        del ordered
        if not twice:
            return
        groups: dict[bytes, list[tuple[int, Split]]] = {}
        for head, (image, _, split) in zip(heads, samples.columns(), strict=True):
            if head in twice:
                sha = bytes(inventory.sha256[32 * image : 32 * image + 32])
                groups.setdefault(sha, []).append((image, split))
        both: list[str] = []
        for group in groups.values():
            first, *others = group
            name = inventory.names[first[0]]
            for image, split in others:
                path = inventory.names[image]
                if image == first[0]:
                    both.append(path)
                elif split != first[1]:
                    message = f"is the same image as {name} in {first[1]}, itself in {split}; the score is flattered"
                    self.findings.append(warning(path, "leak", message))
                else:
                    message = f"is the same image as {name}; remove one"
                    self.findings.append(warning(path, "duplicate-image", message))
        if both:
            message = f"{len(both)} images are in two splits ({some(both)}); the score is flattered"
            self.findings.append(warning("", "leak", message))
