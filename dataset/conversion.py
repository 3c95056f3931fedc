"""Labels of other formats, turned into YOLO's rows, and judged as those are."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gpu_offload.dataset.census import Reason
from gpu_offload.dataset.finding import (
    DatasetError,
    Finding,
    Findings,
    error,
    some,
    warning,
)
from gpu_offload.dataset.geometry import is_box, is_inside
from gpu_offload.dataset.image_finder import ImageFinder
from gpu_offload.dataset.label import MAX_ROWS, too_many_rows
from gpu_offload.dataset.label_row import judge_row
from gpu_offload.dataset.label_rows import LabelRows, Labels
from gpu_offload.dataset.layout import DatasetFiles, Layout, is_image, label_name
from gpu_offload.dataset.paths import Names
from gpu_offload.dataset.split import Split, SplitRule, assign
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.walk import Found

MAX_FAULTS: Final = 2_000
"""Faults after which the rest of the annotations is not read."""
MAX_OBJECTS: Final = 2_000_000
"""Objects of one dataset, where its annotations can come from a commit (`json_stream.COMMITTED`)."""
MAX_COORDINATES: Final = 40_000_000
"""Coordinates of all polygons of such a dataset."""

_OUTSIDE: Final = "has a coordinate outside of the image, or a negative width or height; correct it"


@dataclass(frozen=True, slots=True)
class Location:
    """Where an object is described. `what` names it, as `annotation 17`."""

    path: str
    line: int | None
    what: str = ""

    def says(self, message: str) -> str:
        """Return a message with the object's name before it."""
        return f"{self.what}: {message}" if self.what else message


@dataclass(frozen=True, slots=True)
class AnnotatedFolder:
    """A folder of images whose labels are in files of another format, and what the settings say about it."""

    root: Path
    names: Names
    """Images and texts, relative to `root`."""
    task: Task | None
    classes: tuple[str, ...]
    rule: SplitRule
    found: Found


