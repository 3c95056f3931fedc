"""Looks through a repository for datasets: proposes folders by their names, and lets the dataset's own checks decide."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from gpu_offload.dataset.annotation_files import annotation_files
from gpu_offload.dataset.data_yaml import read_names
from gpu_offload.dataset.finding import DatasetError, printable
from gpu_offload.dataset.layout import is_image, split_named
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.walk import is_tool_folder

DEPTH: Final = 5
"""Folders below the root that are looked into."""
FOLDERS: Final = 10_000
CHECKED: Final = 10
"""Proposals that are checked, the likeliest first, until one can be trained on."""
GLANCED: Final = 20
"""Files of a folder that are looked into for annotations."""
LABELS: Final = 5_000
"""Label files that are read to learn the numbers of the classes, where the checks do not tell."""

_ANNOTATIONS: Final = (".json", ".xml", ".ndjson")
_BUILT: Final = frozenset({"build", "dist", "runs"})
_NO_CLASS: Final = frozenset({"images", "labels", "annotations"})

Form = Literal["data.yaml", "annotations", "flat", "classes"]


@dataclass(frozen=True, slots=True)
class Candidate:
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
        return f"{what}, {self.images:,} images" if self.images else what


@dataclass(frozen=True)
class _Folder:
    path: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    images: int

    def below(self, name: str) -> str:
        return name if self.path == "." else f"{self.path}/{name}"


def find_candidates(root: Path) -> tuple[Candidate, ...]:
    """Return what could be datasets below `root`: first what the checks accept, the likeliest before the others.

    Hidden folders, symbolic links and what tools build are not looked into. A file or folder that cannot be
    read is passed over.
    """
    tree = {folder.path: folder for folder in _walk(root)}
    proposed: list[Candidate] = []
    for folder in tree.values():
        if any(_holds(candidate, folder.path) for candidate in proposed):
            continue
        described = _described(root, folder, tree)
        proposed += described or list(
            filter(
                None,
                [_annotated(root, folder, tree) or _class_folders(folder, tree) or _flat(root, folder, tree)],
            )
        )
    order = ("data.yaml", "annotations", "flat", "classes")
    proposed.sort(key=lambda c: (order.index(c.layout), -c.images, c.path))
    return tuple(_checked(root, proposed))


def _checked(root: Path, proposed: Sequence[Candidate]) -> list[Candidate]:
    """Put the first candidate that the checks accept before those that they refuse."""
    refused: list[Candidate] = []
    for position, candidate in enumerate(proposed[:CHECKED]):
        try:
            snapshot = read_snapshot(root / candidate.path)
        except DatasetError as error:
            refused.append(replace(candidate, fault=printable(str(error.findings[0]))))
            continue
        unnamed = any(finding.code == "no-classes" for finding in snapshot.warnings)
        accepted = replace(
            candidate,
            images=sum(snapshot.images.values()),
            task=snapshot.task,
            classes=candidate.classes if unnamed else (),
            placeholders=candidate.placeholders and unnamed,
        )
        if unnamed and (not accepted.classes or accepted.placeholders):
            accepted = _named(root, accepted, len(snapshot.classes), proposed)
        return [accepted, *refused, *proposed[position + 1 :]]
    return [*refused, *proposed[CHECKED:]]


def _named(root: Path, candidate: Candidate, count: int, proposed: Sequence[Candidate]) -> Candidate:
    """Name the classes as a data.yaml elsewhere in the repository does, if only one way of naming them is there."""
    names = {c.path: read_names(root / c.path) for c in proposed if c.layout == "data.yaml"}
    fitting = {given: path for path, given in names.items() if len(given) >= count}
    if len(fitting) == 1:
        ((classes, path),) = fitting.items()
        return replace(candidate, classes=classes, placeholders=False, names_from=path)
    return replace(candidate, classes=tuple(f"class-{i}" for i in range(count)), placeholders=True)


def _walk(root: Path) -> Iterator[_Folder]:
    """Yield the folders, each before those in it, in the order of their names."""
    waiting, seen = [(".", 0)], 0
    while waiting and seen < FOLDERS:
        path, depth = waiting.pop()
        seen += 1
        files, folders = [], []
        try:
            with os.scandir(root / path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or not entry.name.isprintable():
                        continue
                    if entry.is_file(follow_symlinks=False):
                        files.append(entry.name)
                    elif (
                        entry.is_dir(follow_symlinks=False)
                        and entry.name not in _BUILT
                        and not is_tool_folder(entry.path, entry.name)
                    ):
                        folders.append(entry.name)
        except OSError:
            continue
        files.sort()
        folders.sort()
        images = sum(is_image(name) for name in files)
        folder = _Folder(path, tuple(files), tuple(folders), images)
        yield folder
        if depth < DEPTH:
            waiting += ((folder.below(name), depth + 1) for name in reversed(folders))


def _holds(candidate: Candidate, path: str) -> bool:
    base = str(PurePosixPath(candidate.path).parent) if candidate.layout == "data.yaml" else candidate.path
    return base in {".", path} or path.startswith(f"{base}/")


def _images_below(folder: _Folder, tree: Mapping[str, _Folder]) -> int:
    prefix = "" if folder.path == "." else f"{folder.path}/"
    return sum(other.images for path, other in tree.items() if other is folder or path.startswith(prefix))


def _described(root: Path, folder: _Folder, tree: Mapping[str, _Folder]) -> list[Candidate]:
    """Return the descriptions in a folder: data.yaml files, Darknet's obj.data."""
    found = []
    for name in sorted(folder.files, key=lambda name: name not in {"data.yaml", "data.yml"}):
        if not name.endswith((".yaml", ".yml")):
            continue
        text = _read(root / folder.path / name)
        if re.search(r"(?m)^train\s*:", text) and re.search(r"(?m)^(names|nc)\s*:", text):
            task = Task.POSE if re.search(r"(?m)^kpt_shape\s*:", text) else None
            found.append(Candidate(folder.below(name), "data.yaml", _images_below(folder, tree), task))
    if not found and "obj.data" in folder.files:
        found.append(Candidate(folder.below("obj.data"), "data.yaml", _images_below(folder, tree)))
    return found


