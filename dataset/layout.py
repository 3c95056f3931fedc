"""How a dataset is laid out, and what follows: its files, their splits, and where the label of an image is."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

from gpu_offload.dataset.census import Census
from gpu_offload.dataset.image import SUFFIXES, suffix
from gpu_offload.dataset.paths import Names, portable
from gpu_offload.dataset.split import Split
from gpu_offload.dataset.task import Task

_SPLIT_NAME: Final = re.compile(
    r"(?P<train>train(ing)?)|(?P<val>val(id(ation)?)?|dev|eval(uation)?)|(?P<test>test(ing)?|holdout)"
)
_MASKS: Final = re.compile(
    r"(.*/)?((ground[-_ ]?truth|gt|segmentation)?[-_ ]?masks?|segmentation(class|object))(/.*)?",
    re.IGNORECASE,
)
_SPLIT_DECORATION: Final = re.compile(r"[-_ ]?(set|data|split|images|imgs|\d{4})$")


class Layout(StrEnum):
    """The forms in which datasets come."""

    FLAT = "flat"
    """A folder of images with their labels beside them, or `images/` and `labels/`; split by name."""
    YAML = "yaml"
    """What a `data.yaml`, or the `obj.data` of Darknet and CVAT, describes."""
    FOLDERS = "folders"
    """Classification: one folder a class, perhaps below `train/`, `val/`, `test/`."""
    COCO = "coco"
    """Images and COCO's JSON files."""
    VOC = "voc"
    """Images and an XML file for each, as Pascal VOC has them."""
    NDJSON = "ndjson"
    """Images and the file that Ultralytics' platform exports, one JSON object a line."""


@dataclass(frozen=True, slots=True)
class DatasetFiles:
    """The files of a dataset, before any is opened. `names` are images and labels, relative to `root`."""

    root: Path
    layout: Layout
    names: Names
    splits_of: Callable[[str], set[Split]]
    """The splits that an image belongs to; none where it is not used."""
    classes: tuple[str, ...] = ()
    keypoint_shape: tuple[int, int] | None = None
    flip_idx: tuple[int, ...] | None = None
    class_of: Callable[[str], str] | None = None
    census: Census = field(default_factory=Census)
    labels: Mapping[str, bytes] = field(default_factory=dict)
    """Labels that were converted from another format, by the path they would have beside or below `labels/`."""
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Width and height that another format gives for an image."""
    task: Task | None = None
    """What the dataset says that it is for."""
    given_split: bool = False
    """Whether the dataset itself says which images are for training."""
    makes_val: bool = False
    """Whether a part of the training images is held back for validation, because the dataset has none for it."""
    odd_texts: Sequence[str] = ()
    """Texts that Ultralytics does not find because their extension is not in lower case."""


def is_image(name: str) -> bool:
    """Whether a path's extension is an image's."""
    return suffix(name) in SUFFIXES


def is_mask(name: str) -> bool:
    """Whether an image is in a folder of masks, which have the names of the pictures that they are for."""
    return _of_masks(name.rpartition("/")[0]) and is_image(name)


@lru_cache(maxsize=16)
def _of_masks(folder: str) -> bool:
    return _MASKS.fullmatch(folder) is not None


def label_name(image: str) -> str:
    """Return where Ultralytics looks for an image's label: the last `images/` becomes `labels/`, else beside it."""
    # As `img2label_paths` of Ultralytics, which looks for /images/ in absolute paths.
    stem = image.rpartition(".")[0]
    if image.startswith("images/") and "/images/" not in image:
        return f"labels/{stem[7:]}.txt"
    before, found, after = stem.rpartition("/images/")
    return f"{before}/labels/{after}.txt" if found else f"{stem}.txt"


def split_named(folder: str) -> Split | None:
    """Return the split that a folder of this name holds by custom: `Train`, `valid`, `testing`, `val2017`, `dev`."""
    name = folder.lower()
    match = _SPLIT_NAME.fullmatch(_SPLIT_DECORATION.sub("", name)) or _SPLIT_NAME.fullmatch(name)
    if match is None:
        return None
    return "train" if match["train"] else "val" if match["val"] else "test"


def image_path(origin: str, split: Split, class_index: int | None, classes: tuple[str, ...]) -> str:
    """Return the path in the tree of an image, whose path in the dataset is `origin`.

    A folder called `images` in the dataset is called `images_` here: Ultralytics finds a label by the last folder
    of that name, which must be the tree's own.

    Raises:
        ValueError, IndexError: A class is given, and `origin` is not in its folder.
    """
    parts = portable(origin).split("/")
    if class_index is not None:
        folder = portable(classes[class_index])
        below_split = len(parts) > 2 and split_named(parts[0]) is not None and parts[1] == folder
        if not below_split and parts[0] != folder:
            raise ValueError(origin)
        return "/".join([split, folder, *parts[2 if below_split else 1 :]])
    escaped = ["images_" if part == "images" else part for part in parts[:-1]]
    return "/".join(["images", split, *escaped, parts[-1]])
