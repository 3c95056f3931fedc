"""Goes through the folders of a dataset: pictures and texts come out sorted, everything else is noted or counted."""

import os
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gpu_offload.dataset.census import Census, Reason
from gpu_offload.dataset.finding import Finding, Findings, error
from gpu_offload.dataset.image import SUFFIXES, suffix
from gpu_offload.dataset.paths import Names, fold

MAX_DEPTH: Final = 100
"""Folders below the dataset's own. Paths of deeper ones exceed what operating systems take."""

UNREAD_PICTURES: Final = frozenset(
    {
        *("apng", "arw", "cr2", "cr3", "dcm", "dds", "dib", "exr", "gif", "hdr", "icns", "ico", "j2c", "j2k", "jfif"),
        *("jif", "jpe", "jpf", "jpx", "jxl", "nef", "nii", "orf", "pbm", "pcx", "pfm", "pgm", "pic", "pnm"),
        *("ppm", "psd", "raf", "ras", "raw", "rw2", "sr2", "svg", "tga", "xbm", "xcf", "xpm"),
    }
)  # fmt: skip
"""Extensions of pictures that Ultralytics does not read."""

_ANNOTATIONS: Final = frozenset({"json", "xml", "ndjson", "jsonl", "csv"})
_PACKED: Final = frozenset(
    {
        *("zip", "tar", "tgz", "gz", "bz2", "xz", "zst", "7z", "rar"),
        *("parquet", "arrow", "tfrecord", "tfrecords", "record", "h5", "hdf5", "lmdb", "mdb", "npz", "mat"),
    }
)
"""Extensions of files that may hold pictures, and are not opened."""
_TOOL_FOLDERS: Final = frozenset(
    {
        *("__MACOSX", "__pycache__", "node_modules", "site-packages", "wandb", "mlruns", "lightning_logs"),
        *("$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found"),
    }
)
_VENV_NAMES: Final = frozenset({"venv", "env", "virtualenv"})
_VENV_MARKS: Final = ("pyvenv.cfg", "lib", "Lib", "bin/python", "Scripts")
_RUN: Final = re.compile(r"(detect|segment|pose|classify|obb|track|train|val|predict|exp|benchmark)[-_]?\d*")
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f\\]|[\ud800-\udfff]")


@dataclass
class Found:
    """What a walk came across beside pictures and texts. Paths are relative to the dataset's root."""

    findings: Findings
    descriptions: frozenset[str] = frozenset()
    """Files that describe the dataset, such as its data.yaml."""
    census: Census = field(default_factory=Census)
    unread: list[str] = field(default_factory=list)
    """Pictures in formats that are not read."""
    annotations: list[str] = field(default_factory=list)
    """JSON, NDJSON, XML and CSV files."""
    odd_texts: list[str] = field(default_factory=list)
    """Texts whose extension is not in lower case, which Ultralytics does not find."""


def is_text(name: str) -> bool:
    """Whether a file of this name can be a label."""
    return name.endswith(".txt")


def relevant(name: str) -> bool:
    """Whether a file of this name can be an image or a label."""
    return suffix(name) in SUFFIXES or is_text(name)


def hidden(name: str) -> bool:
    """Whether a file or folder belongs to no dataset: it is hidden, or a training tool's cache."""
    return name.startswith(".") or name.endswith(".cache")


