"""How a dataset lies on the disk, and what follows: which files belong to it, and where an image's label is."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Final

from gpu_offload.dataset.data_yaml import read_data_yaml
from gpu_offload.dataset.finding import DatasetError, Finding, error, warning
from gpu_offload.dataset.image import SUFFIXES, suffix
from gpu_offload.dataset.label import MAX_BYTES
from gpu_offload.dataset.paths import Names, hidden, walk
from gpu_offload.dataset.split import SPLITS, Split, SplitRule, assign
from gpu_offload.dataset.task import Task

YAML_NAMES: Final = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
CLASSES_FILE: Final = "classes.txt"
"""Class names, one a line, as LabelImg leaves them beside the labels."""

SPLIT_FOLDERS: Final[dict[str, Split]] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""Top folders of a classification tree that are splits, not classes."""

SplitsOf = Callable[[str], tuple[Split, ...]]


class Layout(StrEnum):
    """The three forms in which datasets come."""

    FLAT = "flat"
    """A folder of images with their labels beside them, or `images/` and `labels/`; split by name."""
    YAML = "yaml"
    """What a `data.yaml` describes."""
    FOLDERS = "folders"
    """Classification: one folder a class, perhaps below `train/`, `val/`, `test/`."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a dataset, before any is opened. `names` are images and labels, relative to `root`."""

    root: Path
    layout: Layout
    names: Names
    splits_of: SplitsOf
    """The splits an image belongs to; none where the image is not used."""
    classes: tuple[str, ...] = ()
    keypoint_shape: tuple[int, int] | None = None
    flip_idx: tuple[int, ...] | None = None
    class_of: Callable[[str], str] | None = None


def is_image(name: str) -> bool:
    """Whether a path's extension is an image's."""
    return suffix(name) in SUFFIXES


def label_name(image: str) -> str:
    """Return where Ultralytics looks for an image's label: the last `images/` becomes `labels/`, else beside it."""
    stem = image.rpartition(".")[0]
    if image.startswith("images/") and "/images/" not in image:
        return f"labels/{stem[7:]}.txt"
    before, found, after = stem.rpartition("/images/")
    return f"{before}/labels/{after}.txt" if found else f"{stem}.txt"


def list_dataset(path: Path, task: Task | None, rule: SplitRule, findings: list[Finding]) -> Listing:
    """Find out the layout of `path`, a folder or a `data.yaml`, and list its files.

    Raises:
        DatasetError: If there is nothing there, or a `data.yaml` is at fault.
    """
    if path.is_file():
        return _list_yaml(path, rule, findings)
    if not path.is_dir():
        message = f"there is no dataset at {path}; correct the path"
        raise DatasetError([error("", "missing-path", message)])
    for name in YAML_NAMES:
        if (path / name).is_file():
            return _list_yaml(path / name, rule, findings)
    names = Names(name for name in walk(path, "", findings) if not _is_note(name))
    if task is Task.CLASSIFY or (task is None and _looks_like_folders(names)):
        return _list_folders(path, names, rule, findings)
    if any((path / folder / "train").is_dir() for folder in ("", "images")):
        message = (
            "folders called train and val are a split only with a data.yaml; images are split by their names"
        )
        findings.append(warning("", "split-ignored", message))
    classes = _read_classes(path, findings) if (path / CLASSES_FILE).is_file() else ()
    return Listing(path, Layout.FLAT, names, lambda name: (assign(name, rule),), classes)


def _is_note(name: str) -> bool:
    """Whether a text at the top is there for people, or names the classes, and is no label."""
    return name == CLASSES_FILE or name.lower() in {"readme.txt", "license.txt", "licence.txt"}


def _looks_like_folders(names: Names) -> bool:
    """Images in folders only, and not one label: that is a classification tree."""
    return len(names) > 0 and all(
        is_image(name) and "/" in name and not name.startswith("images/") for name in names
    )


def _read_classes(root: Path, findings: list[Finding]) -> tuple[str, ...]:
    file = root / CLASSES_FILE
    if file.is_symlink() or file.stat().st_size > MAX_BYTES:
        findings.append(
            error(CLASSES_FILE, "malformed-classes", "is no plain small text file; list one name a line")
        )
        return ()
    try:
        return tuple(line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip())
    except UnicodeDecodeError:
        findings.append(error(CLASSES_FILE, "malformed-classes", "is not UTF-8 text; save it as UTF-8"))
        return ()


