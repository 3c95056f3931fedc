"""Datasets with the file that Ultralytics' platform exports: a line about the dataset, then a line for each image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from gpu_offload.dataset.absent_images import AbsentImages
from gpu_offload.dataset.class_names import MAX_CLASSES, class_name_problems
from gpu_offload.dataset.conversion import AnnotatedFolder, Conversion, Location
from gpu_offload.dataset.finding import DatasetError, FormError, error
from gpu_offload.dataset.geometry import box_of, finite
from gpu_offload.dataset.image_finder import AmbiguousImageError
from gpu_offload.dataset.json_stream import decode, is_committed, lines
from gpu_offload.dataset.layout import DatasetFiles, Layout, split_named
from gpu_offload.dataset.split import SPLITS, Split
from gpu_offload.dataset.task import Task

_TASKS: Final = {"detect": Task.DETECT, "segment": Task.SEGMENT}


def list_ndjson(folder: AnnotatedFolder, files: Sequence[str]) -> DatasetFiles:
    """List the images that an NDJSON file describes, and turn their annotations into labels.

    The images must be there, below `images/SPLIT/`, `SPLIT/`, `images/` or beside the file: nothing is downloaded.

    Raises:
        DatasetError: If there are several such files, or the first line is not about a dataset of boxes or polygons.
    """
    if len(files) > 1:
        message = f"{', '.join(sorted(files))} each describe a dataset; keep one, or name its folder"
        raise DatasetError([*folder.found.findings, error("", "doubtful-layout", message)])
    (file,) = files
    conversion = Conversion(folder, is_limited=is_committed(folder.root / file))
    try:
        text = lines(folder.root / file)
        classes, said = _head(decode(next(text), 1))
        task = folder.task or said
        reading = _NdjsonFile(file, conversion, len(classes), task)
        for number, line in enumerate(text, 2):
            if line.strip():
                reading.add(line, number)
            if reading.absent.is_full:
                break
    except FormError as fault:
        raise DatasetError(
            [*conversion.findings, error(file, "malformed-annotations", str(fault), fault.line)]
        ) from None
    reading.absent.report(
        file, conversion, "nothing is downloaded: fetch them from their url into images/SPLIT/"
    )
    return conversion.finished(Layout.NDJSON, classes, reading.splits, task)


def _head(head: Any) -> tuple[tuple[str, ...], Task]:
    """Return the classes and the task that the first line gives."""
    if not isinstance(head, dict) or head.get("type") != "dataset":
        raise FormError('the first line must be about the dataset: {"type": "dataset", ...}', 1)
    said = head.get("task", "detect")
    if said not in _TASKS:
        raise FormError(f"is for {str(said)[:40]!r}, and NDJSON is read for detect and segment", 1)
    names = head.get("class_names")
    given = names if isinstance(names, dict) else {}
    wanted = [str(index) for index in range(len(given))]
    if len(given) > MAX_CLASSES:
        raise FormError(f"class_names has more than {MAX_CLASSES} classes; remove those that do not occur", 1)
    if not given or set(given) != set(wanted) or not all(isinstance(name, str) for name in given.values()):
        raise FormError("class_names must number the classes from 0 without a gap; correct it", 1)
    classes = tuple(given[index] for index in wanted)
    problems = class_name_problems(classes)
    if problems:
        raise FormError("; ".join(problems), 1)
    return classes, _TASKS[said]


@dataclass
class _NdjsonFile:
    """Goes through the lines about images."""

    file: str
    conversion: Conversion
    classes: int
    task: Task
    splits: dict[str, set[Split]] = field(default_factory=dict)
    absent: AbsentImages = field(default_factory=AbsentImages)

    def add(self, text: str, line: int) -> None:
        try:
            record = decode(text, line)
            written, split = self._checked(record, line)
            folders = (f"images/{split}", split, "images", "")
            base = str(PurePosixPath(self.file).parent)
            below = [str(PurePosixPath(base) / folder) if base != "." else folder for folder in folders]
            image = self.conversion.finder.find(
                written, below, lambda name: int(split_named(name.split("/")[0]) != split)
            )
        except (FormError, AmbiguousImageError) as fault:
            self.conversion.fail(Location(self.file, line), str(fault))
            return
        if image is None:
            self.absent.add(written, line)
            return
        self.conversion.add_image(image)
        self.splits.setdefault(image, set()).add(split)
        annotations = record.get("annotations") or {}
        if not isinstance(annotations, dict):
            self.conversion.fail(Location(self.file, line), "annotations must be an object; correct it")
            return
        # A line has boxes, segments or both. Detection takes a segment's box; segmentation refuses a box alone.
        keys = ("segments", "boxes") if self.task is Task.SEGMENT else ("boxes", "segments")
        key = next((key for key in keys if annotations.get(key)), keys[0])
        objects = annotations.get(key) or []
        if not isinstance(objects, list):
            self.conversion.fail(Location(self.file, line), f"{key} must be a list; correct it")
            return
        for number, values in enumerate(objects, 1):
            self._object(Location(self.file, line, f"{key} {number}"), image, values)

    def _checked(self, record: Any, line: int) -> tuple[str, Split]:
        """Return file and split of a line about an image."""
        if not isinstance(record, dict) or not isinstance(record.get("file"), str) or not record["file"]:
            raise FormError("must be an object with file, split and annotations; correct it", line)
        split = record.get("split")
        if split not in SPLITS:
            raise FormError(f"split is {str(split)[:40]!r}, not train, val or test; correct it", line)
        return record["file"], split

    def _object(self, place: Location, image: str, values: Any) -> None:
        numbers = finite(values)
        if numbers is None or len(numbers) < 5:
            self.conversion.fail(place, "must be a list of a class and coordinates; correct it")
        elif not numbers[0].is_integer() or not 0 <= numbers[0] < self.classes:
            message = f"class {numbers[0]:g} is unknown, class_names has 0 to {self.classes - 1}; correct it"
            self.conversion.fail(place, message, "unknown-class")
        elif len(numbers) == 5:
            self.conversion.add(place, image, int(numbers[0]), numbers[1:], None)
        elif len(numbers) < 7 or len(numbers) % 2 == 0:
            message = (
                f"{len(numbers)} numbers are neither a box (5) nor a polygon (7 or more, odd); correct it"
            )
            self.conversion.fail(place, message)
        else:
            self.conversion.add(place, image, int(numbers[0]), box_of(numbers[1:]), numbers[1:])
