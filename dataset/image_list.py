"""A `.txt` list of images, as data.yaml and Darknet's obj.data name it."""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from gpu_offload.dataset.census import Census, Reason
from gpu_offload.dataset.finding import Finding, Findings, error, warning
from gpu_offload.dataset.image import suffix
from gpu_offload.dataset.layout import is_image
from gpu_offload.dataset.lfs import LFS_POINTER, LFS_REMEDY
from gpu_offload.dataset.walk import UNREAD_PICTURES, hidden
from gpu_offload.dataset.written_path import MAX_PATH, is_file

MAX_BYTES: Final = 128 << 20
"""Size of one list."""
MAX_LINES: Final = 1_000_000
"""Lines of all lists of a dataset together."""
_SHOWN: Final = 20
"""Faults of one list that are shown, one by one."""
_GIVEN_UP: Final = 200
"""Faults after which the rest of a list is not read."""
_MAX_FAULTS: Final = 2_000
"""Faults after which no further list is read."""
_MAX_DROPPED: Final = 20
"""Folders of another machine that may be before those of the dataset."""
_DRIVE: Final = re.compile(r"[A-Za-z]:/")

Resolve = Callable[[str], str | None]


@dataclass
class Allowance:
    """How much may still be read of all lists of a dataset."""

    lines: int = MAX_LINES
    faults: int = _MAX_FAULTS


def read_list(root: Path, source: str, findings: Findings, census: Census, allowance: Allowance) -> list[str]:
    """Return the images that a list names, relative to `root`, each once and in the list's order.

    A path is taken relative to `root`, with a leading `./` relative to the list's own folder, as Ultralytics does.
    Where that is no file, the list may count from its own folder, or from a folder above that is not there any more
    (`data/` of CVAT, an absolute path of another machine): whatever the first line needs then holds for all lines.

    Lines that name the same image are counted once; the training tree has each image once.
    """
    file = root / source
    if not source.endswith(".txt"):
        findings.append(error(source, "malformed-yaml", "is neither a folder nor a .txt list; correct it"))
        return []
    try:
        if file.stat().st_size > MAX_BYTES:
            message = f"is larger than {MAX_BYTES >> 20} MiB; split the list"
            findings.append(error(source, "huge-file", message))
            return []
        with file.open(encoding="utf-8-sig") as stream:
            lines = list(islice(stream, allowance.lines + 1))
    except (UnicodeDecodeError, OSError) as fault:
        reason = getattr(fault, "strerror", None) or "not UTF-8"
        findings.append(error(source, "unreadable-file", f"cannot be read ({reason}); list one image a line"))
        return []
    if lines and lines[0].startswith(LFS_POINTER.decode()):
        findings.append(error(source, "lfs-pointer", f"is a pointer of Git LFS, not the list; {LFS_REMEDY}"))
        return []
    if len(lines) > allowance.lines:
        message = f"the lists have more than {MAX_LINES} lines together; name folders, or split the dataset"
        findings.append(error(source, "huge-file", message))
        return []
    allowance.lines -= len(lines)
    return _ListFile(root, source, findings, census).images(lines, allowance)


