"""Removes a folder that a training has filled, which may be deeper than Python recurses and without permissions."""

import os
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours with all that is in it; no link is followed. Raises FileNotFoundError, OSError."""
    if folder.is_symlink():
        raise OSError(f"{folder}: is a link, is not removed")
    folder.chmod(0o700)
    number = 0
    while inner := _sorted_out(folder):
        for path in inner:
            path.chmod(0o700)
            # What is in it comes up, so that no path gets long.
            for below in _sorted_out(path):
                below.chmod(0o700)  # moving a folder writes to it
                number += 1
                while os.path.lexists(up := folder / f"{number}.removed"):
                    number += 1
                below.rename(up)
            path.rmdir()
    folder.rmdir()


def _sorted_out(folder: Path) -> list[Path]:
    """Remove what is no folder; return the folders."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            else:
                Path(entry.path).unlink()
    return folders
