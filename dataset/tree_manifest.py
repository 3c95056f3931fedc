"""The description of a training tree, `dataset.json`: what is in it, where, and with which content.

It names every file with size and sha256. The fingerprint follows from it, and each path in the tree from the path in the
dataset: both are checked whenever it is read.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gpu_offload.dataset.finding import DatasetError, error
from gpu_offload.dataset.fingerprint import Line, fingerprint_of, order
from gpu_offload.dataset.layout import image_path, label_name
from gpu_offload.dataset.paths import portable
from gpu_offload.dataset.split import SPLITS, Split, SplitRule
from gpu_offload.dataset.task import Task

DESCRIPTION: Final = "dataset.json"
FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One file of a tree: its path in the tree, its path in the dataset, its content."""

    path: str
    origin: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class TreeSample:
    """One image of a tree, and its label where it has one."""

    split: Split
    image: TreeFile
    label: TreeFile | None
    width: int
    height: int
    class_index: int | None


@dataclass(frozen=True, slots=True)
class TreeInfo:
    """The content of `dataset.json`. `directory` is the tree's folder; samples are sorted as in the snapshot."""

    directory: Path
    task: Task
    classes: tuple[str, ...]
    keypoint_shape: tuple[int, int] | None
    flip_idx: tuple[int, ...] | None
    split_rule: SplitRule
    fingerprint: str
    samples: tuple[TreeSample, ...]

    @property
    def images(self) -> dict[str, int]:
        """Number of images by split."""
        return {split: sum(sample.split == split for sample in self.samples) for split in SPLITS}

    @property
    def bytes(self) -> int:
        """Bytes of all images and labels."""
        return sum(file.size for file in self.files())

    def files(self) -> Iterator[TreeFile]:
        """Yield every file but `dataset.json`, each path once."""
        seen: set[str] = set()
        for sample in self.samples:
            for file in (sample.image, sample.label):
                if file is not None and file.path not in seen:
                    seen.add(file.path)
                    yield file

    def folders(self) -> list[str]:
        """Return the folders that must be there even if they are empty, sorted.

        A class folder is there in every split: torchvision numbers the classes of each split by its own folders.
        """
        splits: list[str] = [split for split in SPLITS if split != "test" or self.images["test"]]
        if self.task is Task.CLASSIFY:
            return sorted(f"{split}/{portable(name)}" for split in splits for name in self.classes)
        return sorted(f"{kind}/{split}" for split in splits for kind in ("images", "labels"))


def read_tree(directory: Path) -> TreeInfo:
    """Read the description of a tree that `materialise` or `unpack` made.

    Raises:
        DatasetError: If there is none, or it is not what such a description must be.
    """
    try:
        return decode((directory / DESCRIPTION).read_bytes(), directory)
    except OSError as fault:
        message = f"there is no training tree at {directory} ({fault.strerror})"
        raise DatasetError([error("", "not-a-tree", message)]) from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        message = f"{directory / DESCRIPTION} is damaged; remove the tree, it is made again"
        raise DatasetError([error("", "not-a-tree", message)]) from None


def encode(info: TreeInfo) -> bytes:
    """Return `dataset.json`; the same bytes for the same dataset."""
    head: dict[str, Any] = {
        "format": FORMAT,
        "fingerprint": info.fingerprint,
        "task": info.task.value,
        "classes": info.classes,
        "keypoint_shape": info.keypoint_shape,
        "flip_idx": info.flip_idx,
        "split_rule": info.split_rule.description(),
        "images": info.images,
        "bytes": info.bytes,
    }
    lines = [
        json.dumps(
            {
                "split": sample.split,
                "image": _encode_file(sample.image),
                "label": None if sample.label is None else _encode_file(sample.label),
                "width": sample.width,
                "height": sample.height,
                "class_index": sample.class_index,
            },
            ensure_ascii=False,
        )
        for sample in info.samples
    ]
    # One sample a line, for people who read or compare it.
    text = json.dumps(head, ensure_ascii=False)[:-1] + ', "samples": [\n' + ",\n".join(lines) + "\n]}\n"
    return text.encode()


def _encode_file(file: TreeFile) -> list[str | int]:
    return [file.path, portable(file.origin), file.sha256, file.size]


def decode(data: bytes, directory: Path) -> TreeInfo:
    """Read `dataset.json`, and see that every value is of its kind, and that fingerprint and paths follow from the rest.

    Raises:
        ValueError, TypeError, LookupError, AttributeError, RecursionError: If it is no such description.
    """
    head = json.loads(data)
    if head["format"] != FORMAT:
        raise ValueError("format")
    shape, flip = head["keypoint_shape"], head["flip_idx"]
    info = TreeInfo(
        directory=directory,
        task=Task(head["task"]),
        classes=tuple(_text(name) for name in head["classes"]),
        keypoint_shape=None if shape is None else (int(shape[0]), int(shape[1])),
        flip_idx=None if flip is None else tuple(map(int, flip)),
        split_rule=SplitRule.of(head["split_rule"]),
        fingerprint=_text(head["fingerprint"]),
        samples=tuple(map(_decode_sample, head["samples"])),
    )
    # The fingerprint vouches for content and names; paths in the tree and sizes it does not cover.
    if refingerprint(info) != info.fingerprint:
        raise ValueError("fingerprint")
    for sample in info.samples:
        _check_path(sample, info)
    return info


def refingerprint(info: TreeInfo) -> str:
    """Compute the fingerprint from a tree's own description."""
    return fingerprint_of(
        task=info.task,
        classes=info.classes,
        keypoint_shape=info.keypoint_shape,
        flip_idx=info.flip_idx,
        split_rule=info.split_rule,
        lines=sorted(map(_line_of, info.samples), key=order),
    )


def _check_path(sample: TreeSample, info: TreeInfo) -> None:
    """See that a sample is where `materialise` puts it: a label elsewhere would be another image's."""
    if (sample.class_index is not None) != (info.task is Task.CLASSIFY) or (sample.class_index or 0) < 0:
        raise ValueError("class")
    image, label = sample.image, sample.label
    if image.path != image_path(image.origin, sample.split, sample.class_index, info.classes):
        raise ValueError(image.path)
    if label is not None and label.path != label_name(image.path):
        raise ValueError(label.path)


def _line_of(sample: TreeSample) -> Line:
    label = sample.label
    return (
        sample.split,
        portable(sample.image.origin),
        sample.image.sha256,
        "" if label is None else portable(label.origin),
        "" if label is None else label.sha256,
    )


def _decode_sample(value: Mapping[str, Any]) -> TreeSample:
    label, index = value["label"], value["class_index"]
    if value["split"] not in SPLITS:
        raise ValueError("split")
    return TreeSample(
        split=value["split"],
        image=_decode_file(value["image"]),
        label=None if label is None else _decode_file(label),
        width=int(value["width"]),
        height=int(value["height"]),
        class_index=None if index is None else int(index),
    )


def _decode_file(value: list[Any]) -> TreeFile:
    path, origin, sha256, size = value
    if not isinstance(size, int) or size < 0 or len(_text(sha256)) != 64:
        raise ValueError("file")
    if not safe_path(_text(path)):
        raise ValueError(path)
    return TreeFile(path, _text(origin), sha256, size)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def safe_path(path: str) -> bool:
    """Whether a path can only lead below where it starts, in the one form that names a file."""
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and not any(part in ("", ".", "..") for part in parts)
