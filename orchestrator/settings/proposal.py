"""What in a folder could be a dataset: proposals by names and a glance at the files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from gpu_offload.dataset.annotation_files import annotation_files
from gpu_offload.dataset.layout import is_image, split_named
from gpu_offload.dataset.task import Task

GLANCED: Final = 20
"""Files of a folder that are opened to find annotations."""

LABELS: Final = 5_000
"""Label files that are read to find the numbers of the classes, where the checks do not give them."""

_ANNOTATIONS: Final = (".json", ".xml", ".ndjson")

BUILT: Final = frozenset({"build", "dist", "runs"})
"""Folders with output of tools."""

_NO_CLASS: Final = frozenset({"images", "labels", "annotations"})
"""Names of folders that are parts of a dataset, and no classes."""

Form = Literal["data.yaml", "annotations", "flat", "classes"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A folder or file that could be `dataset.path`."""

    path: str
    """Relative to the root, with `/`."""
    layout: Form
    images: int
    task: Task | None = None
    """What the labels are for; None where that is not known."""
    classes: tuple[str, ...] = ()
    """Names for `dataset.classes`; empty where the dataset names its classes itself."""
    placeholders: bool = False
    """Whether the names are made up, because only numbers were found."""
    names_from: str = ""
    """The file that gave the names, where it is not the dataset's own."""
    fault: str = ""
    """Why the checks refuse it; empty where they do not, or were not asked."""

    def __str__(self) -> str:
        what = {
            "data.yaml": "a data.yaml",
            "annotations": "images with annotation files",
            "flat": "a flat folder of images and labels",
            "classes": "a folder with one folder a class",
        }[self.layout]
        if self.path.endswith("obj.data"):
            what = "an obj.data of Darknet or CVAT"
        images = "1 image" if self.images == 1 else f"{self.images:,} images"
        return f"{what}, {images}" if self.images else what


@dataclass(frozen=True)
class Folder:
    """A folder of the repository: its path, its files and folders by name, and how many files are images."""

    path: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    images: int

    def below(self, name: str) -> str:
        """Return the path of an entry of this folder."""
        return name if self.path == "." else f"{self.path}/{name}"


def holds(candidate: Proposal, path: str) -> bool:
    """Return whether a path is part of a candidate."""
    base = str(PurePosixPath(candidate.path).parent) if candidate.layout == "data.yaml" else candidate.path
    return base in {".", path} or path.startswith(f"{base}/")


def _images_below(folder: Folder, tree: Mapping[str, Folder]) -> int:
    prefix = "" if folder.path == "." else f"{folder.path}/"
    return sum(other.images for path, other in tree.items() if other is folder or path.startswith(prefix))


def described(root: Path, folder: Folder, tree: Mapping[str, Folder]) -> list[Proposal]:
    """Return the descriptions in a folder: data.yaml files, Darknet's obj.data."""
    found = []
    for name in sorted(folder.files, key=lambda name: name not in {"data.yaml", "data.yml"}):
        if not name.endswith((".yaml", ".yml")):
            continue
        text = _read(root / folder.path / name)
        if re.search(r"(?m)^train\s*:", text) and re.search(r"(?m)^(names|nc)\s*:", text):
            task = Task.POSE if re.search(r"(?m)^kpt_shape\s*:", text) else None
            found.append(Proposal(folder.below(name), "data.yaml", _images_below(folder, tree), task))
    if not found and "obj.data" in folder.files:
        found.append(Proposal(folder.below("obj.data"), "data.yaml", _images_below(folder, tree)))
    return found


