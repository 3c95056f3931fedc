"""Looks through a repository for folders that could be datasets, by names and a glance at the labels.

It never judges a dataset: `dataset.snapshot` does, once one is chosen.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from gpu_offload.dataset.task import Task

IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
DEPTH = 5
"""Folders below the root that are looked into."""
FOLDERS = 10_000
LABELS = 5_000
"""Label files that are read to learn the numbers of the classes."""

_SKIPPED = frozenset({"build", "dist", "node_modules", "runs", "site-packages", "venv", "__pycache__"})
_SPLITS = ("train", "val", "valid", "test")
_NO_CLASS = frozenset({*_SPLITS, "images", "labels"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A folder or file that could be `dataset.path`."""

    path: str
    """Relative to the root, with `/`."""
    layout: Literal["data.yaml", "flat", "classes"]
    images: int
    task: Task | None = None
    """What the labels look like; None where a glance does not tell."""
    classes: tuple[str, ...] = ()
    """Names for `dataset.classes`; empty where the dataset names its classes itself."""
    placeholders: bool = False
    """Whether the names are made up, because only numbers were found."""

    def __str__(self) -> str:
        what = {
            "data.yaml": "a data.yaml",
            "flat": "a flat folder of images and labels",
            "classes": "a folder with one folder a class",
        }[self.layout]
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
    """Return what could be datasets below `root`, the likeliest first.

    Hidden folders, symbolic links and what tools build are not looked into. A file or folder that cannot be
    read is passed over.
    """
    tree = {folder.path: folder for folder in _walk(root)}
    found: list[Candidate] = []
    for folder in tree.values():
        if any(_holds(candidate, folder.path) for candidate in found):
            continue
        candidate = _data_yaml(root, folder, tree) or _class_folders(folder, tree) or _flat(root, folder)
        if candidate is not None:
            found.append(candidate)
    order = ("data.yaml", "flat", "classes")
    return tuple(sorted(found, key=lambda c: (order.index(c.layout), -c.images, c.path)))


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
                    elif entry.is_dir(follow_symlinks=False) and entry.name not in _SKIPPED:
                        folders.append(entry.name)
        except OSError:
            continue
        files.sort()
        folders.sort()
        images = sum(_is_image(name) for name in files)
        folder = _Folder(path, tuple(files), tuple(folders), images)
        yield folder
        if depth < DEPTH:
            waiting += ((folder.below(name), depth + 1) for name in reversed(folders))


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGES


def _holds(candidate: Candidate, path: str) -> bool:
    base = str(PurePosixPath(candidate.path).parent) if candidate.layout == "data.yaml" else candidate.path
    return candidate.layout != "flat" and (base in {".", path} or path.startswith(f"{base}/"))


def _images_below(folder: _Folder, tree: Mapping[str, _Folder]) -> int:
    prefix = "" if folder.path == "." else f"{folder.path}/"
    return sum(other.images for path, other in tree.items() if other is folder or path.startswith(prefix))


def _data_yaml(root: Path, folder: _Folder, tree: Mapping[str, _Folder]) -> Candidate | None:
    for name in sorted(folder.files, key=lambda name: name not in {"data.yaml", "data.yml"}):
        if not name.endswith((".yaml", ".yml")):
            continue
        text = _read(root / folder.path / name)
        if all(re.search(rf"(?m)^{key}\s*:", text) for key in ("train", "val")) and re.search(
            r"(?m)^(names|nc)\s*:", text
        ):
            task = Task.POSE if re.search(r"(?m)^kpt_shape\s*:", text) else None
            return Candidate(folder.below(name), "data.yaml", _images_below(folder, tree), task)
    return None


def _class_folders(folder: _Folder, tree: Mapping[str, _Folder]) -> Candidate | None:
    def classes(base: _Folder) -> list[_Folder]:
        below = (tree.get(base.below(name)) for name in base.folders if name.lower() not in _NO_CLASS)
        return [
            child
            for child in below
            if child is not None and child.images and not any(name.endswith(".txt") for name in child.files)
        ]

    parts = [tree[path] for name in _SPLITS if (path := folder.below(name)) in tree]
    groups = [classes(part) for part in parts] if parts else [classes(folder)]
    # One folder of pictures is documentation more often than a class; so are a few pictures in several.
    if not groups or len(groups[0]) < 2 or any(child.images < 2 for child in groups[0]):
        return None
    return Candidate(
        folder.path, "classes", sum(child.images for group in groups for child in group), Task.CLASSIFY
    )


def _flat(root: Path, folder: _Folder) -> Candidate | None:
    if not folder.images:
        return None
    texts = {name.removesuffix(".txt") for name in folder.files if name.endswith(".txt")}
    labels = [stem for name in folder.files if _is_image(name) and (stem := name.rpartition(".")[0]) in texts]
    if not labels:
        return None
    highest, task = -1, None
    for stem in labels[:LABELS]:
        for line in _read(root / folder.path / f"{stem}.txt").splitlines():
            words = line.split()
            if words and words[0].isdecimal() and words[0].isascii():
                highest = max(highest, int(words[0][:6]))
                task = task or (Task.DETECT if len(words) == 5 else Task.SEGMENT if len(words) >= 7 else None)
    names = _class_names(root, folder)
    if names and len(names) > highest:
        return Candidate(folder.path, "flat", folder.images, task, names)
    made_up = tuple(f"class-{number}" for number in range(highest + 1)) if highest < 1_000 else ()
    return Candidate(folder.path, "flat", folder.images, task, made_up, placeholders=bool(made_up))


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
