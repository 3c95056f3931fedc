"""A dataset as it is now: every image with its label, split and sha256, checked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gpu_offload.dataset import consistency
from gpu_offload.dataset.class_names import class_name_problems
from gpu_offload.dataset.finding import DatasetError, Finding, Findings, error, warning
from gpu_offload.dataset.image import MAX_BYTES as MAX_IMAGE
from gpu_offload.dataset.image import Density, ImageError, check_image, natural
from gpu_offload.dataset.inventory import context_of, take_inventory
from gpu_offload.dataset.inventory_reader import Facts, Read
from gpu_offload.dataset.label import MAX_BYTES, check_label, facts_of_rows
from gpu_offload.dataset.label_kinds import LabelKinds
from gpu_offload.dataset.layout import DatasetFiles, Layout, is_image
from gpu_offload.dataset.lfs import LFS_REMEDY
from gpu_offload.dataset.pairing import pair
from gpu_offload.dataset.recognition import list_dataset
from gpu_offload.dataset.samples import Sample, Samples
from gpu_offload.dataset.split import SPLITS, SplitRule
from gpu_offload.dataset.task import Task

_MERGED = {
    "lfs-pointer": "{} in place of the content: pointers of Git LFS; " + LFS_REMEDY,
    "no-keypoints": "the rows of {} look like keypoints; write a data.yaml with kpt_shape: [number, 2 or 3]",
}
"""Faults that are one fault of the dataset, in however many files they show."""

CHECK_VERSION = 3
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
    left_out: tuple[str, ...] = ()
    """A line for each reason why files below the dataset are not trained on, with their number."""
    labels: Mapping[str, bytes] = field(default_factory=dict)
    """Labels that were converted from another format, by `Sample.label`; other labels are files."""
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
    cache: Path | None = None,
    check: bool = True,
) -> Snapshot:
    """Read the dataset at `path`, check it and hash every file.

    Args:
        path: A folder (flat, or one folder a class), a folder with a `data.yaml`, or such a file.
        classes: Class names in the order of their indices, where the dataset itself does not give them.
        task: What is to be learnt; by default inferred from `data.yaml` and the labels.
        split: How images are divided that come without a given split.
        cache: The stat cache's file, outside the dataset; None reads every file.
        check: Whether to look into the files. Without it names, classes and splits are still checked.

    Raises:
        DatasetError: With every fault found.
    """
    findings = Findings()
    listing = list_dataset(Path(path), task, tuple(classes), split, findings)
    shape = listing.keypoint_shape
    named = _classes(listing, tuple(classes), findings)
    pairs = pair(listing, split, findings)
    complete = not findings.failed
    # Task and classes follow from the labels where neither the caller nor the dataset gives them.
    look = check or (listing.layout is not Layout.FOLDERS and (task is None or not named))
    inventory = take_inventory(
        listing.root,
        pairs.names,
        inspector=_Inspector(shape, images=check, labels=look, report=check),
        context=context_of(CHECK_VERSION, shape),
        cache=cache,
        findings=findings,
        given=listing.labels,
    )
    samples = pairs.samples(inventory, listing, named)
    found = consistency.ConsistencyCheck(listing, samples, shape, findings)
    found.names_and_splits(split, pairs.orphans, complete=complete)
    if check:
        found.duplicates()
        found.sizes()
    kinds = LabelKinds(listing, samples, shape, findings)
    settled = kinds.task(task or listing.task)
    if look:
        named = kinds.classes(named, settled, complete=complete)
        kinds.line_ends()
    elif not named:
        findings.append(error("", "no-classes", "the classes have no names; give them"))
    for code, message in _MERGED.items():
        findings.merge(code, message)
    if findings.failed:
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
        warnings=findings.closed(),
        left_out=tuple(listing.census.lines()),
        labels=listing.labels,
        cache=cache,
    )


def _classes(listing: DatasetFiles, given: tuple[str, ...], findings: Findings) -> tuple[str, ...]:
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
    """Looks into a file while it is open for hashing; facts are (width, height, 0), or those of a label, packed."""

    def __init__(self, shape: tuple[int, int] | None, *, images: bool, labels: bool, report: bool) -> None:
        self._shape = shape
        self._images = images
        self._labels = labels
        self._report = report
        self._density = Density()

    def wants(self, name: str) -> bool:
        return self._images if is_image(name) else self._labels

    def refuses(self, name: str, size: int) -> list[Finding]:
        limit, what = (MAX_IMAGE, "an image") if is_image(name) else (MAX_BYTES, "a label")
        if size <= limit:
            return []
        message = (
            f"{size / 2**20:.0f} MiB is too large for {what} (limit {limit >> 20} MiB); shrink or remove it"
        )
        return [error(name, "huge-file", message)]

    def inspect(self, name: str, read: Read, size: int) -> tuple[Facts, list[Finding], bool]:
        facts, findings, clean = (self._image if is_image(name) else self._label)(name, read, size)
        return facts, findings if self._report else [], clean and not findings

    def _image(self, name: str, read: Read, size: int) -> tuple[Facts, list[Finding], bool]:
        try:
            facts = check_image(read, size, self._density)
        except ImageError as fault:
            return (0, 0, 0), [error(name, fault.code, str(fault))], False
        findings = []
        if not natural(facts, name):
            message = f"the content is {facts.format}, not what the extension says; rename it"
            findings.append(warning(name, "wrong-extension", message))
        # A dense picture is looked at each time, so that another look does not have more room than the first.
        return (facts.width, facts.height, 0), findings, not self._density.is_dense(facts, size)

    def _label(self, name: str, read: Read, size: int) -> tuple[Facts, list[Finding], bool]:
        facts, findings = check_label(name, read(0, size), keypoint_shape=self._shape)
        return facts.packed(), findings, True

    def facts_of(self, label: bytes) -> Facts:
        return facts_of_rows(label).packed()
