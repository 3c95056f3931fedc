"""The training tree: a dataset in the one form that the training module reads, on the runner and on the instance.

dataset.json                                     what `TreeInfo` holds, and each file with its sha256
images/{train,val,test}/<image's path>           detection, segmentation, pose
labels/{train,val,test}/<image's path>.txt
{train,val,test}/<class>/<image's path>          classification
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_offload.dataset.finding import DatasetError, error
from gpu_offload.dataset.fingerprint import fingerprint
from gpu_offload.dataset.layout import image_path, label_name
from gpu_offload.dataset.samples import Sample
from gpu_offload.dataset.tree_files import digest_of, link_files, verify_files
from gpu_offload.dataset.tree_manifest import DESCRIPTION, TreeFile, TreeInfo, TreeSample, encode, read_tree

if TYPE_CHECKING:
    from gpu_offload.dataset.snapshot import Snapshot


def materialise(snapshot: "Snapshot", directory: Path) -> Path:
    """Lay out the training tree of a snapshot as `directory`, and return it.

    Files are hard links where the file system allows, else copies; never symlinks, through which a training tool
    would write its caches beside the user's files. A tree of the same fingerprint that holds just its files, each
    with its content, is left as it is, but for the caches a training left in it; any other is replaced in one rename.

    Raises:
        DatasetError: If a file is not what the snapshot says any more, or something else is at `directory`.
    """
    wanted = fingerprint(snapshot)
    if os.path.lexists(directory):
        is_folder = directory.is_dir() and not directory.is_symlink()
        if not is_folder or (not (directory / DESCRIPTION).is_file() and any(directory.iterdir())):
            message = f"{directory} is no training tree; remove it or choose another folder"
            raise DatasetError([error("", "not-a-tree", message)])
        _drop_caches(directory)
        if _intact(snapshot.root, directory, wanted):
            return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        work.chmod(0o755)  # a training in isolation reads it as another user
        info = describe(snapshot, work)
        _check_paths(info)
        sources = link_files(snapshot, work, info)
        verify_files(snapshot, work, info, sources)
        (work / DESCRIPTION).write_bytes(encode(info))
        replace_tree(work, directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return directory


def describe(snapshot: "Snapshot", directory: Path) -> TreeInfo:
    """Say what the training tree of a snapshot holds, and where."""
    sizes: dict[str, int] = {}
    samples = tuple(_describe_sample(snapshot, sample, sizes) for sample in snapshot.samples)
    return TreeInfo(
        directory=directory,
        task=snapshot.task,
        classes=snapshot.classes,
        keypoint_shape=snapshot.keypoint_shape,
        flip_idx=snapshot.flip_idx,
        split_rule=snapshot.split_rule,
        fingerprint=fingerprint(snapshot),
        samples=samples,
    )


def _describe_sample(snapshot: "Snapshot", sample: Sample, sizes: dict[str, int]) -> TreeSample:
    image = image_path(sample.image, sample.split, sample.class_index, snapshot.classes)
    label = None
    label_size = 0
    if sample.label is not None and sample.label_sha256 is not None:
        if sample.label not in sizes:
            converted = snapshot.labels.get(sample.label)
            sizes[sample.label] = (
                (snapshot.root / sample.label).stat().st_size if converted is None else len(converted)
            )
        label_size = sizes[sample.label]
        label = TreeFile(label_name(image), sample.label, sample.label_sha256, label_size)
    file = TreeFile(image, sample.image, sample.image_sha256, sample.size - label_size)
    return TreeSample(sample.split, file, label, sample.width, sample.height, sample.class_index)


def _drop_caches(directory: Path) -> None:
    """Delete caches of training tools from a tree: the tools would trust them."""
    for folder, _, files in os.walk(directory):
        for name in files:
            if name.endswith(".cache"):
                (Path(folder) / name).unlink()


def replace_tree(work: Path, directory: Path) -> None:
    """Put a finished tree in its place; what was there goes."""
    if directory.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{directory.name}.old.", dir=directory.parent))
        try:
            directory.rename(old / "tree")
            work.rename(directory)
        finally:
            shutil.rmtree(old, ignore_errors=True)
    else:
        work.rename(directory)


def _intact(root: Path, directory: Path, wanted: str) -> bool:
    """Whether a tree is of this fingerprint, and each file in it is what the fingerprint says; nothing else is there.

    A file that is the very file of the dataset, which the snapshot has just read, is not read again.
    """
    try:
        info = read_tree(directory)
        if info.fingerprint != wanted:
            return False
        files = {file.path: file for file in info.files()}
        if set(_plain_files(directory)) != {DESCRIPTION, *files}:
            return False
        return all(_is_file(root, directory, file) for file in files.values())
    except (DatasetError, OSError):
        return False


def _plain_files(directory: Path, prefix: str = "") -> Iterator[str]:
    """Yield every file below a folder by its path in it. Raises OSError for what is neither file nor folder."""
    with os.scandir(directory / prefix) as entries:
        for entry in entries:
            path = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _plain_files(directory, f"{path}/")
            elif entry.is_file(follow_symlinks=False):
                yield path
            else:
                raise OSError(f"{path} is neither a file nor a folder")


def _is_file(root: Path, directory: Path, file: TreeFile) -> bool:
    path = directory / file.path
    found = path.lstat()
    with suppress(OSError):
        if os.path.samestat(found, (root / file.origin).lstat()):
            return True
    return found.st_size == file.size and digest_of(path)[0].hex() == file.sha256


def _check_paths(info: TreeInfo) -> None:
    """Refuse two files that would have one path in the tree (`images/a.jpg` and `images_/a.jpg`)."""
    origins: dict[str, str] = {}
    findings = []
    for file in (file for one in info.samples for file in (one.image, one.label) if file is not None):
        first = origins.setdefault(file.path, file.origin)
        if first != file.origin:
            message = f"has the same path in the training tree as {first}; rename one"
            findings.append(error(file.origin, "name-clash", message))
    if findings:
        raise DatasetError(findings)
