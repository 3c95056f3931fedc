"""The training tree: a dataset in the one form that the training module reads, on the runner and on the instance.

dataset.json                                     what `TreeInfo` holds, and each file with its sha256
images/{train,val,test}/<image's path>           detection, segmentation, pose
labels/{train,val,test}/<image's path>.txt
{train,val,test}/<class>/<image's path>          classification
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from gpu_offload.dataset.finding import DatasetError, error
from gpu_offload.dataset.fingerprint import fingerprint, portable
from gpu_offload.dataset.layout import label_name, split_named
from gpu_offload.dataset.samples import Sample
from gpu_offload.dataset.snapshot import Snapshot
from gpu_offload.dataset.stat_cache import Stat, believable, refresh, stat_of
from gpu_offload.dataset.tree_manifest import (
    DESCRIPTION,
    TreeFile,
    TreeInfo,
    TreeSample,
    encode,
    read_tree,
)

__all__ = ["TreeFile", "TreeInfo", "TreeSample", "drop_caches", "materialise", "read_tree"]


def materialise(snapshot: Snapshot, directory: Path) -> Path:
    """Lay out the training tree of a snapshot as `directory`, and return it.

    Files are hard links where the file system allows, else copies; never symlinks, through which a training tool
    would write its caches beside the user's files. A tree of the same fingerprint that holds just its files, each
    with its content, is left as it is, but for the caches a training left in it; any other is replaced in one rename.

    Raises:
        DatasetError: If a file is not what the snapshot says any more, or something else is at `directory`.
    """
    directory = Path(directory)
    wanted = fingerprint(snapshot)
    if os.path.lexists(directory):
        if directory.is_symlink() or (not (directory / DESCRIPTION).is_file() and any(directory.iterdir())):
            message = f"{directory} is no training tree; remove it or choose another folder"
            raise DatasetError([error("", "not-a-tree", message)])
        drop_caches(directory)
        if _intact(snapshot.root, directory, wanted):
            return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        work.chmod(0o755)
        info = describe(snapshot, work)
        _check_paths(info)
        sources = _link(snapshot, work, info)
        _verify(snapshot, work, info, sources)
        (work / DESCRIPTION).write_bytes(encode(info))
        replace_tree(work, directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return directory


def describe(snapshot: Snapshot, directory: Path) -> TreeInfo:
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


def _describe_sample(snapshot: Snapshot, sample: Sample, sizes: dict[str, int]) -> TreeSample:
    image = image_path(sample, snapshot.classes)
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


def image_path(sample: Sample, classes: tuple[str, ...]) -> str:
    """Return where an image lies in the tree.

    A folder called `images` in the dataset is called `images_` here: Ultralytics finds a label by the last folder
    of that name, which must be the tree's own.
    """
    parts = portable(sample.image).split("/")
    if sample.class_index is not None:
        folder = portable(classes[sample.class_index])
        below_split = len(parts) > 2 and split_named(parts[0]) is not None and parts[1] == folder
        return "/".join([sample.split, folder, *parts[2 if below_split else 1 :]])
    escaped = ["images_" if part == "images" else part for part in parts[:-1]]
    return "/".join(["images", sample.split, *escaped, parts[-1]])


def drop_caches(directory: Path) -> None:
    """Delete what a training tool cached in a tree: it would be believed, whoever wrote it."""
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


def make_folders(directory: Path, info: TreeInfo) -> None:
    """Make every folder of a tree."""
    for folder in sorted({*info.folders(), *(str(PurePosixPath(file.path).parent) for file in info.files())}):
        (directory / folder).mkdir(parents=True, exist_ok=True)


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
    return found.st_size == file.size and _digest(path)[0].hex() == file.sha256


def _check_paths(info: TreeInfo) -> None:
    """Refuse two files that would lie at one place of the tree (`images/a.jpg` and `images_/a.jpg`)."""
    origins: dict[str, str] = {}
    findings = []
    for file in _every(info.samples):
        first = origins.setdefault(file.path, file.origin)
        if first != file.origin:
            message = f"would lie where {first} lies in the training tree; rename one"
            findings.append(error(file.origin, "name-clash", message))
    if findings:
        raise DatasetError(findings)


def _every(samples: Iterable[TreeSample]) -> Iterator[TreeFile]:
    for sample in samples:
        yield sample.image
        if sample.label is not None:
            yield sample.label


def _link(snapshot: Snapshot, work: Path, info: TreeInfo) -> set[str]:
    """Link, copy or write every file; return the paths in the dataset that were linked."""
    make_folders(work, info)
    linked: set[str] = set()
    for file in info.files():
        source, target = snapshot.root / file.origin, work / file.path
        converted = snapshot.labels.get(file.origin)
        if converted is not None:
            target.write_bytes(converted)
            continue
        try:
            os.link(source, target, follow_symlinks=False)
            linked.add(file.origin)
        except OSError:
            _copy(source, target)
    return linked


def _copy(source: Path, target: Path) -> None:
    with suppress(FileNotFoundError):  # said by the verification, with all the others
        shutil.copyfile(source, target, follow_symlinks=False)


def _verify(snapshot: Snapshot, work: Path, info: TreeInfo, linked: set[str]) -> None:
    """Read every file of the new tree: it must be what was fingerprinted.

    A hard link touches the ctime of the user's file, so that the stat cache would read it again: the cache is told.
    """
    started = time.time_ns()
    stats: dict[str, tuple[bytes, Stat]] = {}
    findings = []
    for file in info.files():
        path = work / file.path
        try:
            seen = stat_of(path.lstat())
            digest, torn = _digest(path)
        except OSError as fault:
            message = f"cannot be read ({fault.strerror}); run again when nothing writes to the dataset"
            findings.append(error(file.origin, "changed", message))
            continue
        if digest.hex() != file.sha256:
            message = "changed since it was fingerprinted; run again when nothing writes to the dataset"
            findings.append(error(file.origin, "changed", message))
        elif file.origin in linked:
            if torn:
                _unlink_from_user(path)
                seen = stat_of((snapshot.root / file.origin).lstat())
            stats[file.origin] = (digest, believable(seen, started))
    if findings:
        raise DatasetError(findings)
    if snapshot.cache is not None and stats:
        refresh(snapshot.cache, stats)


def _digest(path: Path) -> tuple[bytes, bool]:
    """Return sha256, and whether this is a JPEG with something behind its end.

    Ultralytics rewrites such a file; some versions do it in place, and then a hard link would hand the change on
    to the user's own file.
    """
    digest, head, tail = hashlib.sha256(), b"", b""
    with path.open("rb") as file:
        while piece := file.read(1 << 18):
            digest.update(piece)
            head = head or piece[:3]
            tail = (tail + piece[-2:])[-2:]
    return digest.digest(), head == b"\xff\xd8\xff" and tail != b"\xff\xd9"


def _unlink_from_user(path: Path) -> None:
    copy = path.with_name(f".{path.name}.copy")
    shutil.copyfile(path, copy)
    copy.replace(path)
