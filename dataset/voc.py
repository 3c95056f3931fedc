"""Datasets with an XML file for each image, as Pascal VOC has them and many tools write them."""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath
from struct import Struct
from typing import Final

from gpu_offload.dataset.census import Reason
from gpu_offload.dataset.class_names import class_name_problems
from gpu_offload.dataset.conversion import AnnotatedFolder, Conversion, Location
from gpu_offload.dataset.finding import DatasetError, Findings, FormError, error
from gpu_offload.dataset.geometry import box_of
from gpu_offload.dataset.image import read_size
from gpu_offload.dataset.image_finder import AmbiguousImageError, ImageFinder
from gpu_offload.dataset.image_list import MAX_LINES
from gpu_offload.dataset.layout import DatasetFiles, Layout, is_mask, split_named
from gpu_offload.dataset.paths import Names
from gpu_offload.dataset.split import SPLITS, Split
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.voc_xml import Element, read_xml
from gpu_offload.dataset.written_path import MAX_PATH

_LIST: Final = re.compile(r"(.*/)?ImageSets/Main/(train|val|test|trainval)\.txt")
"""The list of a split, in the folder that it is for: VOC2007 and VOC2012 have one each in VOCdevkit."""

MAX_OBJECTS: Final = 1_000_000
"""Objects of one dataset, which are in memory until its classes are known."""

_Object = tuple[str, int, str, str, bytes, tuple[float, ...] | None]
"""XML file, line, image, class, box, polygon. The box is packed, because there may be a million."""
_BOX: Final = Struct("4d")


def list_voc(folder: AnnotatedFolder, files: Sequence[str]) -> DatasetFiles:
    """List the images that XML files describe, and turn their objects into labels.

    The split comes from `ImageSets/Main/train.txt` and `val.txt`, else from folders called like splits, else from
    the names. Classes are those that the settings name, else all that occur, in alphabetical order. An XML file
    belongs to the image of its own name; where there is none, to the one that it names.
    """
    conversion = Conversion(_without_masks(folder))
    objects: list[_Object] = []
    images: dict[str, str] = {}
    for file in files:
        image = _read(file, conversion, objects)
        if image is None:
            continue
        other = images.setdefault(image, file)
        if other != file:
            message = f"describes {image}, as {other} does; remove one"
            conversion.fail(Location(file, None), message)
    occurring = tuple(sorted({name for _, _, _, name, _, _ in objects}))
    classes = folder.classes or occurring
    for problem in class_name_problems(classes):
        conversion.fail(Location("", None), problem, "class-name")
    indices = {name: index for index, name in enumerate(classes)}
    for file, line, image, name, box, polygon in objects:
        place = Location(file, line)
        if name in indices:
            outline = polygon if folder.task is not Task.DETECT else None
            conversion.add(place, image, indices[name], _BOX.unpack(box), outline)
        else:
            conversion.fail(
                place, f"the class {name[:60]!r} is not in dataset.classes; add it", "unknown-class"
            )
    splits = _splits(folder, images)
    if not images and not conversion.findings.failed:
        message = "the Pascal VOC annotations describe no image that is there; export them with their images"
        conversion.findings.append(error("", "no-labels", message))
    return conversion.finished(Layout.VOC, classes, splits, folder.task)


def _without_masks(folder: AnnotatedFolder) -> AnnotatedFolder:
    """Leave out VOC's pictures of masks, which have the names of the images."""
    masks = {name for name in folder.names if is_mask(name)}
    for name in sorted(masks):
        folder.found.census.count(Reason.MASK, name)
    return replace(folder, names=Names(name for name in folder.names if name not in masks))


def _read(file: str, conversion: Conversion, objects: list[_Object]) -> str | None:
    """Read one XML file; return the image that it describes, or None where it is at fault."""
    root = conversion.folder.root
    try:
        annotation = read_xml(root / file)
        image = _image(file, annotation, conversion.finder)
    except FormError as fault:
        conversion.fail(Location(file, fault.line), str(fault))
        return None
    except AmbiguousImageError as fault:
        conversion.fail(Location(file, None), f"the image {fault}", "ambiguous-image")
        return None
    if image is None:
        written = annotation.value("filename")[:200] or PurePosixPath(file).stem
        message = f"describes {written!r}, which does not exist; restore the image or remove this file"
        conversion.fail(Location(file, annotation.line), message, "missing-path")
        return None
    size = _size(annotation) or read_size(root / image)
    if size is None:
        message = "<size> is missing or 0, and cannot be read from the image; write width and height"
        conversion.fail(Location(file, annotation.line), message)
        return None
    conversion.add_image(image, size)
    for element in annotation.children:
        if element.tag == "object":
            _add_object(file, image, element, size, conversion, objects)
    if len(objects) > MAX_OBJECTS:
        message = f"the dataset holds more than {MAX_OBJECTS} objects; split it"
        raise DatasetError([*conversion.findings, error(file, "huge-file", message)])
    return image


