"""Labels of other formats, turned into YOLO's rows, and judged as those are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gpu_offload.dataset.census import Reason
from gpu_offload.dataset.finding import DatasetError, Finding, Findings, error, some, warning
from gpu_offload.dataset.geometry import is_box, is_inside
from gpu_offload.dataset.image_finder import ImageFinder
from gpu_offload.dataset.label import MAX_ROWS, too_many_rows
from gpu_offload.dataset.label_row import judge_row
from gpu_offload.dataset.layout import DatasetFiles, Layout, is_image, label_name
from gpu_offload.dataset.paths import Names
from gpu_offload.dataset.split import Split, SplitRule, assign
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.walk import Found

MAX_FAULTS: Final = 2_000
"""Faults after which the rest of the annotations is not read."""
MAX_OBJECTS: Final = 1_000_000
"""Objects of one dataset (COCO 2017 has 896,000); their rows must fit into memory."""
MAX_COORDINATES: Final = 20_000_000
"""Coordinates of all polygons of one dataset."""

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
    findings: Findings = field(init=False)
    finder: ImageFinder = field(init=False)
    boxes: dict[str, bytearray] = field(default_factory=dict)
    polygons: dict[str, bytearray] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    objects: int = 0
    coordinates: int = 0
    faults: int = 0
    per_image: Counter[str] = field(default_factory=Counter)
    """Objects of each image."""
    outlined: int = 0
    """Objects with a polygon that is more than their box."""
    no_polygon: Location | None = None
    """The first object that has no polygon."""

    def __post_init__(self) -> None:
        self.findings, self.finder = self.folder.found.findings, ImageFinder(self.folder.names)

    def add_image(self, name: str, size: tuple[int, int] | None = None) -> None:
        """Note an image that is described, if only as one without objects."""
        self.boxes.setdefault(name, bytearray())
        if size is not None:
            self.sizes[name] = size

    def add(
        self, place: Location, image: str, index: int, box: Sequence[float], polygon: Sequence[float] | None
    ) -> None:
        """Add an object: x-centre, y-centre, width and height, and perhaps the points around it, as fractions."""
        self.count(place, polygon)
        self.per_image[image] += 1
        if self.per_image[image] > MAX_ROWS:
            if self.per_image[image] == MAX_ROWS + 1:
                self.findings.append(too_many_rows(place.path, place.line))
            return
        # Both forms are kept until the last object is read: one without a polygon makes the dataset one of boxes.
        rows = [(float(index), *box)] if polygon is None else [(float(index), *box), (float(index), *polygon)]
        faults: list[Finding] = []
        for row in [] if polygon is None and is_inside(box) else rows:
            faults += judge_row(place.path, place.line or 0, row, None)
        for fault in faults:
            make = error if fault.severity == "error" else warning
            message = _OUTSIDE if fault.code == "out-of-range" else fault.message
            self.findings.append(make(place.path, fault.code, place.says(message), place.line))
            if fault.severity == "error":
                self._count_fault(place)
        self.boxes.setdefault(image, bytearray()).extend(_row(rows[0]))
        if polygon is None:
            self.no_polygon = self.no_polygon or place
        else:
            self.polygons.setdefault(image, bytearray()).extend(_row(rows[1]))
            self.outlined += not is_box(box, polygon)

    def count(self, place: Location, polygon: Sequence[float] | None) -> None:
        """Count an object. Raises DatasetError where there are more than fit into memory."""
        self.objects += 1
        self.coordinates += len(polygon or ())
        for number, limit, what in (
            (self.objects, MAX_OBJECTS, "objects"),
            (self.coordinates, MAX_COORDINATES, "coordinates of polygons"),
        ):
            if number > limit:
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

    def _labels(self, task: Task | None) -> tuple[dict[str, bytes], Task]:
        """Return the labels by the path that they would have, and the task that they are for."""
        chosen = task or (Task.SEGMENT if self.outlined and self.no_polygon is None else Task.DETECT)
        if chosen is Task.SEGMENT and self.no_polygon is not None:
            message = "has no polygon, and segmentation learns from polygons; draw it"
            self.fail(self.no_polygon, message, "wrong-task")
        rows = self.polygons if chosen is Task.SEGMENT else self.boxes
        if chosen is not Task.SEGMENT:
            self.polygons = {}
        labels: dict[str, bytes] = {}
        for image in self.boxes:
            name = label_name(image)
            if name in labels:
                message = f"differs from another image only in its extension, and both would share {name}; rename one"
                self.findings.append(error(image, "shared-label", message))
            labels[name] = bytes(rows.get(image, b""))
            if image in rows:
                rows[image] = bytearray()  # the rows would be in memory twice
        return labels, chosen

    def finished(
        self, layout: Layout, classes: tuple[str, ...], splits: dict[str, set[Split]], task: Task | None
    ) -> DatasetFiles:
        """Return the listing once all annotations were read. `splits` are the given ones; empty where none are given."""
        if task not in (None, Task.DETECT, Task.SEGMENT):
            message = f"{layout.upper()} annotations are read for detection and segmentation, not for {task}"
            raise DatasetError([*self.findings, error("", "wrong-task", message)])
        labels, settled = self._labels(task)
        if not any(labels.values()) and self.boxes and not self.findings.failed:
            message = "the annotation files describe no object; annotate the images"
            self.findings.append(error("", "no-labels", message))
        self._count_the_rest()
        rule = self.folder.rule
        return DatasetFiles(
            self.folder.root,
            layout,
            Names(sorted({*self.boxes, *labels})),
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
        undescribed = [name for name in self.folder.names if name not in self.boxes]
        for name in undescribed:
            self.folder.found.census.count(Reason.UNNAMED if is_image(name) else Reason.OTHER, name)
        left = [name for name in undescribed if is_image(name)]
        if left and self.boxes:
            message = (
                f"{len(left)} pictures are in no annotation file ({some(left)}) and are not trained on; add them to "
                "one, without objects if they show none"
            )
            self.findings.append(warning("", "undescribed-image", message))


def _row(values: Sequence[float]) -> bytes:
    # Six digits are a hundredth of a pixel in an image of 10,000 px; the fingerprint follows from these bytes.
    return (b"%d" + b" %.6g" * (len(values) - 1) + b"\n") % tuple(values)