def annotated(root: Path, folder: Folder, tree: Mapping[str, Folder]) -> Proposal | None:
    """Return a folder that has annotations in COCO's, Pascal VOC's or Ultralytics' own format."""
    below = [tree[path] for name in folder.folders if (path := folder.below(name)) in tree]
    beside = [child for child in below if child.images]
    notes = [child for child in below if PurePosixPath(child.path).name.lower().startswith("annotations")]
    named = [
        *(folder.below(name) for name in folder.files if name.endswith(_ANNOTATIONS)),
        *(
            child.below(name)
            for child in (*notes, *beside)
            for name in child.files
            if name.endswith(_ANNOTATIONS)
        ),
    ]
    if not notes and len(beside) == 1 and not any(name.endswith(_ANNOTATIONS) for name in folder.files):
        return None  # the one folder below holds all of it
    images = _images_below(folder, tree)
    labelled = any(
        name.endswith(".txt") for child in (folder, *below) for name in child.files if child.images
    )
    has_labels = "labels" in folder.folders
    if not named or not images or labelled or has_labels or not annotation_files(root, named[:GLANCED])[0]:
        return None
    return Proposal(folder.path, "annotations", images)


def class_folders(folder: Folder, tree: Mapping[str, Folder]) -> Proposal | None:
    """Return a folder whose folders could be classes."""

    def classes(base: Folder) -> list[Folder]:
        below = (
            tree.get(base.below(name))
            for name in base.folders
            if name.lower() not in _NO_CLASS and split_named(name) is None
        )
        return [
            child
            for child in below
            if child is not None and child.images and not any(name.endswith(".txt") for name in child.files)
        ]

    parts = [
        tree[path] for name in folder.folders if split_named(name) and (path := folder.below(name)) in tree
    ]
    groups = [classes(part) for part in parts] if parts else [classes(folder)]
    groups = [group for group in groups if group]
    # One folder of pictures is documentation more often than a class; so are a few pictures in several.
    if not groups or len(groups[0]) < 2 or any(child.images < 2 for child in groups[0]):
        return None
    return Proposal(
        folder.path, "classes", sum(child.images for group in groups for child in group), Task.CLASSIFY
    )


def flat(root: Path, folder: Folder, tree: Mapping[str, Folder]) -> Proposal | None:
    """Return a folder of images and labels, or of images alone."""
    if {"images", "labels"} <= set(folder.folders):
        images, labels = tree.get(folder.below("images")), tree.get(folder.below("labels"))
        if images is not None and labels is not None and _images_below(images, tree):
            return Proposal(folder.path, "flat", _images_below(images, tree))
    if not folder.images:
        return None
    texts = {name.removesuffix(".txt") for name in folder.files if name.endswith(".txt")}
    labels_here = [
        stem for name in folder.files if is_image(name) and (stem := name.rpartition(".")[0]) in texts
    ]
    if not labels_here:
        return None
    highest, task = _glance(root / folder.path, labels_here[:LABELS])
    names = _class_names(root, folder)
    if names and len(names) > highest:
        return Proposal(folder.path, "flat", folder.images, task, names)
    made_up = tuple(f"class-{number}" for number in range(highest + 1)) if highest < 1_000 else ()
    return Proposal(folder.path, "flat", folder.images, task, made_up, placeholders=bool(made_up))


def _glance(folder: Path, stems: Sequence[str]) -> tuple[int, Task | None]:
    """Return the highest class number in some labels, and what the first rows look like."""
    highest, task = -1, None
    for stem in stems:
        for line in _read(folder / f"{stem}.txt").splitlines():
            words = line.split()
            if words and words[0].isdecimal() and words[0].isascii():
                # Cut, because the file may hold anything, and Python refuses to read a number of thousands of digits.
                highest = max(highest, int(words[0][:6]))
                task = task or (Task.DETECT if len(words) == 5 else Task.SEGMENT if len(words) >= 7 else None)
    return highest, task


def _class_names(root: Path, folder: Folder) -> tuple[str, ...]:
    """Return the names that labelling tools leave beside the labels or in the folder above, one a line."""
    for base in (folder.path, str(PurePosixPath(folder.path).parent)):
        for file in ("classes.txt", "obj.names", "labels.txt", "class_names.txt"):
            lines = [line.strip() for line in _read(root / base / file).splitlines()]
            names = [name for name in lines if name]
            if names and len(set(names)) == len(names) and all(name.isprintable() for name in names):
                return tuple(names)
    return ()


def _read(path: Path) -> str:
    """Read a small text file; nothing where it is missing, a link, large or no text."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 20:
            return ""
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""
