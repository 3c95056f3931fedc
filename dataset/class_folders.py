"""Classification datasets: one folder a class, perhaps below a folder for each split."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gpu_offload.dataset.census import Reason
from gpu_offload.dataset.finding import DatasetError, Finding, Findings, Severity, error, some, warning
from gpu_offload.dataset.layout import DatasetFiles, Layout, is_image, split_named
from gpu_offload.dataset.paths import Names, fold
from gpu_offload.dataset.split import Split, SplitRule, assign
from gpu_offload.dataset.walk import Found, hidden

_NO_CLASS: Final = re.compile(
    r"(fold|split|part|cv|k)[-_ ]?\d+|(ground[-_ ]?truth|gt|segmentation)?[-_ ]?masks?|images?|imgs?|labels?"
    r"|annotations?|jpegimages|imagesets|segmentation(class|object)|runs|wandb|weights|checkpoints|predictions"
    r"|outputs?|venv|__macosx|unlabell?ed|data|dataset"
)
"""What no class is called: folders of splits, of labels, and of what tools write."""


def list_class_folders(
    root: Path, names: Names, named: tuple[str, ...], rule: SplitRule, found: Found
) -> DatasetFiles:
    """List a classification tree. Folders called train, val or test at the top, in any usual spelling, are splits.

    What the settings name (`named`) is a class, however it is called. Faults are added to `found`.

    Raises:
        DatasetError: If it is doubtful which folders are classes.
    """
    findings = found.findings
    pictures = [name for name in names if is_image(name)]
    tops = {name.partition("/")[0] for name in (*pictures, *found.unread) if "/" in name}
    splits = _splits(root, tops, set(named), findings)
    depth = 1 if splits else 0
    kept = [name for name in pictures if name.count("/") > depth]
    classes = {name.split("/", depth + 1)[depth] for name in kept}
    _report_strays(pictures, depth, {name.partition("/")[0] for name in kept}, found)
    unread = {name.split("/")[depth] for name in found.unread if name.count("/") > depth}
    _check_classes(classes | unread, set(named), findings)
    _check_order(kept, depth, findings)
    report_unread(found.unread, found)
    for name in names:
        if not is_image(name):
            found.census.count(Reason.OTHER, name)
    makes_val = bool(splits) and "val" not in splits.values()
    return DatasetFiles(
        root,
        Layout.FOLDERS,
        Names(kept),
        lambda name: {splits[name.partition("/")[0]] if splits else assign(name, rule)},
        tuple(sorted(classes)),  # torchvision's ImageFolder numbers them so
        class_of=lambda name: name.split("/", depth + 1)[depth],
        census=found.census,
        given_split=bool(splits),
        makes_val=makes_val,
    )


def _report_strays(pictures: list[str], depth: int, classed: set[str], found: Found) -> None:
    """Report pictures that are in no class folder: one fault for each folder.

    Training needs no test images: those that come without classes, as in competitions, are left out with a warning.
    """
    strays: defaultdict[str, list[str]] = defaultdict(list)
    for name in pictures:
        if name.count("/") <= depth:
            strays[name.rpartition("/")[0]].append(name.rpartition("/")[2])
    for folder, names in strays.items():
        message = f"{len(names)} pictures are in no class folder ({some(names)})"
        if depth and split_named(folder) == "test" and folder not in classed:
            found.findings.append(warning(f"{folder}/", "no-class", f"{message}, and are left out"))
            found.census.count(Reason.UNNAMED, f"{folder}/{names[0]}", len(names))
        else:
            message += "; move each into the folder of its class"
            found.findings.append(error(f"{folder}/" if folder else "", "no-class", message))


def looks_like_class_folders(names: Names) -> bool:
    """Whether there are images, none at the top, and not all in folders that are called `images` or like a split."""
    folders = set()
    for name in names:
        if is_image(name):
            top, slash, below = name.partition("/")
            if not slash:
                return False
            if "/" in below or split_named(top) is None:
                folders.add(top)
    return bool(folders - {"images"})


def _splits(root: Path, tops: set[str], named: set[str], findings: Findings) -> dict[str, Split]:
    """Return the split of each folder at the top; none where these are the classes."""
    splits = {top: split for top in sorted(tops) if (split := split_named(top)) is not None}
    if not splits or (named and tops <= named):
        _check_single(root, tops)
        return {}
    others = sorted(tops - set(splits))
    if others or "train" not in splits.values():
        one = len(splits) == 1
        message = f"{some(sorted(splits))} {'is named like a split' if one else 'are named like splits'}"
        if others:
            them, are = "it" if one else "them", "is" if len(others) == 1 else "are"
            message += f", but {some(others)} beside {them} {are} none"
        else:
            message += ", but none is for training"
        message += (
            "; keep only folders of splits (train, val, test) at the top, or only folders of classes, "
            "and name all of them in dataset.classes if they are classes indeed"
        )
        raise DatasetError([*findings, error("", "doubtful-classes", message)])
    for folder in sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not hidden(entry.name)):
        if folder not in tops and split_named(folder) is not None:
            message = "is named like a split and holds no picture; restore the pictures or remove the folder"
            # Training needs no test images, so their folder may wait for them.
            severity: Severity = "warning" if split_named(folder) == "test" else "error"
            findings.append(Finding(severity, f"{folder}/", None, "empty-split", message))
    return splits


def _check_single(root: Path, tops: set[str]) -> None:
    """Refuse the folder above a dataset: one folder, in which the splits are."""
    if len(tops) != 1:
        return
    (top,) = tops
    below = [entry.name for entry in (root / top).iterdir() if entry.is_dir()]
    if any(split_named(name) == "train" for name in below):
        message = f"the splits ({some(sorted(below))}) are in {top}/; set dataset.path to that folder"
        raise DatasetError([error("", "doubtful-classes", message)])


def _check_classes(classes: set[str], named: set[str], findings: Findings) -> None:
    """Doubt a class that is called like something else, and two that differ in case."""
    doubtful = [
        name
        for name in sorted(classes - named)
        if _NO_CLASS.fullmatch(name.lower()) or split_named(name) is not None
    ]
    if doubtful:
        message = (
            f"{some(doubtful)} would be a class by this layout, and no class is usually called so; "
            "move the folder out, rename it, or name every class in dataset.classes"
        )
        findings.append(error("", "doubtful-classes", message))
    folded: dict[str, str] = {}
    said = {finding.path.rpartition("/")[2] for finding in findings if finding.code == "name-clash"}
    for name in sorted(classes):
        other = folded.setdefault(fold(name), name)
        if other != name and not said & {name, other}:
            message = (
                f"the classes {other!r} and {name!r} differ only in case or Unicode form; give them one name"
            )
            findings.append(error("", "name-clash", message))


def _check_order(names: list[str], depth: int, findings: Findings) -> None:
    """Doubt a tree in which the splits are below the classes."""
    if depth or not names:
        return
    below: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        parts = name.split("/")
        below[parts[0]].add(parts[1] if len(parts) > 2 else "")
    if all("" not in inner and all(map(split_named, inner)) for inner in below.values()):
        message = "the splits are below the classes; move them to the top: train/CLASS/, val/CLASS/"
        findings.append(error("", "doubtful-classes", message))


def report_unread(unread: Iterable[str], found: Found) -> None:
    """Report pictures that would be trained on if their format were read: one finding for each format."""
    by_suffix: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(unread):
        by_suffix[name.rpartition(".")[2].lower()].append(name)
    for ending, names in sorted(by_suffix.items()):
        # These are JPEG files under another extension; Ultralytics goes by the extension alone.
        remedy = "rename to .jpg" if ending in {"jfif", "jpe", "jif"} else "convert to JPEG or PNG"
        message = f"{len(names)} pictures are .{ending}, which Ultralytics does not read ({some(names)}); {remedy}, or remove them"
        found.findings.append(error("", "unread-format", message))