class _ListFile:
    """Goes through the lines of one list."""

    def __init__(self, root: Path, source: str, findings: Findings, census: Census) -> None:
        self._root = root
        self._source = source
        self._findings = findings
        self._census = census
        self._faults: list[Finding] = []
        self._resolve: Resolve | None = None
        self._folders: dict[str, bool] = {}

    def images(self, text: Iterable[str], allowance: Allowance) -> list[str]:
        lines: dict[str, int] = {}
        repeated: list[int] = []
        for number, line in enumerate(text, 1):
            written = line.strip()
            # Darknet's lists have comments; a picture may still be called #1.jpg.
            if not written or (written.startswith("#") and not is_image(written)):
                continue
            try:
                name = self._image(written, number)
            except _LineError as fault:
                self._faults.append(error(self._source, fault.code, str(fault), number))
                allowance.faults -= 1
                if len(self._faults) > _GIVEN_UP or allowance.faults <= 0:
                    break
                continue
            if lines.setdefault(name, number) != number:
                repeated.append(number)
                self._census.count(Reason.REPEATED, f"{self._source}:{number}")
        if repeated:
            message = (
                f"{len(repeated)} lines repeat an image; it is trained on once an epoch, so repeating it "
                "gives it no more weight"
            )
            self._findings.append(warning(self._source, "repeated-line", message, repeated[0]))
        self._report(found=bool(lines))
        return list(lines)

    def _report(self, *, found: bool) -> None:
        """Report the faults: one where every line has the same, else each, up to a limit."""
        faults = self._faults
        if len(faults) > 1 and not found and len({fault.code for fault in faults}) == 1:
            first, number = faults[0], len(faults)
            more = "more than " if number > _GIVEN_UP else ""
            message = (
                f"{first.message} (and so on: none of {more}{number} lines names an image that is there)"
            )
            self._findings.append(error(self._source, first.code, message, first.line))
            return
        self._findings += faults[:_SHOWN]
        if len(faults) > _SHOWN:
            message = f"and {len(faults) - _SHOWN} more lines of this list are at fault"
            self._findings.append(error(self._source, "faulty-lines", message))

    def _image(self, written: str, number: int) -> str:
        """Return the image that a line names. Raises _LineError if it names none."""
        text = written
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            text = text[1:-1]
        if not text.isprintable() or len(text) > MAX_PATH:
            message = f"{text[:200]!r} is no path: it is too long or holds characters that cannot be printed"
            raise _LineError("unsafe-name", message)
        # A backslash separates folders on Windows; elsewhere it may be part of a name.
        if "\\" in text and not is_file(self._root / text):
            text = text.replace("\\", "/")
        if not is_image(text):
            raise _LineError(*_no_image(text))
        for resolve in [self._resolve] if self._resolve is not None else _ways(self._source, text):
            name = resolve(text)
            if name is not None and is_file(self._root / name):
                self._settle(resolve, written, name, number)
                self._check_links(name, text)
                return name
        # No way led to a file: the plain reading decides which fault it is.
        direct = _direct(self._source)(text)
        if direct is None:
            message = f"{text[:200]!r} leads out of the dataset; write paths relative to the dataset's folder"
            raise _LineError("outside-path", message)
        if (self._root / direct).is_symlink():
            raise _LineError("symlink", f"{text[:200]!r} is a symlink that leads nowhere")
        raise _LineError("missing-path", f"{text[:200]!r} does not exist; correct or remove the line")

    def _settle(self, resolve: Resolve, written: str, name: str, number: int) -> None:
        """Remember how the first image was found, and say so where it was not as written."""
        if self._resolve is not None:
            return
        self._resolve = resolve
        if name != _direct(self._source)(written):
            message = f"{written[:200]!r} is read as {name!r}, and the other lines alike; write them so"
            self._findings.append(warning(self._source, "list-path", message, number))

    def _check_links(self, name: str, text: str) -> None:
        if hidden(posixpath.basename(name)) or any(map(hidden, posixpath.dirname(name).split("/"))):
            message = f"{text[:200]!r} is hidden, or in a hidden folder or a cache; move it"
            raise _LineError("no-image", message)
        if (self._root / name).is_symlink() or self._is_linked(posixpath.dirname(name)):
            raise _LineError("symlink", f"{text[:200]!r} is or is behind a symlink")

    def _is_linked(self, folder: str) -> bool:
        """Whether a folder is, or is behind, a symlink."""
        if not folder:
            return False
        if folder not in self._folders:
            linked = (self._root / folder).is_symlink() or self._is_linked(posixpath.dirname(folder))
            self._folders[folder] = linked
        return self._folders[folder]


class _LineError(Exception):
    """A line names no image. `code` is a finding's code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _no_image(text: str) -> tuple[str, str]:
    if suffix(text) in UNREAD_PICTURES:
        return "unread-format", f"{text[:200]!r} is in a format that Ultralytics does not read; convert it"
    message = f"{text[:200]!r} is no path of an image; write one path a line, with its extension and nothing behind it"
    return "no-image", message


def _ways(source: str, text: str) -> Iterator[Resolve]:
    """Yield the ways in which a line may be meant, the plainest first."""
    yield _direct(source)
    yield lambda text: _inside(posixpath.dirname(source), text)
    for dropped in range(1, min(len(text.split("/")), _MAX_DROPPED)):
        yield _without(dropped)


def _direct(source: str) -> Resolve:
    def resolve(text: str) -> str | None:
        return _inside(posixpath.dirname(source) if text.startswith("./") else "", text)

    return resolve


def _without(dropped: int) -> Resolve:
    """Return a way that leaves out the first folders, which are of another machine or tool."""

    def resolve(text: str) -> str | None:
        parts = text.split("/")
        return _inside("", "/".join(parts[dropped:])) if ".." not in parts else None

    return resolve


def _inside(folder: str, text: str) -> str | None:
    """Return a path below the root, normalised; None for one that leads out of it."""
    if text.startswith(("/", "~")) or _DRIVE.match(text) or not text:
        return None
    name = posixpath.normpath(posixpath.join(folder, text))
    return None if name == ".." or name.startswith("../") else name
