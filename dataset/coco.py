"""Datasets with COCO's JSON files: `annotations/instances_train2017.json`, `train/_annotations.coco.json`, `labels.json`."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from gpu_offload.dataset.census import Reason
from gpu_offload.dataset.class_names import class_name_problems
from gpu_offload.dataset.coco_file import CocoFile
from gpu_offload.dataset.conversion import AnnotatedFolder, Conversion, Location
from gpu_offload.dataset.finding import DatasetError, error
from gpu_offload.dataset.json_stream import is_committed
from gpu_offload.dataset.layout import DatasetFiles, Layout, split_named
from gpu_offload.dataset.split import Split

_OUTSIDE: Final = (
    "has a coordinate outside of the image, or a negative width or height; bbox is [left, top, width, height] in "
    "pixels, correct it"
)
_ABOUT_IMAGES: Final = ("instances_",)
"""What COCO's own files are called that hold boxes and polygons; others hold captions or keypoints."""


def list_coco(folder: AnnotatedFolder, files: Sequence[str]) -> DatasetFiles:
    """List the images that JSON files describe, and turn their annotations into labels.

    A file whose name or folder is that of a split (`instances_val2017.json`, `valid/_annotations.coco.json`) gives
    its images' split; where none is, the images are split by their names. Classes are numbered in the order of the
    categories' ids. Regions marked as crowds are left out, as Ultralytics does.
    """
    # COCO's download also holds captions and keypoints of the same images: only one kind may count.
    chosen = [file for file in files if PurePosixPath(file).name.startswith(_ABOUT_IMAGES)] or list(files)
    for file in sorted(set(files) - set(chosen)):
        folder.found.census.count(Reason.UNNAMED, file)
    splits = {file: _split_of(file) for file in chosen}
    given = [file for file, split in splits.items() if split is not None]
    if given and len(given) < len(chosen):
        others = ", ".join(sorted(set(chosen) - set(given)))
        message = f"{', '.join(sorted(given))} are named like splits and {others} are not; keep only one kind"
        raise DatasetError([*folder.found.findings, error("", "doubtful-split", message)])
    conversion = Conversion(
        folder, _OUTSIDE, is_limited=all(is_committed(folder.root / file) for file in chosen)
    )
    readings = [CocoFile(file, splits[file], conversion) for file in sorted(chosen)]
    classes = _classes(readings, conversion)
    image_splits: dict[str, set[Split]] = {}
    if not classes and conversion.images and not conversion.findings.failed:
        conversion.fail(
            Location(readings[0].file, None),
            "holds COCO annotations and names no categories; export it with them",
            "no-classes",
        )
    for reading in readings if classes else ():
        reading.add_objects({number: index for index, number in enumerate(sorted(classes))}, folder.task)
        split = splits[reading.file]
        if split is not None:
            for image in reading.images:
                image_splits.setdefault(image, set()).add(split)
    if not conversion.images and not conversion.findings.failed:
        message = f"the COCO annotations ({', '.join(sorted(chosen))}) describe no image; export them with their images"
        conversion.findings.append(error("", "no-labels", message))
    ordered = tuple(classes[number] for number in sorted(classes))
    return conversion.finished(Layout.COCO, ordered, image_splits, folder.task)


def _split_of(file: str) -> Split | None:
    """Return the split that a file is named after, or the folder that it is in."""
    path = PurePosixPath(file)
    words = [word for word in re.split(r"[^A-Za-z0-9]+", path.stem) if word]
    splits = {split for word in words if (split := split_named(word)) is not None}
    if not splits and path.parent.name:
        splits = {split for split in [split_named(path.parent.name)] if split is not None}
    return splits.pop() if len(splits) == 1 else None


def _classes(readings: Sequence[CocoFile], conversion: Conversion) -> dict[int, str]:
    """Return the categories' names by id, which must be the same in each file."""
    first = readings[0]
    for reading in readings[1:]:
        if reading.categories != first.categories:
            message = f"names other categories, or other ids, than {first.file}; make them equal"
            conversion.fail(Location(reading.file, None), message, "class-mismatch")
    for problem in class_name_problems(first.categories.values()):
        conversion.fail(Location(first.file, None), problem, "class-name")
    return first.categories