def _annotated(root: Path, folder: _Folder, tree: Mapping[str, _Folder]) -> Candidate | None:
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
    return Candidate(folder.path, "annotations", images)


def _class_folders(folder: _Folder, tree: Mapping[str, _Folder]) -> Candidate | None:
    def classes(base: _Folder) -> list[_Folder]:
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
    return Candidate(
        folder.path, "classes", sum(child.images for group in groups for child in group), Task.CLASSIFY
    )


def _flat(root: Path, folder: _Folder, tree: Mapping[str, _Folder]) -> Candidate | None:
    if {"images", "labels"} <= set(folder.folders):
        images, labels = tree.get(folder.below("images")), tree.get(folder.below("labels"))
        if images is not None and labels is not None and _images_below(images, tree):
            return Candidate(folder.path, "flat", _images_below(images, tree))
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
        return Candidate(folder.path, "flat", folder.images, task, names)
    made_up = tuple(f"class-{number}" for number in range(highest + 1)) if highest < 1_000 else ()
    return Candidate(folder.path, "flat", folder.images, task, made_up, placeholders=bool(made_up))


def _glance(folder: Path, stems: Sequence[str]) -> tuple[int, Task | None]:
    """Return the highest class number in some labels, and what the first rows look like."""
    highest, task = -1, None
    for stem in stems:
        for line in _read(folder / f"{stem}.txt").splitlines():
            words = line.split()
            if words and words[0].isdecimal() and words[0].isascii():
                highest = max(highest, int(words[0][:6]))
                task = task or (Task.DETECT if len(words) == 5 else Task.SEGMENT if len(words) >= 7 else None)
    return highest, task


def _class_names(root: Path, folder: _Folder) -> tuple[str, ...]:
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
