"""Datasets without a description: images with their labels beside them, or in `images/` and `labels/`."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from gpu_offload.dataset.census import Reason
from gpu_offload.dataset.class_folders import report_unread
from gpu_offload.dataset.class_names import read_classes
from gpu_offload.dataset.finding import error, some, warning
from gpu_offload.dataset.layout import DatasetFiles, Layout, is_image, is_mask, label_name, split_named
from gpu_offload.dataset.notes import CLASSES_FILE, is_note
from gpu_offload.dataset.paths import Names
from gpu_offload.dataset.split import SplitRule, assign
from gpu_offload.dataset.walk import Found, is_text

_CLASS_FILES: Final = (CLASSES_FILE, "obj.names")
_REPOSITORY: Final = (".git", "offload.toml", "pyproject.toml", "setup.py")


def list_flat(root: Path, names: Names, rule: SplitRule, found: Found) -> DatasetFiles:
    """List images and labels; the split follows from the images' names."""
    notes = set(filter(is_note, names))
    class_files = sorted(name for name in notes if PurePosixPath(name).name == CLASSES_FILE)
    for name in sorted(notes.difference(class_files)):
        found.census.count(Reason.NOTE, name)
    if any(split_named(folder) == "train" for folder in _split_folders(names)):
        message = (
            "folders called train and val are a split only with a data.yaml; images are split by their names"
        )
        found.findings.append(warning("", "split-ignored", message))
    classes = _classes(root, class_files, found)
    first = names.after("images/")  # sorted: the first path in the folder, if it has any
    has_images_folder = first < len(names) and names[first].startswith("images/")
    if has_images_folder and any((root / mark).exists() for mark in _REPOSITORY):
        names = Names(_of_the_repository(names, found))
    masks = {name for name in names if is_mask(name) and names.find(label_name(name)) < 0}
    for name in sorted(masks):
        found.census.count(Reason.MASK, name)
    _report_unread(names, found)
    return DatasetFiles(
        root,
        Layout.FLAT,
        Names(name for name in names if name not in notes and name not in masks),
        lambda name: {assign(name, rule)},
        classes,
        census=found.census,
        odd_texts=found.odd_texts,
    )


def _split_folders(names: Names) -> set[str]:
    """Return the folders at the top, or just below `images/`, that hold images."""
    folders = set()
    for name in names:
        parts = name.split("/", 2)
        if len(parts) > 1 and is_image(name):
            folders.add(parts[1] if parts[0] == "images" and len(parts) > 2 else parts[0])
    return folders


def _classes(root: Path, class_files: list[str], found: Found) -> tuple[str, ...]:
    """Return the class names that a labelling tool left at the top or beside the labels."""
    at_the_top = [name for name in _CLASS_FILES if (root / name).is_file()]
    read: dict[tuple[str, ...], str] = {}
    for name in at_the_top[:1] or class_files:
        read.setdefault(read_classes(root, name, found.findings), name)
    if len(read) > 1:
        message = f"{some(sorted(read.values()))} name different classes; keep one list, at the top"
        found.findings.append(error("", "class-mismatch", message))
    return next(iter(read), ())


def _of_the_repository(names: Names, found: Found) -> Iterator[str]:
    """Leave out what a repository holds beside its dataset: pictures outside `images/` that have no label."""
    labels = {label_name(name) for name in names if is_image(name) and not _is_inside(name)}
    for name in names:
        if (
            _is_inside(name)
            or is_note(name)
            or name in labels
            or (is_image(name) and names.find(label_name(name)) >= 0)
        ):
            yield name
        else:
            found.census.count(Reason.OUTSIDE if is_image(name) else Reason.OTHER, name)


def _is_inside(name: str) -> bool:
    return name.startswith(("images/", "labels/")) or "/images/" in name or "/labels/" in name


def _report_unread(names: Names, found: Found) -> None:
    """Report pictures in other formats that have a label or are among those that are read; count the others."""
    folders = {str(PurePosixPath(name).parent) for name in names if is_image(name)}
    matter = []
    for name in found.unread:
        # A drawing among the pictures illustrates a README.
        drawing = name.lower().endswith(".svg")
        among = str(PurePosixPath(name).parent) in folders and not drawing
        if among or names.find(label_name(name)) >= 0:
            matter.append(name)
        else:
            found.census.count(Reason.FORMAT, name)
    report_unread(matter, found)


def has_labels(names: Names) -> bool:
    """Whether one of the images has a label where Ultralytics looks for it."""
    texts = any(is_text(name) for name in names)
    return texts and any(is_image(name) and names.find(label_name(name)) >= 0 for name in names)
