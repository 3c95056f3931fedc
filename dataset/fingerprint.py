"""One sha256 for everything about a dataset that a training can notice.

The text that is hashed: a JSON line (format, task, class names, keypoint shape, flip order, split rule), then one
line for each image in order of its path, of five fields parted by NUL: split, image path, the image's sha256, label
path, the label's sha256. Paths are relative to the root, with `/`, in Unicode form NFC, because a file system may
compose or decompose names behind git's back.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from gpu_offload.dataset.paths import portable
from gpu_offload.dataset.samples import Sample, Samples
from gpu_offload.dataset.split import SPLITS, Split, SplitRule
from gpu_offload.dataset.task import Task

if TYPE_CHECKING:
    from gpu_offload.dataset.snapshot import Snapshot

FORMAT = 1

Line = tuple[Split, str, str, str, str]
"""Split, image path, its sha256, label path, its sha256; empty text for no label."""


def fingerprint(snapshot: "Snapshot") -> str:
    """Return the fingerprint, 64 hexadecimal digits.

    It is the same on every machine, in every order, at every time and place; any byte, name, class or split that
    differs changes it; hidden files, `*.cache` and files that belong to no sample do not.
    """
    return fingerprint_of(
        task=snapshot.task,
        classes=snapshot.classes,
        keypoint_shape=snapshot.keypoint_shape,
        flip_idx=snapshot.flip_idx,
        split_rule=snapshot.split_rule,
        lines=_lines(snapshot.samples),
    )


def fingerprint_of(
    *,
    task: Task,
    classes: tuple[str, ...],
    keypoint_shape: tuple[int, int] | None,
    flip_idx: tuple[int, ...] | None,
    split_rule: SplitRule,
    lines: Iterable[Line],
) -> str:
    """Return the fingerprint of a dataset given by its parts; `lines` in their `order`."""
    header = {
        "format": FORMAT,
        "task": task.value,
        "classes": classes,
        "keypoint_shape": keypoint_shape,
        "flip_idx": flip_idx,
        "split": split_rule.description(),
    }
    digest = hashlib.sha256(json.dumps(header, sort_keys=True, ensure_ascii=True).encode() + b"\n")
    batch: list[str] = []
    for line in lines:
        batch.append("\0".join(line))
        if len(batch) == 1024:
            digest.update(("\n".join(batch) + "\n").encode())
            batch.clear()
    digest.update("".join(line + "\n" for line in batch).encode())
    return digest.hexdigest()


def line_of(sample: Sample) -> Line:
    """Return what of a sample counts."""
    label = portable(sample.label) if sample.label is not None else ""
    return (sample.split, portable(sample.image), sample.image_sha256, label, sample.label_sha256 or "")


def order(line: Line) -> tuple[str, int]:
    """Return what lines are sorted by: the image's path, then the split in the order of `SPLITS`."""
    return line[1], SPLITS.index(line[0])


def _lines(samples: Iterable[Sample]) -> Iterator[Line]:
    # In Unicode form NFC, names can sort otherwise than as they are written.
    if isinstance(samples, Samples) and samples.inventory.names.ascii:
        return _packed_lines(samples)
    return iter(sorted(map(line_of, samples), key=order))


def _packed_lines(samples: Samples) -> Iterator[Line]:
    inventory = samples.inventory
    names = inventory.names
    for image, label, split in samples.columns():
        yield (
            split,
            names[image],
            inventory.sha_hex(image),
            names[label] if label >= 0 else "",
            inventory.sha_hex(label) if label >= 0 else "",
        )