@dataclass
class Conversion:
    """Collects the objects of each image, as boxes and as polygons, until it is known which are wanted."""

    folder: AnnotatedFolder
    outside: str = _OUTSIDE
    """What is said of coordinates outside of the image."""
    is_limited: bool = True
    """Whether more objects than MAX_OBJECTS are refused."""
    findings: Findings = field(init=False)
    finder: ImageFinder = field(init=False)
    boxes: LabelRows = field(default_factory=LabelRows)
    polygons: LabelRows = field(default_factory=LabelRows)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    objects: int = 0
    coordinates: int = 0
    faults: int = 0
    images: dict[str, int] = field(default_factory=dict)
    """Objects of each image that is described."""
    outlined: int = 0
    """Objects with a polygon that is more than their box."""
    no_polygon: Location | None = None
    """The first object that has no polygon."""

    def __post_init__(self) -> None:
        self.findings, self.finder = self.folder.found.findings, ImageFinder(self.folder.names)

    def add_image(self, name: str, size: tuple[int, int] | None = None) -> None:
        """Note an image that is described, if only as one without objects."""
        self.images.setdefault(name, 0)
        if size is not None:
            self.sizes[name] = size

    def add(
        self, place: Location, image: str, index: int, box: Sequence[float], polygon: Sequence[float] | None
    ) -> None:
        """Add an object: x-centre, y-centre, width and height, and perhaps the points around it, as fractions."""
        self.count(place, polygon)
        self.images[image] = number = self.images.get(image, 0) + 1
        if number > MAX_ROWS:
            if number == MAX_ROWS + 1:
                self.findings.append(too_many_rows(place.path, place.line))
            return
        # Both forms are kept until the last object is read: one without a polygon makes the dataset one of boxes.
        faults: list[Finding] = []
        if not is_inside(box):
            faults += judge_row(place.path, place.line or 0, (float(index), *box), None)
        if polygon is not None:
            faults += judge_row(place.path, place.line or 0, (float(index), *polygon), None)
        for fault in faults:
            make = error if fault.severity == "error" else warning
            message = self.outside if fault.code == "out-of-range" else fault.message
            self.findings.append(make(place.path, fault.code, place.says(message), place.line))
            if fault.severity == "error":
                self._count_fault(place)
        self.boxes.add(image, _row(index, box))
        if polygon is None:
            self.no_polygon = self.no_polygon or place
        else:
            self.polygons.add(image, _row(index, polygon))
            self.outlined += not is_box(box, polygon)

    def count(self, place: Location, polygon: Sequence[float] | None) -> None:
        """Count an object. Raises DatasetError where there are more than a commit may hold."""
        self.objects += 1
        self.coordinates += len(polygon or ())
        for number, limit, what in (
            (self.objects, MAX_OBJECTS, "objects"),
            (self.coordinates, MAX_COORDINATES, "coordinates of polygons"),
        ):
            if number > limit and self.is_limited:
                message = f"the dataset holds more than {limit} {what}; split it"
                raise DatasetError([*self.findings, error(place.path, "huge-file", message, place.line)])

    def fail(self, place: Location, message: str, code: str = "malformed-annotations") -> None:
        """Report a fault of a description. Raises DatasetError when there are too many."""
        self.findings.append(error(place.path, code, place.says(message), place.line))
        self._count_fault(place)

    def _count_fault(self, place: Location) -> None:
        self.faults += 1
        if self.faults >= MAX_FAULTS:
            message = f"and perhaps more: after {MAX_FAULTS} faults the rest is not read"
            raise DatasetError([*self.findings, error(place.path, "faulty-annotations", message, place.line)])

    def _labels(self, task: Task | None) -> tuple[Labels, Task]:
        """Return the labels by the path that they would have, and the task that they are for."""
        chosen = task or (Task.SEGMENT if self.outlined and self.no_polygon is None else Task.DETECT)
        if chosen is Task.SEGMENT and self.no_polygon is not None:
            message = "has no polygon, and segmentation learns from polygons; draw it"
            self.fail(self.no_polygon, message, "wrong-task")
        if task is None and self.outlined and (place := self.no_polygon) is not None:
            message = (
                f"has no polygon, and {self.outlined} objects have one; detection is learnt, with the boxes; draw it to "
                'learn outlines, or set dataset.task = "detect" to silence this'
            )
            self.findings.append(warning(place.path, "mixed-labels", place.says(message), place.line))
        rows = self.polygons if chosen is Task.SEGMENT else self.boxes
        rows.finish()
        images: dict[str, str] = {}
        for image in self.images:
            name = label_name(image)
            if name in images:
                message = f"differs from another image only in its extension, and both would share {name}; rename one"
                self.findings.append(error(image, "shared-label", message))
            images[name] = image
        return Labels(rows, images), chosen

    def finished(
        self, layout: Layout, classes: tuple[str, ...], splits: dict[str, set[Split]], task: Task | None
    ) -> DatasetFiles:
        """Return the listing once all annotations were read. `splits` are the given ones; empty where none are given."""
        if task not in (None, Task.DETECT, Task.SEGMENT):
            message = f"{layout.upper()} annotations are read for detection and segmentation, not for {task}"
            raise DatasetError([*self.findings, error("", "wrong-task", message)])
        labels, settled = self._labels(task)
        if not any(self.images.values()) and self.images and not self.findings.failed:
            message = "the annotation files describe no object; annotate the images"
            self.findings.append(error("", "no-labels", message))
        self._count_the_rest()
        used = [image for image in self.images if not splits or image in splits]
        for image in sorted(self.images.keys() - used):
            self.folder.found.census.count(Reason.UNNAMED, image)
        rule = self.folder.rule
        return DatasetFiles(
            self.folder.root,
            layout,
            Names(sorted({*used, *map(label_name, used)})),
            lambda name: splits.get(name, set()) if splits else {assign(name, rule)},
            classes,
            census=self.folder.found.census,
            labels=labels,
            sizes=self.sizes,
            task=settled,
            given_split=bool(splits),
            makes_val=bool(splits) and not any("val" in given for given in splits.values()),
        )

    def _count_the_rest(self) -> None:
        undescribed = [name for name in self.folder.names if name not in self.images]
        for name in undescribed:
            self.folder.found.census.count(Reason.UNNAMED if is_image(name) else Reason.OTHER, name)
        left = [name for name in undescribed if is_image(name)]
        if left and self.images and not self.findings.failed:
            message = (
                f"{len(left)} pictures are in no annotation file ({some(left)}) and are not trained on; add them to "
                "one, without objects if they show none"
            )
            self.findings.append(warning("", "undescribed-image", message))


def _row(index: int, values: Sequence[float]) -> bytes:
    # Six digits are a hundredth of a pixel in an image of 10,000 px; the fingerprint follows from these bytes.
    return b"%d" % index + (b" %.6g" * len(values) + b"\n") % tuple(values)