def _image(file: str, annotation: Element, finder: ImageFinder) -> str | None:
    """Return the image of an XML file: of its own name, else of the name in it."""
    path = PurePosixPath(file)
    written = annotation.value("filename").replace("\\", "/").rpartition("/")[2]
    folders = file.split("/")[:-1]

    def rank(name: str) -> int:
        """Rank images by how many folders differ from those of the XML file (`JPEGImages` for `Annotations`: one)."""
        *own, base = name.split("/")
        differing = sum(a != b for a, b in zip(own, folders, strict=False))
        if len(own) != len(folders):
            differing = 1 if own == folders[:-1] or own[:-1] == folders else len(own) + len(folders)
        return 2 * differing + (base != written)

    stem = finder.find_stem(path.stem, rank)
    if stem is not None or not written:
        return stem
    return finder.find(written, (str(path.parent),), rank) or finder.find_stem(written, rank)


def _size(annotation: Element) -> tuple[int, int] | None:
    size = annotation.first("size")
    width, height = (size.number("width"), size.number("height")) if size is not None else (None, None)
    if width is None or height is None or not (1 <= width < 1 << 20 and 1 <= height < 1 << 20):
        return None
    return int(width), int(height)


def _add_object(
    file: str,
    image: str,
    element: Element,
    size: tuple[int, int],
    conversion: Conversion,
    objects: list[_Object],
) -> None:
    place = Location(file, element.line)
    name = sys.intern(element.value("name"))  # a million objects share a few names
    polygon = _polygon(element.first("polygon"), size)
    bounds = element.first("bndbox")
    corners = [bounds.number(side) for side in ("xmin", "ymin", "xmax", "ymax")] if bounds is not None else []
    left, top, right, bottom = corners if len(corners) == 4 else (None,) * 4
    if not name:
        conversion.fail(place, "the object has no <name>; write its class")
    elif left is None or top is None or right is None or bottom is None:
        if polygon is None:
            message = "the object has no <bndbox> with xmin, ymin, xmax, ymax in numbers; correct it"
            conversion.fail(place, message)
        else:
            objects.append((file, element.line, image, name, _BOX.pack(*box_of(polygon)), polygon))
    elif left > right or top > bottom:
        message = "xmin is right of xmax, or ymin below ymax; swap them"
        conversion.fail(place, message)
    else:
        width, height = size
        box = box_of((left / width, top / height, right / width, bottom / height))
        objects.append((file, element.line, image, name, _BOX.pack(*box), polygon))


def _polygon(element: Element | None, size: tuple[int, int]) -> tuple[float, ...] | None:
    """Return the points x1, y1, x2, y2 ... of a <polygon>, as Roboflow writes it, as fractions."""
    if element is None:
        return None
    points: list[float] = []
    by_tag = {child.tag: child for child in element.children}
    for number in range(1, len(element.children) // 2 + 1):
        x, y = (by_tag[tag].as_number() if tag in by_tag else None for tag in (f"x{number}", f"y{number}"))
        if x is None or y is None:
            return None
        points += [x / size[0], y / size[1]]
    return tuple(points) if len(points) >= 6 else None


def _splits(folder: AnnotatedFolder, images: dict[str, str]) -> dict[str, set[Split]]:
    """Return the splits of each image that the lists, or else the folders, give."""
    lists = [match for name in folder.names if name.endswith(".txt") and (match := _LIST.fullmatch(name))]
    if lists:
        splits: dict[str, set[Split]] = {}
        trained = {match[1] for match in lists if match[2] == "train"}
        for match in lists:
            if match[2] == "trainval" and match[1] in trained:
                continue
            part = next((split for split in SPLITS if split == match[2]), SPLITS[0])
            for image in _listed(folder, match[0], match[1] or "", images):
                splits.setdefault(image, set()).add(part)
        return splits
    by_folder: dict[str, set[Split]] = {}
    for image in images:
        given = {
            split for part in PurePosixPath(image).parts[:-1] if (split := split_named(part)) is not None
        }
        if len(given) == 1:
            by_folder[image] = given
    return by_folder if len(by_folder) == len(images) else {}


def _listed(folder: AnnotatedFolder, name: str, below: str, images: Iterable[str]) -> Iterator[str]:
    """Yield the images in `below` that a list names, one a line, without their extensions as a rule."""
    findings = folder.found.findings
    by_stem = {PurePosixPath(image).stem: image for image in images if image.startswith(below)}
    for number, line in enumerate(_lines(folder.root, name, findings), 1):
        if findings.is_full("error", "missing-path"):
            return
        if not (written := line.strip()):
            continue
        # A name may hold spaces; lists of one class have a number behind it.
        first = written.split()[0]
        stems = (written, first, PurePosixPath(written).stem, PurePosixPath(first).stem)
        image = next((by_stem[stem] for stem in stems if stem in by_stem), None)
        if image is None:
            message = f"{written[:200]!r} is no image with an XML file; restore it or remove the line"
            findings.append(error(name, "missing-path", message, number))
        else:
            yield image


def _lines(root: Path, name: str, findings: Findings) -> list[str]:
    try:
        with (root / name).open(encoding="utf-8-sig") as file:
            lines = [line[:MAX_PATH] for line in islice(file, MAX_LINES + 1)]
        if len(lines) <= MAX_LINES:
            return lines
        reason = f"it has more than {MAX_LINES} lines"
    except (OSError, UnicodeDecodeError) as fault:
        reason = getattr(fault, "strerror", None) or "not UTF-8"
    findings.append(error(name, "unreadable-file", f"cannot be read ({reason}); list one image a line"))
    return []