def _list_folders(root: Path, names: Names, rule: SplitRule, findings: list[Finding]) -> Listing:
    """A classification tree. Folders called train and val (or test) at the top are the splits."""
    tops = {entry.name for entry in root.iterdir() if entry.is_dir() and not hidden(entry.name)}
    given = "train" in tops and tops <= set(SPLIT_FOLDERS)
    depth = 1 if given else 0

    def split_of(name: str) -> tuple[Split, ...]:
        if not given:
            return (assign(name, rule),)
        return (SPLIT_FOLDERS[name.partition("/")[0]],)

    def class_of(name: str) -> str:
        return name.split("/", depth + 1)[depth]

    classes = set()
    kept = []
    for name in names:
        if not is_image(name):
            continue
        if name.count("/") <= depth:
            message = "lies in no class folder; move it into the folder of its class"
            findings.append(error(name, "no-class", message))
            continue
        classes.add(class_of(name))
        kept.append(name)
    return Listing(root, Layout.FOLDERS, Names(kept), split_of, tuple(sorted(classes)), class_of=class_of)


def _list_yaml(file: Path, rule: SplitRule, findings: list[Finding]) -> Listing:
    data = read_data_yaml(file)
    findings += data.warnings
    root = file.parent / data.base if data.base else file.parent
    sources: dict[str, set[Split]] = {}
    for split, source in [(one, source) for one in SPLITS for source in data.sources[one]]:
        sources.setdefault(source, set()).add(split)
    folders = {source: splits for source, splits in sources.items() if (root / source).is_dir()}
    lists = {source: splits for source, splits in sources.items() if source not in folders}
    listed: dict[str, set[Split]] = {}
    for source, splits in lists.items():
        for image in _read_list(root, source, findings):
            listed.setdefault(image, set()).update(splits)
    names = set(listed) | {label_name(image) for image in listed if (root / label_name(image)).exists()}
    walked = {folder for folder in {*folders, *map(_label_folder, folders)} if (root / folder).is_dir()}
    for folder in _outermost(walked):
        names.update(walk(root, folder, findings))
    make_val = not data.sources["val"]
    if make_val:
        message = "val is missing; a part of train is held back for it, by the hash of the file names"
        findings.append(warning(file.name, "split-made", message))

    def splits_of(name: str) -> tuple[Split, ...]:
        inside = (splits for folder, splits in folders.items() if not folder or name.startswith(folder + "/"))
        found = set(listed.get(name, ())).union(*inside)
        if make_val and "train" in found:
            found = found - {"train"} | {assign(name, SplitRule(rule.seed, rule.val))}
        return tuple(found)

    return Listing(
        root,
        Layout.YAML,
        Names(sorted(name for name in names if name not in lists and not _is_note(name))),
        splits_of,
        data.classes,
        data.keypoint_shape,
        data.flip_idx,
    )


def _label_folder(images: str) -> str:
    """Return the folder of the labels that belong to a folder of images."""
    return label_name(f"{images}/x.").rpartition("/")[0] if images else images


def _outermost(folders: set[str]) -> list[str]:
    """Return the folders that lie in none of the others, so that no file is walked twice."""
    return [
        folder
        for folder in sorted(folders)
        if not any(folder != other and (not other or folder.startswith(other + "/")) for other in folders)
    ]


def _read_list(root: Path, source: str, findings: list[Finding]) -> list[str]:
    """Read a .txt list of images. A leading `./` means the list's own folder, as in Ultralytics; else the root."""
    if not source.endswith(".txt"):
        findings.append(
            error(source, "malformed-yaml", "is neither a folder nor a .txt list; correct data.yaml")
        )
        return []
    if (root / source).stat().st_size > 64 * MAX_BYTES:
        findings.append(
            error(source, "huge-file", f"is larger than {64 * MAX_BYTES >> 20} MiB; split the list")
        )
        return []
    try:
        lines = (root / source).read_text("utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as fault:
        reason = getattr(fault, "strerror", None) or "not UTF-8"
        findings.append(error(source, "unreadable-file", f"cannot be read ({reason}); list one image a line"))
        return []
    images = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        parts = PurePosixPath(text).parts
        if (
            text.startswith(("/", "~"))
            or ".." in parts
            or "\\" in text
            or ":" in text
            or not text.isprintable()
        ):
            message = f"{text[:200]!r} leads out of the dataset; write a path relative to it, without '..'"
            findings.append(error(source, "outside-path", message, number))
            continue
        base = PurePosixPath(source).parent if text.startswith("./") else PurePosixPath()
        name = str(base / PurePosixPath(*parts))
        if not is_image(name) or any(map(hidden, parts)):
            message = f"{text[:200]!r} is no image that Ultralytics reads; correct or remove the line"
            findings.append(error(source, "no-image", message, number))
        elif any((root / parent).is_symlink() for parent in (name, *map(str, PurePosixPath(name).parents))):
            findings.append(error(source, "symlink", f"{text[:200]!r} is or lies behind a symlink", number))
        elif not (root / name).is_file():
            findings.append(
                error(source, "missing-path", f"{text[:200]!r} does not exist; correct the line", number)
            )
        else:
            images.append(name)
    return images
