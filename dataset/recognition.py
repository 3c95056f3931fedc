"""Finds out which layout a dataset has; `offload init`, check, plan and train all ask here."""

from pathlib import Path
from typing import Final

from gpu_offload.dataset.annotation_files import AnnotationFile, Format, annotation_files
from gpu_offload.dataset.census import Reason
from gpu_offload.dataset.class_folders import list_class_folders, looks_like_class_folders
from gpu_offload.dataset.finding import DatasetError, Findings, error, some
from gpu_offload.dataset.flat import has_labels, list_flat
from gpu_offload.dataset.git import empty_submodule
from gpu_offload.dataset.label_places import where_labels_are
from gpu_offload.dataset.layout import Listing, is_image
from gpu_offload.dataset.notes import is_note
from gpu_offload.dataset.paths import Names
from gpu_offload.dataset.sources import is_darknet, list_darknet, list_data_yaml
from gpu_offload.dataset.split import SplitRule
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.walk import Found, is_text, walk

YAML_NAMES: Final = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
YAML_SUFFIXES: Final = (".yaml", ".yml")


def list_dataset(
    path: Path, task: Task | None, classes: tuple[str, ...], rule: SplitRule, findings: Findings
) -> Listing:
    """Find out the layout of `path`, a folder or a description such as `data.yaml`, and list its files.

    Args:
        path: What the settings name.
        task: What is to be learnt, if that is said.
        classes: Class names, if the settings give them.
        rule: How images are divided that come without a split.
        findings: What is wrong or doubtful is added here.

    Raises:
        DatasetError: If there is nothing, the layout is doubtful, or a description is at fault.
    """
    found = Found(findings)
    if path.is_file():
        return _list_description(path, rule, found)
    if _is_empty(path) and (submodule := empty_submodule(path.absolute())) is not None:
        message = (
            f"{path} is in the submodule {submodule}, which is not checked out; run `git submodule update --init "
            f"{submodule}`; in a workflow, give actions/checkout the input `submodules: true`"
        )
        raise DatasetError([error("", "empty-submodule", message)])
    if not path.is_dir():
        what = "is a symlink that leads nowhere" if path.is_symlink() else "does not exist"
        raise DatasetError([error("", "missing-path", f"the dataset {path} {what}; correct dataset.path")])
    for name in YAML_NAMES:
        if (path / name).is_file():
            return list_data_yaml(path / name, rule, found)
    if (path / "obj.data").is_file():
        return list_darknet(path / "obj.data", rule, found)
    names = Names(walk(path, "", found))
    labelled = task is not Task.CLASSIFY and has_labels(names)
    annotations, others = annotation_files(path, found.annotations)
    for name in others:
        found.census.count(Reason.OTHER, name)
    if annotations and not labelled:
        _refuse_annotations(annotations, found)
    if task is Task.CLASSIFY or (task is None and not labelled and _has_class_folders(names, found)):
        return list_class_folders(path, names, classes, rule, found)
    return list_flat(path, names, rule, found)


def _is_empty(path: Path) -> bool:
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def _list_description(file: Path, rule: SplitRule, found: Found) -> Listing:
    if file.name.endswith(YAML_SUFFIXES):
        return list_data_yaml(file, rule, found)
    if is_darknet(file):
        return list_darknet(file, rule, found)
    message = f"{file.name} is no description of a dataset that is read; name a folder or a data.yaml"
    raise DatasetError([error(file.name, "unknown-description", message)])


def _has_class_folders(names: Names, found: Found) -> bool:
    """Whether the images are in folders, and no text looks like the label of one of them."""
    if not looks_like_class_folders(names):
        return False
    texts = [name for name in names if is_text(name) and not is_note(name)]
    return where_labels_are(filter(is_image, names), texts, found.odd_texts) is None


def _refuse_annotations(annotations: list[AnnotationFile], found: Found) -> None:
    """Refuse pictures without labels that come with annotations of another format."""
    by_format: dict[Format, list[str]] = {}
    for file in annotations:
        by_format.setdefault(file.format, []).append(file.name)
    what = "; ".join(f"{kind} annotations ({some(names)})" for kind, names in by_format.items())
    message = (
        f"the images have no YOLO labels, but there are {what}; export the annotations from the labelling tool "
        "as YOLO labels"
    )
    raise DatasetError([*found.findings, error("", "foreign-annotations", message)])
