"""Datasets whose description names folders and lists of images for each split: `data.yaml`, Darknet's `obj.data`."""

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gpu_offload.dataset.census import Reason
from gpu_offload.dataset.class_folders import report_unread
from gpu_offload.dataset.class_names import read_classes
from gpu_offload.dataset.data_yaml import DataYaml, read_data_yaml
from gpu_offload.dataset.finding import DatasetError, Findings, error
from gpu_offload.dataset.image_list import Allowance, read_list
from gpu_offload.dataset.layout import DatasetFiles, Layout, label_name
from gpu_offload.dataset.notes import is_note
from gpu_offload.dataset.paths import Names
from gpu_offload.dataset.split import SPLITS, Split
from gpu_offload.dataset.walk import Found, walk
from gpu_offload.dataset.written_path import first_link, is_file, last_parts, resolve

_MAX_DESCRIPTION: Final = 1 << 20


def list_data_yaml(file: Path, found: Found) -> DatasetFiles:
    """List what a `data.yaml` names. Raises DatasetError if the file is at fault."""
    data = read_data_yaml(file)
    found.findings += data.warnings
    return _list_sources(file.parent / data.base if data.base else file.parent, file, data, found)


def list_darknet(file: Path, found: Found) -> DatasetFiles:
    """List what an `obj.data` names: lists of images for train and valid, and a file of class names.

    Raises:
        DatasetError: If a file that it names is not there.
    """
    values = _darknet_values(file)
    root = file.parent
    sources: dict[str, tuple[str, ...]] = {"train": (), "val": (), "test": ()}
    for key, split in (("train", "train"), ("valid", "val"), ("val", "val"), ("test", "test")):
        if key in values:
            name = _near(root, values[key])
            if name is not None:
                sources[split] = (*sources[split], name)
            elif split == "train":
                found.findings.append(
                    error(
                        file.name,
                        "missing-path",
                        f"{values[key][:200]!r} (train) does not exist; restore the list",
                    )
                )
    names = _near(root, values.get("names", "obj.names"))
    if names is None:
        message = "the file of class names (names = ...) does not exist; restore it"
        found.findings.append(error(file.name, "missing-path", message))
    if names is None or not sources["train"]:
        raise DatasetError(found.findings)
    classes = read_classes(root, names, found.findings)
    data = DataYaml("", sources, classes, None, None)
    return _list_sources(root, file, data, found, frozenset({file.name, names}))


def is_darknet(file: Path) -> bool:
    """Whether a file is an `obj.data`: lines of `key = value`, `train` and `names` among them."""
    return {"train", "names"} <= set(_darknet_values(file))


def _darknet_values(file: Path) -> Mapping[str, str]:
    try:
        if file.is_symlink() or file.stat().st_size > _MAX_DESCRIPTION:
            return {}
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return {}
    return {
        match[1]: match[2] for match in re.finditer(r"(?m)^[ \t]*(\w+)[ \t]*=[ \t]*(\S.*?)[ \t\r]*$", text)
    }


def _near(root: Path, written: str) -> str | None:
    """Return the file that a description means: as it is written, or in its last parts (`data/train.txt`)."""
    written = written.replace("\\", "/")
    if resolve(root, written) is not None:
        return resolve(root, written)
    return next(iter(last_parts(root, f"/{written}")), None)


def _list_sources(
    root: Path,
    file: Path,
    data: DataYaml,
    found: Found,
    descriptions: frozenset[str] = frozenset(),
) -> DatasetFiles:
    findings, census = found.findings, found.census
    sources: dict[str, set[Split]] = {}
    for split, source in [(one, source) for one in SPLITS for source in data.sources[one]]:
        sources.setdefault(source, set()).add(split)
    folders = {source: splits for source, splits in sources.items() if (root / source).is_dir()}
    lists = {source: splits for source, splits in sources.items() if source not in folders}
    listed: dict[str, set[Split]] = {}
    allowance = Allowance()
    for source, splits in lists.items():
        for image in read_list(root, source, findings, census, allowance):
            listed.setdefault(image, set()).update(splits)
    labels = {label for label in map(label_name, listed) if is_file(root / label)}
    names = {*listed, *labels}
    label_folders = {*map(_label_folder, folders), *map(posixpath.dirname, labels)}
    # Links among the images were reported with the source; `walk` sees only those below the folders that it is given.
    if links := {link for folder in label_folders if (link := first_link(root, folder)) is not None}:
        message = "is a symlink; put the real folder there"
        raise DatasetError([*findings, *(error(link, "symlink", message) for link in sorted(links))])
    walked = {folder for folder in {*folders, *map(_label_folder, folders)} if (root / folder).is_dir()}
    before = len(found.unread)
    for folder in _outermost(walked):
        names.update(walk(root, folder, found))
    report_unread(found.unread[before:], found)
    ignored = {
        *lists,
        *descriptions,
        file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name,
    }
    _count_the_rest(root, names, walked, ignored, found)
    notes = sorted(filter(is_note, names - ignored))
    for name in notes:
        census.count(Reason.NOTE, name)
    makes_val = not data.sources["val"]

    def splits_of(name: str) -> set[Split]:
        inside = (splits for folder, splits in folders.items() if not folder or name.startswith(folder + "/"))
        return set(listed.get(name, ())).union(*inside)

    return DatasetFiles(
        root,
        Layout.YAML,
        Names(sorted(names.difference(ignored, notes))),
        splits_of,
        data.classes,
        data.keypoint_shape,
        data.flip_idx,
        census=census,
        given_split=True,
        makes_val=makes_val,
        odd_texts=found.odd_texts,
    )


def _count_the_rest(root: Path, names: set[str], walked: set[str], ignored: set[str], found: Found) -> None:
    """Count the pictures and labels that the description does not name; they are at fault in nothing."""
    if "" in walked:
        return
    aside = Found(Findings(), frozenset(ignored))
    for name in walk(root, "", aside, frozenset(walked)):
        if name not in names and name not in ignored:
            found.census.count(Reason.NOTE if is_note(name) else Reason.UNNAMED, name)
    for name in (*aside.unread, *aside.annotations, *aside.odd_texts):
        found.census.count(Reason.UNNAMED, name)
    for reason, number in aside.census.counts.items():
        for name in aside.census.examples[reason]:
            found.census.count(reason, name, 0)
        found.census.counts[reason] += number


def _label_folder(images: str) -> str:
    """Return the folder of the labels that belong to a folder of images."""
    return label_name(f"{images}/x.").rpartition("/")[0] if images else images


def _outermost(folders: set[str]) -> list[str]:
    """Return the folders that are in none of the others, so that no file is walked twice."""
    return [
        folder
        for folder in sorted(folders)
        if not any(folder != other and (not other or folder.startswith(other + "/")) for other in folders)
    ]
