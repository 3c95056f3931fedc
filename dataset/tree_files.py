"""Links, copies and verifies the files of a training tree."""

import hashlib
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from gpu_offload.dataset.finding import DatasetError, error
from gpu_offload.dataset.stat_cache import Stat, believable, refresh, stat_of
from gpu_offload.dataset.tree_manifest import TreeInfo

if TYPE_CHECKING:
    from gpu_offload.dataset.snapshot import Snapshot


def link_files(snapshot: "Snapshot", work: Path, info: TreeInfo) -> set[str]:
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
            with suppress(FileNotFoundError):  # said by the verification, with all the others
                shutil.copyfile(source, target, follow_symlinks=False)
    return linked


def verify_files(snapshot: "Snapshot", work: Path, info: TreeInfo, linked: set[str]) -> None:
    """Read every file of the new tree: it must be what was fingerprinted.

    A hard link touches the ctime of the user's file, so that the stat cache would read it again: the cache gets the new one.
    """
    started = time.time_ns()
    stats: dict[str, tuple[bytes, Stat]] = {}
    findings = []
    for file in info.files():
        path = work / file.path
        try:
            seen = stat_of(path.lstat())
            digest, torn = digest_of(path)
        except OSError as fault:
            message = f"cannot be read ({fault.strerror}); run again when nothing writes to the dataset"
            findings.append(error(file.origin, "changed", message))
            continue
        if digest.hex() != file.sha256:
            message = "changed since it was fingerprinted; run again when nothing writes to the dataset"
            findings.append(error(file.origin, "changed", message))
        elif file.origin in linked:
            if torn:
                copy = path.with_name(f".{path.name}.copy")
                shutil.copyfile(path, copy)
                copy.replace(path)
                seen = stat_of((snapshot.root / file.origin).lstat())
            stats[file.origin] = (digest, believable(seen, started))
    if findings:
        raise DatasetError(findings)
    if snapshot.cache is not None and stats:
        refresh(snapshot.cache, stats)


def digest_of(path: Path) -> tuple[bytes, bool]:
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


def make_folders(directory: Path, info: TreeInfo) -> None:
    """Make every folder of a tree."""
    for folder in sorted({*info.folders(), *(str(PurePosixPath(file.path).parent) for file in info.files())}):
        (directory / folder).mkdir(parents=True, exist_ok=True)
