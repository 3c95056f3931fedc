"""A dataset as it is now: every image with its label, split and sha256, checked; the first step of the way."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gpu_offload.dataset import consistency
from gpu_offload.dataset.data_yaml import class_name_problems
from gpu_offload.dataset.finding import DatasetError, Finding, error, ordered, warning
from gpu_offload.dataset.image import ImageError, check_image, natural
from gpu_offload.dataset.inventory import Facts, Inventory, Read, context_of, take_inventory
from gpu_offload.dataset.label import MAX_BYTES, check_label
from gpu_offload.dataset.layout import Layout, Listing, is_image, label_name, list_dataset
from gpu_offload.dataset.paths import Names
from gpu_offload.dataset.samples import Sample, Samples
from gpu_offload.dataset.split import SPLITS, SplitRule
from gpu_offload.dataset.task import Task

CHECK_VERSION = 1
"""Raise it when a check of a file's content changes: what was found clean before is then looked at again."""


@dataclass(frozen=True)
class Snapshot:
    """A dataset that can be trained on. `samples` are sorted by image path, then by split."""

    root: Path
    layout: Layout
    task: Task
    classes: tuple[str, ...]
    keypoint_shape: tuple[int, int] | None
    flip_idx: tuple[int, ...] | None
    samples: Sequence[Sample]
    split_rule: SplitRule
    warnings: tuple[Finding, ...] = ()
    cache: Path | None = field(default=None, compare=False)
    """The stat cache that this was read with."""

    @cached_property
    def images(self) -> dict[str, int]:
        """Number of images by split."""
        if isinstance(self.samples, Samples):
            count = Counter(split for _, _, split in self.samples.columns())
        else:
            count = Counter(sample.split for sample in self.samples)
        return {split: count[split] for split in SPLITS}

    @cached_property
    def bytes(self) -> int:
        """Bytes of all images and labels."""
        if isinstance(self.samples, Samples):
            sizes = self.samples.inventory.sizes
            return sum(sizes[i] + (sizes[j] if j >= 0 else 0) for i, j, _ in self.samples.columns())
        return sum(sample.size for sample in self.samples)


def read_snapshot(
    path: Path,
    *,
    classes: Sequence[str] = (),
    task: Task | None = None,
    split: SplitRule = SplitRule(),  # noqa: B008 - frozen
    keypoint_shape: tuple[int, int] | None = None,
    cache: Path | None = None,
    check: bool = True,
) -> Snapshot:
    """Read the dataset at `path`, check it and hash every file.

    Args:
        path: A folder (flat, or one folder a class), a folder with a `data.yaml`, or such a file.
        classes: Class names in the order of their indices, where the dataset itself does not give them.
        task: What is to be learnt; by default inferred from `data.yaml` and the labels.
        split: How images are divided that come without a given split.
        keypoint_shape: Number of keypoints and values a keypoint (2 or 3), for pose without a `data.yaml`.
        cache: The stat cache's file, outside the dataset; None reads every file.
        check: Whether to look into the files. Without it names, classes and splits are still checked.

    Raises:
        DatasetError: With every fault found.
    """
    findings: list[Finding] = []
    listing = list_dataset(Path(path), task, split, findings)
    shape = listing.keypoint_shape or keypoint_shape
    named = _classes(listing, tuple(classes), findings)
    look = check or (listing.layout is not Layout.FOLDERS and (task is None or not named))
    inspector = _Inspector(shape, images=check, labels=look, report=check)
    context = context_of(CHECK_VERSION, shape)
    inventory = take_inventory(
        listing.root, listing.names, inspector=inspector, context=context, cache=cache, findings=findings
    )
    samples, orphans = _pair(listing, inventory, named, findings)
    if orphans:  # a text that is nobody's label need not look like one
        stray = set(orphans)
        findings[:] = [finding for finding in findings if finding.path not in stray]
    found = consistency.Check(listing, samples, shape, findings)
    found.names_and_splits(split, orphans)
    if check:
        found.duplicates()
    settled = found.task(task)
    if look:
        named = found.classes(named, settled)
    elif not named:
        findings.append(error("", "no-classes", "the classes have no names; give them"))
    if any(finding.severity == "error" for finding in findings):
        raise DatasetError(findings)
    return Snapshot(
        root=listing.root,
        layout=listing.layout,
        task=settled,
        classes=named,
        keypoint_shape=shape if settled is Task.POSE else None,
        flip_idx=listing.flip_idx if settled is Task.POSE else None,
        samples=samples,
        split_rule=split,
        warnings=ordered(findings),
        cache=cache,
    )


