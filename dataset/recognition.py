"""Finds out which layout a dataset has; `offload init`, check, plan and train all ask here."""

import os
from pathlib import Path, PurePosixPath
from typing import Final

from gpu_offload.dataset.annotation_files import (
    AnnotationFile,
    AnnotationFormat,
    annotation_files,
    starts_with,
)
from gpu_offload.dataset.census import Reason
from gpu_offload.dataset.class_folders import list_class_folders, looks_like_class_folders, report_unread
from gpu_offload.dataset.coco import list_coco
from gpu_offload.dataset.conversion import AnnotatedFolder
from gpu_offload.dataset.data_yaml import describes_dataset
from gpu_offload.dataset.finding import DatasetError, Findings, error, some
from gpu_offload.dataset.flat import has_labels, list_flat
from gpu_offload.dataset.git import empty_submodule
from gpu_offload.dataset.label_places import where_labels_are
from gpu_offload.dataset.layout import DatasetFiles, is_image
from gpu_offload.dataset.lfs import LFS_POINTER, LFS_REMEDY
from gpu_offload.dataset.ndjson import list_ndjson
from gpu_offload.dataset.notes import is_note
from gpu_offload.dataset.paths import Names
from gpu_offload.dataset.sources import is_darknet, list_darknet, list_data_yaml
from gpu_offload.dataset.split import SplitRule
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.voc import list_voc
from gpu_offload.dataset.walk import Found, is_text, walk

YAML_NAMES: Final = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
YAML_SUFFIXES: Final = (".yaml", ".yml")


def list_dataset(
    path: Path, task: Task | None, classes: tuple[str, ...], rule: SplitRule, findings: Findings
) -> DatasetFiles:
    """Find out the layout of `path`, a folder or a description such as `data.yaml`, and list its files.

    Task and classes are those that the settings name, if any. What is wrong or doubtful is added to `findings`.

    Raises:
        DatasetError: If there is nothing, the layout is doubtful, or a description is at fault.
    """
    found = Found(findings)
    if path.is_file():
        return _list_description(path, task, classes, rule, found)
    _check_exists(path)
    for name in YAML_NAMES:
        if (path / name).is_file():
            return list_data_yaml(path / name, found)
    if (path / "obj.data").is_file():
        return list_darknet(path / "obj.data", found)
    names = Names(walk(path, "", found))
    # Labels at their place go before annotation files: many exports hold both, and Ultralytics reads the labels.
    labelled = task is not Task.CLASSIFY and has_labels(names)
    annotations, others = annotation_files(path, found.annotations)
    annotations = _that_count(annotations, names, found)
    annotations += _damaged(annotations, others)
    for name in sorted(set(others) - {file.name for file in annotations}):
        found.census.count(Reason.OTHER, name)
    if annotations and not labelled and task is not Task.CLASSIFY:
        return _list_annotated(AnnotatedFolder(path, names, task, classes, rule, found), annotations)
    for annotation in annotations:
        found.census.count(Reason.UNNAMED, annotation.name)
    if task is Task.CLASSIFY or (task is None and not labelled and _has_class_folders(names, found)):
        return list_class_folders(path, names, classes, rule, found)
    _check_undescribed(path, found)
    if not labelled:
        _check_pointers(path, others, found)
    return list_flat(path, names, rule, found)


def _check_undescribed(path: Path, found: Found) -> None:
    """Doubt a folder with a description under another name, which says what the classes and the splits are."""
    with os.scandir(path) as entries:
        others = sorted(entry.name for entry in entries if entry.name.endswith(YAML_SUFFIXES))
    if describing := [name for name in others if describes_dataset(path / name)]:
        message = (
            f"{some(describing)} could describe the dataset; set dataset.path to that file, or move it out"
        )
        found.findings.append(error("", "doubtful-layout", message))


def _check_pointers(path: Path, others: list[str], found: Found) -> None:
    """Refuse images without labels beside annotation files that Git LFS did not fetch."""
    if pointers := [name for name in sorted(others) if starts_with(path / name, LFS_POINTER)]:
        message = f"{some(pointers)} in place of the annotations: pointers of Git LFS; {LFS_REMEDY}"
        raise DatasetError([*found.findings, error("", "lfs-pointer", message)])


