"""Paths as a dataset's description gives them, perhaps of another machine: what they mean below one folder."""

import os
import posixpath
from pathlib import Path
from typing import Final

MAX_PATH: Final = 4096
"""Characters; operating systems take no longer path."""
_MAX_PARTS: Final = 100


def exists(path: Path) -> bool:
    """Whether there is something; unlike `Path.exists`, False for a name that is too long."""
    return os.path.exists(path)  # noqa: PTH110 - see above


def is_file(path: Path) -> bool:
    """Whether there is a file; unlike `Path.is_file`, False for a name that is too long."""
    return os.path.isfile(path)  # noqa: PTH113 - see above


def leads_out(written: str) -> bool:
    """Whether a path is absolute (on any operating system), in a home folder or the web, or climbs."""
    return _is_absolute(written) or "://" in written or ".." in written.split("/")


def _is_absolute(written: str) -> bool:
    return written.startswith(("/", "~")) or written[1:3] == ":/"


def resolve(folder: Path, written: str) -> str | None:
    """Return a path that exists at or below `folder`, normalised ("" for the folder itself); else None."""
    if not written.isprintable() or len(written) > MAX_PATH:
        return None
    if _is_absolute(written):
        here = folder.absolute().as_posix()
        if written.rstrip("/") != here and not written.startswith(f"{here}/"):
            return None
        written = written.rstrip("/")[len(here) :].lstrip("/")
    name = posixpath.normpath(written or ".")
    if name == ".." or name.startswith("../") or not exists(folder / name):
        return None
    return "" if name == "." else name


def last_parts(folder: Path, written: str) -> list[str]:
    """Return what a path that leads elsewhere may mean below `folder`: its last parts, the most of them first.

    Of a path that climbs only the climbing is left out.
    """
    parts = [part for part in written.split("/") if part not in ("", ".", "~")]
    if not leads_out(written) or len(parts) > _MAX_PARTS or not written.isprintable():
        return []
    climbs = parts.count("..")
    if climbs:
        # Roboflow's ../train/images is a folder beside the file; a/../../b could be anything.
        ends = [] if ".." in parts[climbs:] or _is_absolute(written) else ["/".join(parts[climbs:])]
    else:
        ends = ["/".join(parts[first:]) for first in range(len(parts))]
    return [end for end in ends if end and exists(folder / end)]


def first_link(folder: Path, name: str) -> str | None:
    """Return the first part of a path below `folder` that is a symlink, itself as a path below it; None without one."""
    parts = name.split("/") if name else []
    paths = ("/".join(parts[: depth + 1]) for depth in range(len(parts)))
    return next((path for path in paths if (folder / path).is_symlink()), None)


def is_broken_link(folder: Path, written: str) -> bool:
    """Whether a path ends at a symlink that leads nowhere."""
    return (
        not leads_out(written)
        and written.isprintable()
        and (folder / posixpath.normpath(written)).is_symlink()
    )