def _classes(listing: Listing, given: tuple[str, ...], findings: list[Finding]) -> tuple[str, ...]:
    """Settle the class names. What the dataset says must agree with what the caller says."""
    named = listing.classes or given
    if given and listing.classes and given != listing.classes:
        if listing.layout is Layout.FOLDERS and sorted(given) == sorted(listing.classes):
            message = "class folders are numbered in alphabetical order, whatever order the settings give"
            findings.append(warning("", "class-order", message))
        else:
            message = f"the dataset names the classes {_short(listing.classes)}, the settings {_short(given)}; make them equal"
            findings.append(error("", "class-mismatch", message))
    findings += [error("", "class-name", problem) for problem in class_name_problems(named)]
    return named


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


class _Inspector:
    """Looks into a file while it is open for hashing; facts are (width, height, 0) or (rows, columns, class + 1)."""

    def __init__(self, shape: tuple[int, int] | None, *, images: bool, labels: bool, report: bool) -> None:
        self._shape = shape
        self._images = images
        self._labels = labels
        self._report = report

    def wants(self, name: str) -> bool:
        return self._images if is_image(name) else self._labels

    def inspect(self, name: str, read: Read, size: int) -> tuple[Facts, list[Finding], bool]:
        facts, findings = (self._image if is_image(name) else self._label)(name, read, size)
        return facts, findings if self._report else [], not findings

    def _image(self, name: str, read: Read, size: int) -> tuple[Facts, list[Finding]]:
        try:
            facts = check_image(read, size)
        except ImageError as fault:
            return (0, 0, 0), [error(name, fault.code, str(fault))]
        findings = []
        if not natural(facts, name):
            message = f"the content is {facts.format}, not what the extension says; rename it"
            findings.append(warning(name, "wrong-extension", message))
        return (facts.width, facts.height, 0), findings

    def _label(self, name: str, read: Read, size: int) -> tuple[Facts, list[Finding]]:
        if size > MAX_BYTES:
            message = f"{size / 2**20:.0f} MiB is too large for a label (limit {MAX_BYTES >> 20} MiB)"
            return (0, 0, 0), [error(name, "huge-file", message)]
        facts, findings = check_label(name, read(0, size), keypoint_shape=self._shape)
        columns = min(facts.min_columns, 0xFFFF) | min(facts.max_columns, 0xFFFF) << 16
        return (facts.rows, columns, facts.max_class + 1), findings


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
        if wanted < self._last:
            return self._names.find(wanted)
        self._last = wanted
        while self._name is not None and self._name < wanted:
            self._at, self._name = next(self._ahead, (-1, None))
        return self._at if self._name == wanted else -1


def _pair(
    listing: Listing, inventory: Inventory, classes: tuple[str, ...], findings: list[Finding]
) -> tuple[Samples, list[str]]:
    """Join each image to its label; also return the labels that belong to no image."""
    names, samples, labels = listing.names, Samples(inventory), _Labels(listing.names)
    indices = {name: index for index, name in enumerate(classes)}
    class_of, splits_of = listing.class_of, listing.splits_of
    used = bytearray(len(names))
    for position, name in enumerate(names):
        if not is_image(name):
            continue
        label, class_index = -1, -1
        if class_of is not None:
            class_index = indices.get(class_of(name), -1)
        else:
            label = labels.find(label_name(name))
            if label >= 0:
                if used[label]:
                    message = f"shares {names[label]} with another image; rename one of the images"
                    findings.append(warning(name, "shared-label", message))
                used[label] = 1
        splits = splits_of(name)
        for split in splits if len(splits) < 2 else sorted(splits, key=SPLITS.index):
            samples.add(position, label, split, class_index)
    if class_of is not None:
        return samples, []
    orphans = [name for at, name in enumerate(names) if not used[at] and not is_image(name)]
    return samples, orphans