def _check_exists(path: Path) -> None:
    is_empty = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if is_empty and (submodule := empty_submodule(path.absolute())) is not None:
        message = (
            f"{path} is in the submodule {submodule}, which is not checked out; run `git submodule update --init "
            f"{submodule}`; in a workflow, give actions/checkout the input `submodules: true`"
        )
        raise DatasetError([error("", "empty-submodule", message)])
    if not path.is_dir():
        what = "is a symlink that leads nowhere" if path.is_symlink() else "does not exist"
        raise DatasetError([error("", "missing-path", f"the dataset {path} {what}; correct dataset.path")])


def _list_description(
    file: Path, task: Task | None, classes: tuple[str, ...], rule: SplitRule, found: Found
) -> DatasetFiles:
    if file.name.endswith(YAML_SUFFIXES):
        return list_data_yaml(file, found)
    if is_darknet(file):
        return list_darknet(file, found)
    annotations, _ = annotation_files(file.parent, [file.name])
    if annotations:
        names = Names(walk(file.parent, "", found))
        return _list_annotated(AnnotatedFolder(file.parent, names, task, classes, rule, found), annotations)
    message = f"{file.name} is no description of a dataset that is read; name a folder, a data.yaml or a COCO or NDJSON file"
    raise DatasetError([error(file.name, "unknown-description", message)])


def _that_count(annotations: list[AnnotationFile], names: Names, found: Found) -> list[AnnotationFile]:
    """Return the annotations without tables, which say nothing of images that have classes or other annotations."""
    tables = {AnnotationFormat.CSV, AnnotationFormat.HUB}
    others = [file for file in annotations if file.format not in tables]
    if len(others) == len(annotations) or not (others or _has_class_folders(names, found)):
        return annotations
    for file in annotations:
        if file.format in tables:
            found.census.count(Reason.OTHER, file.name)
    return others


def _damaged(annotations: list[AnnotationFile], others: list[str]) -> list[AnnotationFile]:
    """Return XML files that are among Pascal VOC's and hold none of it: they are at fault, and not to be passed over."""
    folders = {PurePosixPath(file.name).parent for file in annotations if file.format is AnnotationFormat.VOC}
    return [
        AnnotationFile(name, AnnotationFormat.VOC)
        for name in others
        if name.lower().endswith(".xml") and PurePosixPath(name).parent in folders
    ]


def _has_class_folders(names: Names, found: Found) -> bool:
    """Whether the images are in folders, and no text looks like the label of one of them."""
    if not looks_like_class_folders(names):
        return False
    texts = [name for name in names if is_text(name) and not is_note(name)]
    return where_labels_are(filter(is_image, names), texts, found.odd_texts) is None


def _list_annotated(folder: AnnotatedFolder, annotations: list[AnnotationFile]) -> DatasetFiles:
    """List images whose labels are in files of another format, if they are of one that is read."""
    by_format: dict[AnnotationFormat, list[str]] = {}
    for file in sorted(annotations, key=lambda file: file.name):
        by_format.setdefault(file.format, []).append(file.name)
    found = folder.found
    what = "; ".join(f"{kind} annotations ({some(files)})" for kind, files in by_format.items())
    if len(by_format) > 1:
        message = f"the images have {what}; keep those of one format, and move the others out"
        raise DatasetError([*found.findings, error("", "doubtful-layout", message)])
    ((kind, files),) = by_format.items()
    report_unread(found.unread, found)
    if kind is AnnotationFormat.COCO:
        return list_coco(folder, files)
    if kind is AnnotationFormat.VOC:
        return list_voc(folder, files)
    if kind is AnnotationFormat.NDJSON:
        return list_ndjson(folder, files)
    message = f"the images have {what}, which are not read; export them as YOLO, COCO or Pascal VOC"
    raise DatasetError([*found.findings, error("", "foreign-annotations", message)])