def walk(root: Path, folder: str, found: Found, skipped: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the images and texts below `root/folder` as sorted paths relative to `root`.

    What could mislead is an error and is left out: a symlink, a name that is not UTF-8 or holds control characters
    or a backslash, and two names that are one on some file systems. Folders in `skipped` are not entered.
    """
    # A stack in place of recursion: a hundred generators would slow every single path down.
    pending = [_entries(root, folder, found)]
    while pending:
        path = next(pending[-1], None)
        if path is None:
            pending.pop()
        elif not path.endswith("/"):
            yield path
        elif path[:-1] in skipped:
            continue
        elif len(pending) > MAX_DEPTH:
            message = f"is more than {MAX_DEPTH} folders deep; move the files up"
            found.findings.append(error(f"{path[:100]}...", "deep-folder", message))
        else:
            pending.append(_entries(root, path[:-1], found))


def _entries(root: Path, folder: str, found: Found) -> Iterator[str]:
    """Yield one folder's files and, with a slash behind, its folders."""
    prefix = f"{folder}/" if folder else ""
    names: list[str] = []
    try:
        with os.scandir(root / folder if folder else root) as entries:
            for entry in entries:
                _sort_entry(entry, prefix, names, found)
    except OSError as fault:
        message = f"the folder cannot be read ({fault.strerror}); change its permissions"
        found.findings.append(error(folder, "unreadable-file", message))
    names.sort()  # a folder's slash sorts as in git, so that whole paths come out sorted
    found.findings += _unsafe(prefix, names)
    found.findings += _clashes(prefix, names)
    if not "".join(names).isascii():  # surrogates stand for bytes that are not UTF-8
        names = [name for name in names if not _UNSAFE.search(name)]
    packed = Names(names)  # a list of a million names stays in memory while its folders are walked
    del names
    return (prefix + name for name in packed)


def _sort_entry(entry: os.DirEntry[str], prefix: str, names: list[str], found: Found) -> None:
    name, path = entry.name, prefix + entry.name
    ending = suffix(name)
    if hidden(name):
        reason = Reason.HIDDEN if name.startswith(".") else Reason.CACHE
        found.census.count(reason, f"{path}/" if entry.is_dir(follow_symlinks=False) else path)
    elif entry.is_dir(follow_symlinks=False):
        if is_tool_folder(entry.path, name):
            found.census.count(Reason.TOOL, f"{path}/")
        else:
            names.append(f"{name}/")
    # `entry.is_dir()` would raise for a link to itself, and the rest of the folder would go unread.
    elif entry.is_symlink() and (relevant(name) or ending in _ANNOTATIONS or os.path.isdir(entry.path)):  # noqa: PTH112
        found.findings.append(error(path, "symlink", "is a symlink; put the real file or folder there"))
    elif relevant(name):
        names.append(name)
    elif ending in UNREAD_PICTURES:
        found.unread.append(path)
    elif ending in _ANNOTATIONS and entry.is_file():  # opening a pipe would wait without end
        found.annotations.append(path)
    elif ending == "txt":
        found.odd_texts.append(path)
    elif path not in found.descriptions:
        found.census.count(Reason.PACKED if ending in _PACKED else Reason.OTHER, path)


def is_tool_folder(path: str, name: str) -> bool:
    """Whether a folder holds what a tool or an operating system left, and no pictures to train on."""
    if name in _TOOL_FOLDERS or os.path.exists(f"{path}/pyvenv.cfg"):  # noqa: PTH110 - called for every folder
        return True
    if name.lower() in _VENV_NAMES:
        return any(Path(path, mark).exists() for mark in _VENV_MARKS)
    if name != "runs":
        return False
    try:
        with os.scandir(path) as entries:
            return all(entry.is_dir() and _RUN.fullmatch(entry.name) for entry in entries)
    except OSError:
        return False


def _unsafe(prefix: str, names: list[str]) -> Iterator[Finding]:
    for name in names:
        if name.isascii() and name.isprintable() and "\\" not in name:
            continue
        if _UNSAFE.search(name):
            message = "the name is not UTF-8, or holds a control character or a backslash; rename it"
            shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            yield error(prefix + shown, "unsafe-name", message)


def _clashes(prefix: str, names: list[str]) -> Iterator[Finding]:
    """Yield names that equal another one without regard to case or Unicode form.

    Only a name that folding changes can clash, so the common folder with names in lower case costs no memory.
    """
    changed: dict[str, str] = {}
    for name in names:
        folded = fold(name)
        if folded == name:
            continue
        position = bisect_left(names, folded)
        other = (
            names[position] if position < len(names) and names[position] == folded else changed.get(folded)
        )
        if other is not None:
            message = f"differs from {other!r} only in case or Unicode form; rename one"
            yield error(prefix + name.rstrip("/"), "name-clash", message)
        changed[folded] = name
