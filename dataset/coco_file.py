"""One of COCO's JSON files: its categories, images and objects."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from gpu_offload.dataset.absent_images import AbsentImages
from gpu_offload.dataset.census import Reason
from gpu_offload.dataset.class_names import MAX_CLASSES
from gpu_offload.dataset.conversion import Conversion, Location
from gpu_offload.dataset.finding import DatasetError, FormError, error, some
from gpu_offload.dataset.geometry import box_in, box_of, outline_in
from gpu_offload.dataset.image import read_size
from gpu_offload.dataset.image_finder import AmbiguousImageError
from gpu_offload.dataset.json_stream import JsonObject
from gpu_offload.dataset.layout import split_named
from gpu_offload.dataset.split import Split
from gpu_offload.dataset.task import Task


@dataclass
class CocoFile:
    """Goes through one JSON file."""

    file: str
    split: Split | None
    conversion: Conversion
    categories: dict[int, str] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    _by_id: dict[Any, tuple[str, int, int]] = field(default_factory=dict)
    _missing: set[Any] = field(default_factory=set)
    _absent: AbsentImages = field(default_factory=AbsentImages)
    _has_keypoints: bool = False
    _is_damaged: bool = False

    def __post_init__(self) -> None:
        try:
            for key, value, line in JsonObject(self.conversion.folder.root / self.file).elements():
                if key == "categories":
                    self._category(value, line)
                elif key == "images":
                    self._image(value, line)
                if self._absent.is_full:
                    self._is_damaged = True
                    break
        except FormError as fault:
            self._is_damaged = True
            self.conversion.fail(Location(self.file, fault.line), str(fault))
        packed = self.conversion.folder.found.census.examples.get(Reason.PACKED)
        remedy = f"unpack {some(sorted(packed))}" if packed else "restore them, or remove them from the file"
        self._absent.report(self.file, self.conversion, remedy)

    def _category(self, value: Any, line: int) -> None:
        number = value.get("id") if isinstance(value, dict) else None
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(number, int) or isinstance(number, bool) or not isinstance(name, str):
            self._fail(line, "", "a category needs a whole id and a name; correct it")
        elif number in self.categories:
            self._fail(line, f"category {number}", "the id is given twice; correct one")
        elif len(self.categories) == MAX_CLASSES:
            message = f"more than {MAX_CLASSES} categories are too many; remove those that do not occur"
            raise DatasetError([*self.conversion.findings, error(self.file, "no-classes", message, line)])
        else:
            self.categories[number] = name

    def _image(self, value: Any, line: int) -> None:
        number = value.get("id") if isinstance(value, dict) else None
        written = value.get("file_name") if isinstance(value, dict) else None
        if not isinstance(number, (int, str)) or not isinstance(written, str) or not written:
            self._fail(line, "", "an image needs an id and a file_name; correct it")
            return
        what = f"image {number}"
        if number in self._by_id or number in self._missing:
            self._fail(line, what, "the id is given twice; correct one")
            return
        folder = str(PurePosixPath(self.file).parent)
        try:
            name = self.conversion.finder.find(
                written, (folder, "", "images", f"{folder}/images"), self._rank
            )
        except AmbiguousImageError as fault:
            self._missing.add(number)
            self._fail(line, what, f"{written[:200]!r} {fault}", "ambiguous-image")
            return
        if name is None:
            self._missing.add(number)
            self._absent.add(written, line)
            return
        size = (
            _size(value.get("width"), value.get("height"))
            or self.conversion.sizes.get(name)
            or read_size(self.conversion.folder.root / name)
        )
        if size is None:
            self._missing.add(number)
            self._fail(line, what, "width and height are missing; write them")
            return
        self._by_id[number] = (name, *size)
        self.images.add(name)
        self.conversion.add_image(name, size)

    def _rank(self, name: str) -> int:
        """Rank an image of a folder of this file's split, or of this file's own folder, before others."""
        parts = name.split("/")[:-1]
        if self.split is not None:
            return 0 if any(split_named(part) == self.split for part in parts) else 1
        return 0 if parts == self.file.split("/")[:-1] else 1

    # The file is read a second time: annotations may come before the images and categories that they refer to.
    def add_objects(self, classes: dict[int, int], task: Task | None) -> None:
        """Turn the annotations into rows."""
        if self._is_damaged:
            return
        for key, value, line in JsonObject(self.conversion.folder.root / self.file).elements():
            if key == "annotations":
                self._annotation(value, line, classes, task)

    def _annotation(self, value: Any, line: int, classes: dict[int, int], task: Task | None) -> None:
        if not isinstance(value, dict):
            self._fail(line, "", "an annotation must be an object; correct it")
            return
        what = f"annotation {str(value.get('id'))[:40]}"
        try:
            if value.get("image_id") in self._missing:
                return
            image = self._by_id.get(value.get("image_id"))
            index = classes.get(value.get("category_id"))  # type: ignore[arg-type]
        except TypeError:  # an id that is a list
            image = index = None
        if image is None or index is None:
            message = (
                "its image_id is no image's id" if image is None else "its category_id is no category's id"
            )
            self._fail(line, what, f"{message}; correct it")
            return
        if value.get("iscrowd") == 1:  # a region of many objects, which would be learnt as one
            self.conversion.folder.found.census.count(Reason.CROWD, f"{self.file}: {what}")
            return
        if value.get("keypoints") and task is None:
            if not self._has_keypoints:
                message = (
                    'keypoints are not read from COCO JSON; set dataset.task = "detect" to learn the boxes'
                )
                self._fail(line, what, message, "foreign-keypoints")
            self._has_keypoints = True
            return
        if isinstance(value.get("segmentation"), dict):
            what += ", a mask in run lengths"
        polygon = (
            self._polygon(value.get("segmentation"), image, line, what) if task is not Task.DETECT else None
        )
        box = box_in(value.get("bbox"), *image[1:]) or (box_of(polygon) if polygon else None)
        if box is None:
            message = "bbox must be [left, top, width, height] in pixels; correct it"
            self._fail(line, what, message)
            return
        self.conversion.add(Location(self.file, line, what), image[0], index, box, polygon)

    def _polygon(
        self, value: Any, image: tuple[str, int, int], line: int, what: str
    ) -> tuple[float, ...] | None:
        if not isinstance(value, list) or not any(value):
            return None  # none, which some tools write as [[]], or a mask in run lengths
        outline = outline_in(value, *image[1:])
        if outline is None:
            message = "segmentation must be lists of x, y in pixels, three points or more; correct it"
            self._fail(line, what, message)
        return outline

    def _fail(self, line: int, what: str, message: str, code: str = "malformed-annotations") -> None:
        self.conversion.fail(Location(self.file, line or None, what), message, code)


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    if all(
        isinstance(side, int) and not isinstance(side, bool) and 0 < side < 1 << 20
        for side in (width, height)
    ):
        return width, height
    return None
